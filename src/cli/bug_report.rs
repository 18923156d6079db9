//! `pantheonfs report`: what somebody who looks into a fault has to know, in one file, without secrets. It is written to be
//! read before it is sent.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::ask::status_of;
use super::environ::{Environ, secrets_of};
use super::exit::{CliResult, Exit, Failure};
use super::private_dir::read_own;
use super::record::{self, UserMount};
use super::redact::Redactor;
use super::{list, machine, report};
use crate::text;

/// Lines of each log.
const LOG_LINES: usize = 300;

/// See the module header.
pub(super) fn run(output: Option<&Path>, json: bool) -> CliResult<()> {
    let around = Environ::look()?;
    let mut text =
        "This report is about one machine and one user. Secrets have been removed as far as they were recognized: \
                    read it before you send it, and remove what is not for others, such as names of files.\n"
            .to_owned();
    section(&mut text, "versions", &versions());
    section(&mut text, "machine", &machine_lines(&around));
    let mounts = record::mounts(&around)?;
    for mount in &mounts {
        section(&mut text, &format!("mount {}", mount.record.source), &describe(mount));
    }
    for (name, log) in logs(&around)? {
        section(&mut text, &format!("log of {name}"), &log);
    }
    let secrets = around.platform().map(|platform| secrets_of(&platform)).unwrap_or_default();
    let cleaned = Redactor::new(secrets, around.home.as_deref()).clean(&text);
    let path = output.map_or_else(default_name, Path::to_owned);
    let failed = |e: std::io::Error| {
        let text = format!("{}: the report cannot be written; name another file with -o", path.display());
        Failure::caused(Exit::Failed, text, e)
    };
    // Not over a file that is there, and for the user only.
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
    file.write_all(cleaned.as_bytes()).map_err(failed)?;
    if json {
        let answer = serde_json::json!({ "report": path.to_string_lossy(), "mounts": mounts.len() });
        return report::print(text::json(&answer).as_bytes());
    }
    report::print(format!("{}: read it, then attach it to the report of the fault\n", path.display()).as_bytes())
}

fn default_name() -> PathBuf {
    let now = humantime::format_rfc3339_seconds(std::time::SystemTime::now()).to_string();
    PathBuf::from(format!("pantheonfs-report-{}.txt", now.replace(':', "").trim_end_matches('Z')))
}

fn section(text: &mut String, title: &str, body: &str) {
    // A string takes everything.
    let _ = write!(text, "\n== {title}\n\n{}\n", body.trim_end());
}

fn versions() -> String {
    let simulator = if cfg!(feature = "sim") { "with" } else { "without" };
    let uname = rustix::system::uname();
    let os = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let os = os.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown").trim_matches('"');
    let of = |program: &str, flag: &str| machine::first_line(program, flag).unwrap_or_else(|| "missing".into());
    format!(
        "pantheonfs {} ({simulator} the simulator)\nsystem: {os}\nkernel: {} {}\nfusermount3: {}\nssh: {}\ngit: {}\n",
        env!("CARGO_PKG_VERSION"),
        uname.release().to_string_lossy(),
        uname.machine().to_string_lossy(),
        of("fusermount3", "--version"),
        of("ssh", "-V"),
        of("git", "--version"),
    )
}

fn machine_lines(around: &Environ) -> String {
    let login = around.platform().and_then(machine::login);
    let checks = [("fuse", machine::fuse()), ("login", login), ("keys", machine::keys(around))];
    let said = |result: CliResult<String>| result.unwrap_or_else(|failure| format!("FAILED: {}", failure.explain()));
    let mut out: String = checks.into_iter().map(|(what, result)| format!("{what}: {}\n", said(result))).collect();
    let _ = writeln!(out, "mount(8): {}", machine::mount_helper());
    out
}

/// What a mount was started with, and its status.
fn describe(mount: &UserMount) -> String {
    let status = if mount.alive { status_of(&mount.record.mountpoint) } else { None };
    let mut out = format!("{}\n", list::describe(mount, status.as_ref()));
    let words = fs::read(format!("/proc/{}/cmdline", mount.record.pid)).unwrap_or_default();
    let words = String::from_utf8_lossy(&words).replace('\0', " ");
    let _ = writeln!(out, "started as: {}", words.trim());
    if let Some(status) = status {
        out.push_str(&text::json(&status));
    }
    out
}

/// The end of the log of each environment that has one.
fn logs(around: &Environ) -> CliResult<Vec<(String, String)>> {
    let mut out = Vec::new();
    for entry in fs::read_dir(around.state_root()?).into_iter().flatten().flatten() {
        let Ok((bytes, _)) = read_own(&entry.path(), Path::new("log")) else { continue };
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        out.push((entry.file_name().to_string_lossy().into_owned(), last));
    }
    Ok(out)
}
