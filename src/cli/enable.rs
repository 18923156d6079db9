//! `pantheonfs enable` and `disable`: mounts that systemd makes when the user logs in.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, io};

use super::args;
use super::environ::{self, Environ};
use super::exit::{CliResult, Exit, Failure, failed};
use super::machine;
use super::options::Options;
use super::report::Outcomes;
use super::source::Source;
use super::unit::{AtLogin, Start};
use super::{mountpoint, record};
use crate::durable;
use crate::text::visible;

/// `pantheonfs enable`.
pub(super) fn enable(args: &args::Enable) -> CliResult<()> {
    let around = Environ::look()?;
    let (source, _) = Source::parse_or_dev(&args.source)?;
    Options::parse(&args.options, &around.here, around.home.as_deref())?;
    let mountpoint = args.mountpoint.as_deref().map(directory).transpose()?;
    let mount = AtLogin { source: source.to_string(), mountpoint };
    let program = std::env::current_exe().map_err(failed(&"the path of this program is not known"))?;
    let variables = environ::kept_for_login();
    let start = Start { program: &program, here: &around.here, options: &args.options, variables: &variables };
    let units = around.units()?;
    write(&units.join(mount.unit()), &mount.text(&start)?)?;
    warn_of_what_ends_with_the_session(&around, &variables);
    if let Err(failure) = systemctl(&["daemon-reload"]).and_then(|()| systemctl(&["enable", &mount.unit()])) {
        drop(fs::remove_file(units.join(mount.unit())));
        return Err(failure);
    }
    let mut outcomes = Outcomes::new(args.output.json);
    outcomes.add(&mount.source, start_now(&mount, &around)?)?;
    outcomes.end()
}

/// Starts the unit, unless the environment is mounted already. The outcome, for the user.
fn start_now(mount: &AtLogin, around: &Environ) -> CliResult<&'static str> {
    let mounts = record::mounts(around)?;
    if mounts.iter().any(|mounted| mounted.alive && mounted.record.source == mount.source) {
        return Ok("mounted at each login; it is mounted already, and stays as it is now");
    }
    systemctl(&["start", &mount.unit()]).map_err(|failure| {
        let text = format!(
            "{}: mounted at each login, but it could not be mounted now: {}; `journalctl --user -u {}` says why, and it is tried \
             again every 15 s (`pantheonfs disable {0}` ends that)",
            mount.source,
            failure.explain(),
            mount.unit()
        );
        Failure::new(Exit::Failed, text)
    })?;
    Ok("mounted, now and at each login")
}

/// `pantheonfs disable`.
pub(super) fn disable(args: &args::Disable) -> CliResult<()> {
    let around = Environ::look()?;
    let (source, _) = Source::parse_or_dev(&args.source)?;
    let mount = AtLogin { source: source.to_string(), mountpoint: None };
    let units = around.units()?;
    let file = units.join(mount.unit());
    let is_enabled = super::unit::enabled(&units).iter().any(|enabled| enabled.source == mount.source);
    if !is_enabled && !file.exists() {
        let text = format!("{}: not mounted at login; `pantheonfs list` shows what is", mount.source);
        return Err(Failure::new(Exit::Failed, text));
    }
    // Stopping the unit unmounts.
    systemctl(&["disable", "--now", &mount.unit()])?;
    match fs::remove_file(&file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&file.display())(error)),
        _ => systemctl(&["daemon-reload"])?,
    }
    let mut outcomes = Outcomes::new(args.output.json);
    outcomes.add(&mount.source, "unmounted, and no longer mounted at login")?;
    outcomes.end()
}

/// The absolute path of the directory to mount on.
fn directory(given: &Path) -> CliResult<PathBuf> {
    let place =
        mountpoint::settle(given).map_err(|e| Failure::caused(Exit::MountPoint, given.display().to_string(), e))?;
    let is_mounted = mountpoint::ours().iter().any(|mount| mount.mountpoint == place);
    if is_mounted || place.is_dir() {
        return Ok(place);
    }
    Err(mountpoint::failure(given, "not a directory; make it first"))
}

/// Writes the unit. One that mounts otherwise is not replaced: the mount that it has made would have no unit any more.
fn write(file: &Path, text: &str) -> CliResult<()> {
    let failed = failed(&file.display());
    if let Ok(present) = fs::read_to_string(file) {
        if present == text {
            return Ok(());
        }
        let text = format!("{}: exists with other settings; `pantheonfs disable` first", file.display());
        return Err(Failure::new(Exit::Failed, text));
    }
    fs::create_dir_all(file.parent().unwrap_or(file)).map_err(&failed)?;
    durable::replace(file, |file| file.write_all(text.as_bytes())).map(drop).map_err(failed)
}

/// What of this session the mount will not have at the next login.
fn warn_of_what_ends_with_the_session(around: &Environ, kept: &[(String, String)]) {
    let saved = around.platform().map(|mut platform| {
        platform.control.token = None;
        machine::login(platform).is_ok()
    });
    if environ::token().is_some() && saved.is_ok_and(|saved| !saved) {
        eprintln!("pantheonfs: the token of this shell is not there at login; save it with `pantheonfs login`");
    }
    let is_kept = kept.iter().any(|(name, _)| name == environ::AGENT);
    if let Some(agent) = around.agent.as_ref().filter(|_| !is_kept) {
        eprintln!(
            "pantheonfs: the agent of this session ({}) may be elsewhere at the next login; name a key with -o IdentityFile=, or use an \
             agent that is a unit of systemd",
            visible(agent.as_os_str().as_encoded_bytes())
        );
    }
}

/// Runs `systemctl --user`.
fn systemctl(words: &[&str]) -> CliResult<()> {
    let ran = Command::new("systemctl").arg("--user").args(words).output().map_err(|e| {
        let text =
            "systemctl cannot be run; mounting at login needs systemd, other systems mount by fstab or a start script";
        Failure::caused(Exit::Failed, text, e)
    })?;
    if ran.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&ran.stderr);
    let said: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = format!("systemctl --user {}: {}", words.join(" "), visible(said.join(" ")));
    Err(Failure::new(Exit::Failed, text))
}
