//! `pantheonfs umount`: sends what is not on the server yet, then unmounts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::args;
use super::ask::status_of;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::place::is_path;
use super::report::{self, Outcomes};
use super::source::Source;
use super::{commands, lock, mountpoint, record};
use crate::text::visible;

/// How long the driver may take to end, and how often it is looked at.
const DRIVER_LIMIT: Duration = Duration::from_secs(5);
const DRIVER_CHECK: Duration = Duration::from_millis(20);
/// How long a mount may be in use before that is a failure.
const BUSY_LIMIT: Duration = Duration::from_secs(3);
/// How many unsent files are named.
const MAX_NAMED: usize = 5;

/// `pantheonfs umount`: one mount, or all of the user.
pub(super) fn command(args: &args::Umount) -> CliResult<()> {
    match &args.mountpoint {
        Some(given) => run(&named(given)?, args.force, args.output.json),
        None => all(args.force, args.output.json),
    }
}

/// The mount point that is meant: a path, or where the user has mounted a source of this name.
fn named(given: &Path) -> CliResult<PathBuf> {
    if is_path(given) || given.symlink_metadata().is_ok() {
        return Ok(given.to_owned());
    }
    let Ok((source, _)) = Source::parse_or_dev(given.as_os_str()) else { return Ok(given.to_owned()) };
    let source = source.to_string();
    let mut mounts = record::mounts(&Environ::look()?)?.into_iter().map(|mount| mount.record);
    let found = mounts.find(|record| record.source == source);
    Ok(found.map_or_else(|| given.to_owned(), |record| record.mountpoint))
}

/// Unmounts all mounts of the user. One that cannot be unmounted does not keep the others.
fn all(force: bool, json: bool) -> CliResult<()> {
    let mut outcomes = Outcomes::new(json);
    let mut failed = None;
    for mount in record::mounts(&Environ::look()?)? {
        let done = unmount(&mount.record.mountpoint, force);
        let outcome = match &done {
            Ok(_) => "unmounted".to_owned(),
            Err(failure) if failure.exit == Exit::GivenUp => format!("unmounted; {}", failure.explain()),
            Err(failure) => format!("FAILED: {}", failure.explain()),
        };
        outcomes.add(&mount.record.mountpoint.to_string_lossy(), &outcome)?;
        failed = failed.or(done.err().map(|failure| failure.exit));
    }
    outcomes.end()?;
    failed.map_or(Ok(()), |exit| Err(Failure::silent(exit)))
}

/// Unmounts one mount and reports it.
pub(super) fn run(path: &Path, force: bool, json: bool) -> CliResult<()> {
    let place = locate(path)?;
    let done = unmount(&place, force);
    let is_gone = done.as_ref().err().is_none_or(|failure| failure.exit == Exit::GivenUp);
    if json && is_gone {
        let answer = serde_json::json!({ "unmounted": place.display().to_string() });
        report::print(format!("{answer:#}\n").as_bytes())?;
    }
    done
}

/// Unmounts; without `force` the changes that are not on the server are sent first.
fn unmount(place: &Path, force: bool) -> CliResult<()> {
    let status = status_of(place);
    let mut sent = Ok(());
    if !force && status.is_some() {
        sent = commands::send_before_unmount(place);
        warn_of_unsent(status_of(place).as_ref());
    } else {
        warn_of_unsent(status.as_ref());
    }
    // The process of a mount that does not answer cannot release it; the status request above still uses the mount.
    let detached = detach(place, force || status.is_none());
    if let (Err(_), Err(given_up)) = (&detached, &sent) {
        eprintln!("pantheonfs: {}", visible(given_up.explain()));
    }
    detached.map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => {
            let text = format!(
                "{}: in use; close the programs that use it (`fuser -vm '{0}'` lists them), or use --force",
                place.display()
            );
            Failure::new(Exit::Busy, text)
        }
        _ => Failure::caused(Exit::MountPoint, place.display().to_string(), error),
    })?;
    if let Some(state_dir) = status.as_ref().and_then(|status| status["state_dir"].as_str()) {
        wait_for_driver(Path::new(state_dir));
    }
    record::clear_after_dead(&Environ::look()?, place)?;
    // Unmounted all the same: what was given up is kept, and would not be sent later either.
    sent
}

/// Unmounts. A program that uses the mount only for a moment, such as `pantheonfs watch`, is waited for.
fn detach(place: &Path, lazy: bool) -> std::io::Result<()> {
    let until = Instant::now() + BUSY_LIMIT;
    loop {
        match mountpoint::detach(place, lazy) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && Instant::now() < until => {
                std::thread::sleep(DRIVER_CHECK);
            }
            done => return done,
        }
    }
}

/// Waits until the driver has ended, so that the environment can be mounted again at once.
fn wait_for_driver(state_dir: &Path) {
    let until = Instant::now() + DRIVER_LIMIT;
    while lock::is_held(state_dir) {
        if Instant::now() >= until {
            return eprintln!(
                "pantheonfs: unmounted; the driver has not ended yet, because files are open or changes are being sent"
            );
        }
        std::thread::sleep(DRIVER_CHECK);
    }
}

/// The mount on `path`. The mount itself is accessed last, so that one that does not answer is found, too.
fn locate(path: &Path) -> CliResult<PathBuf> {
    let ours = mountpoint::ours();
    let is_ours = |place: &PathBuf| ours.iter().any(|mount| mount.mountpoint == *place);
    let beside = || {
        let path = std::path::absolute(path).ok()?;
        Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?))
    };
    if let Some(place) = beside().filter(is_ours) {
        return Ok(place);
    }
    let place = mountpoint::settle(path).map_err(|e| {
        Failure::caused(Exit::MountPoint, format!("{}: {e}; nothing is mounted there", path.display()), e)
    })?;
    if is_ours(&place) {
        return Ok(place);
    }
    Err(mountpoint::failure(path, "not a mount of pantheonfs; `pantheonfs list` lists them"))
}

/// Warns of changes that are not on the server, and of uncommitted ones.
fn warn_of_unsent(status: Option<&serde_json::Value>) {
    let Some(status) = status else {
        return eprintln!(
            "pantheonfs: the mount does not answer; changes that it has not sent are kept, and the next mount sends them"
        );
    };
    for reminder in status["reminders"].as_array().into_iter().flatten().filter_map(|r| r.as_str()) {
        if reminder.contains("uncommitted") || reminder.contains("rescue") {
            eprintln!("pantheonfs: {}", visible(reminder));
        }
    }
    let waiting = status["waiting"].as_u64().unwrap_or_default();
    if waiting > 0 {
        let dirty: Vec<&str> =
            status["dirty"].as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
        let more = if dirty.len() > MAX_NAMED { ", …" } else { "" };
        let names = match dirty.iter().take(MAX_NAMED).copied().collect::<Vec<_>>().join(", ") {
            names if names.is_empty() => String::new(),
            names => format!(" ({}{more})", visible(names)),
        };
        eprintln!(
            "pantheonfs: {waiting} change(s) are not on the server yet{names}; they are kept on this machine, and the next mount sends them"
        );
    }
}
