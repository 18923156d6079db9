//! `pantheonfs mode` and `pantheonfs sync`, and how all commands write to the files of `.pantheon`, as any program could.

use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::json;

use super::args;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;
use super::progress::Progress;
use super::report;

/// `pantheonfs mode`: prints or switches the connection mode.
pub(super) fn mode(args: &args::Mode) -> CliResult<()> {
    let Some(wanted) = &args.mode else {
        if args.output.json {
            let status = report::status_json(&args.at)?;
            let answer = json!({ "mode": status["mode"], "source": status["mode_source"], "code": status["code"] });
            return report::print(format!("{answer:#}\n").as_bytes());
        }
        return report::print(&report::read(&args.at, "mode")?);
    };
    let before = report::status_json(&args.at)?["mode"].clone();
    let words = if args.discard { format!("{wanted} --discard\n") } else { format!("{wanted}\n") };
    write(&args.at, "mode", &words, "switching the mode")?;
    let after = report::status_json(&args.at)?["mode"].clone();
    if args.output.json {
        return report::print(format!("{:#}\n", json!({ "before": before, "mode": after })).as_bytes());
    }
    let text = after.as_str().unwrap_or_default();
    report::print(if before == after { format!("{text} (already)\n") } else { format!("{text}\n") }.as_bytes())
}

/// `pantheonfs sync`: waits until the server has every change.
pub(super) fn sync(at: &Path, json: bool) -> CliResult<()> {
    let before = report::status_json(at)?["waiting"].as_u64().unwrap_or_default();
    write(at, "sync", "now\n", "sending changes")?;
    let conflicts = report::status_json(at)?["conflicts"].as_array().map_or(0, Vec::len);
    if json {
        return report::print(format!("{:#}\n", json!({ "sent": before, "conflicts": conflicts })).as_bytes());
    }
    if conflicts > 0 {
        eprintln!(
            "pantheonfs: another writer changed {conflicts} of the files; your versions are kept in .pantheon/conflicts; run: pantheonfs resolve PATH"
        );
    }
    report::print(
        if before == 0 { "nothing to send\n".into() } else { format!("{before} change(s) sent\n") }.as_bytes(),
    )
}

/// Sends before an unmount what is not on the server yet. Changes that cannot be sent stay for the next mount.
///
/// # Errors
///
/// Changes were given up.
pub(super) fn send_before_unmount(place: &Path) -> CliResult<()> {
    match write(place, "sync", "now\n", "sending changes") {
        Err(failure) if failure.exit == Exit::GivenUp => Err(failure),
        Err(failure) => {
            log::info!("{}", failure.explain());
            Ok(())
        }
        Ok(()) => Ok(()),
    }
}

/// Writes a command to a file of `.pantheon` and waits for its outcome, with progress on the terminal.
pub(super) fn write(at: &Path, name: &str, words: &str, doing: &str) -> CliResult<()> {
    let activity = mountpoint::around(at)?.mountpoint.join(".pantheon/activity");
    let _progress = Progress::start(doing, activity);
    write_silently(at, name, Path::new(words))
}

/// Like [`write`], without progress. The status has the reason of a failure.
pub(super) fn write_silently(at: &Path, name: &str, words: &Path) -> CliResult<()> {
    let file = mountpoint::around(at)?.mountpoint.join(".pantheon").join(name);
    let mut bytes = words.as_os_str().as_bytes().to_vec();
    if !bytes.ends_with(b"\n") {
        // Without it the command is run at `close`, whose result is lost.
        bytes.push(b'\n');
    }
    let written = fs::OpenOptions::new().write(true).open(&file).and_then(|mut file| file.write_all(&bytes));
    written.map_err(|error| {
        let why = report::status_json(at).ok().and_then(|s| Some(s["last_error"]["message"].as_str()?.to_owned()));
        let text = why.unwrap_or_else(|| format!("{}: {error}", file.display()));
        let exit = match error.raw_os_error() {
            Some(libc::EBUSY) => Exit::Busy,
            Some(libc::EREMOTEIO) => Exit::GivenUp,
            Some(libc::EINVAL) => Exit::Usage,
            _ => Exit::Failed,
        };
        Failure::new(exit, text)
    })
}
