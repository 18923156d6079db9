//! Mount points: fit to be mounted on, stale, ours; and taking mounts away.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::mount::{UnmountFlags, unmount};

use super::exit::{CliResult, Exit, Failure};
use crate::text::visible;

/// The type under which the kernel lists our mounts.
const TYPE: &[u8] = b"fuse.pantheonfs";
/// How long a mount may take to say how it stands: it needs no server for that, so one that takes longer hangs.
const STATUS_LIMIT: Duration = Duration::from_secs(3);
/// Files that are named where some wait to be sent.
const MAX_NAMED: usize = 5;

/// One of our mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OurMount {
    pub(super) mountpoint: PathBuf,
    pub(super) source: OsString,
    /// The user who mounted it, as the kernel knows.
    pub(super) owner: Option<u32>,
}

/// All mounts of pantheonfs in this mount namespace.
pub(super) fn ours() -> Vec<OurMount> {
    parse_mountinfo(&fs::read("/proc/self/mountinfo").unwrap_or_default())
}

fn parse_mountinfo(text: &[u8]) -> Vec<OurMount> {
    let mut out = Vec::new();
    for line in text.split(|&b| b == b'\n') {
        let fields: Vec<&[u8]> = line.split(|&b| b == b' ').collect();
        let Some(dash) = fields.iter().position(|field| *field == b"-") else { continue };
        let (Some(place), Some(kind), Some(source)) = (fields.get(4), fields.get(dash + 1), fields.get(dash + 2))
        else {
            continue;
        };
        if *kind == TYPE {
            out.push(OurMount {
                mountpoint: OsString::from_vec(unescape(place)).into(),
                source: OsString::from_vec(unescape(source)),
                owner: fields.get(dash + 3).and_then(|options| user_id(options)),
            });
        }
    }
    out
}

fn user_id(options: &[u8]) -> Option<u32> {
    std::str::from_utf8(options).ok()?.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok())
}

/// The kernel writes blanks and backslashes as three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let byte = octal.and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        out.push(byte.unwrap_or(first));
        rest = if byte.is_some() { &tail[3..] } else { tail };
    }
    out
}

/// The absolute path without symlinks; the last name is left alone, because a dead mount cannot be looked at.
pub(super) fn settle(path: &Path) -> io::Result<PathBuf> {
    if let Ok(path) = fs::canonicalize(path) {
        return Ok(path);
    }
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) => Ok(fs::canonicalize(parent)?.join(name)),
        _ => Ok(path),
    }
}

fn failure(path: &Path, text: &str) -> Failure {
    Failure::new(Exit::MountPoint, format!("{}: {text}", path.display()))
}

/// Makes sure that the directory can be mounted on, and clears away what a dead mount left.
pub(super) fn prepare(path: &Path, nonempty: bool) -> CliResult<PathBuf> {
    let mut found = fs::metadata(path);
    if matches!(&found, Err(error) if error.raw_os_error() == Some(libc::ENOTCONN)) {
        log::warn!("{}: clearing away a mount whose process is gone", path.display());
        let place = settle(path).map_err(|e| failure(path, &e.to_string()))?;
        detach(&place, true).map_err(|e| failure(path, &format!("a dead mount is in the way: {e}")))?;
        found = fs::metadata(path);
    }
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(failure(path, &format!("no such directory; make it: mkdir -p '{}'", path.display())));
        }
        Err(error) => return Err(failure(path, &error.to_string())),
        Ok(meta) if !meta.is_dir() => return Err(failure(path, "not a directory; mount on an empty directory")),
        Ok(_) => {}
    }
    let place = settle(path).map_err(|e| failure(path, &e.to_string()))?;
    if let Some(mount) = ours().iter().find(|mount| mount.mountpoint == place) {
        let text = format!("{} is mounted here already; unmount it first", mount.source.to_string_lossy());
        return Err(failure(path, &text));
    }
    let empty = fs::read_dir(&place).map(|mut entries| entries.next().is_none());
    match empty {
        Ok(true) => Ok(place),
        Ok(false) if nonempty => Ok(place),
        Ok(false) => Err(failure(path, "not empty; use another directory, or -o nonempty to hide what is there")),
        Err(error) => Err(failure(path, &error.to_string())),
    }
}

/// `pantheonfs umount`.
pub(super) fn umount(path: &Path, force: bool, json: bool) -> CliResult<()> {
    let place = locate(path)?;
    let status = status_of(&place);
    if !force && status.as_ref().is_some_and(|status| status["waiting"].as_u64() != Some(0)) {
        super::commands::send_what_waits(&place);
        tell_what_waits(status_of(&place).as_ref());
    } else {
        tell_what_waits(status.as_ref());
    }
    // A driver that does not answer cannot say who uses the mount, and our own question to it still does.
    detach(&place, force || status.is_none()).map_err(|error| match error.raw_os_error() {
        Some(libc::EBUSY) => {
            let text = format!(
                "{}: in use; close the programs that use it (`fuser -vm '{0}'` names them), or use --force",
                path.display()
            );
            Failure::new(Exit::Busy, text)
        }
        _ => failure(path, &error.to_string()),
    })?;
    if json {
        let answer = serde_json::json!({ "unmounted": place.display().to_string() });
        super::report::print(format!("{answer:#}\n").as_bytes())?;
    }
    Ok(())
}

/// Our mount on `path`. The mount itself is asked last: one whose driver hangs must be found, too.
fn locate(path: &Path) -> CliResult<PathBuf> {
    let ours = ours();
    let is_ours = |place: &PathBuf| ours.iter().any(|mount| mount.mountpoint == *place);
    let beside = || {
        let path = std::path::absolute(path).ok()?;
        Some(fs::canonicalize(path.parent()?).ok()?.join(path.file_name()?))
    };
    if let Some(place) = beside().filter(is_ours) {
        return Ok(place);
    }
    let place = settle(path).map_err(|e| failure(path, &format!("{e}; nothing is mounted there")))?;
    if is_ours(&place) {
        return Ok(place);
    }
    Err(failure(path, "no mount of pantheonfs; `pantheonfs status` works inside one"))
}

/// What the mount says of itself, unless it does not answer: then it is left to itself. Another process asks: one whose
/// question the driver has taken and does not answer cannot end, not even by SIGKILL.
fn status_of(place: &Path) -> Option<serde_json::Value> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["status", "--json", "--"]).arg(place).current_dir("/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let (mut output, (sender, answer)) = (child.stdout.take()?, mpsc::channel());
    let read = move || {
        let mut text = Vec::new();
        drop(sender.send(output.read_to_end(&mut text).map(|_| text)));
    };
    std::thread::Builder::new().spawn(read).ok()?;
    let Ok(text) = answer.recv_timeout(STATUS_LIMIT) else {
        // It ends when it can; nobody waits for that.
        child.kill().ok()?;
        return None;
    };
    child.wait().ok()?;
    serde_json::from_slice(&text.ok()?).ok()
}

/// Files that only this machine has, with where they will be found.
fn tell_what_waits(status: Option<&serde_json::Value>) {
    let Some(status) = status else {
        return eprintln!(
            "pantheonfs: the mount does not say how it stands; what it has not sent is kept for the next one"
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
            "pantheonfs: {waiting} change(s) are not on the server yet{names}; they are kept here, and the next mount sends them"
        );
    }
}

/// Takes a mount away: by umount2(2) as root, by fusermount3 otherwise. `lazy`: even if it is in use.
pub(super) fn detach(place: &Path, lazy: bool) -> io::Result<()> {
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match unmount(place, flags) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => fusermount(place, lazy),
        Err(error) => Err(error.into()),
    }
}

fn fusermount(place: &Path, lazy: bool) -> io::Result<()> {
    let mut command = Command::new("fusermount3");
    command.arg("-u").args(lazy.then_some("-z")).arg("--").arg(place).current_dir("/");
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("busy") { Err(io::Error::from_raw_os_error(libc::EBUSY)) } else { Err(io::Error::other(said)) }
}

/// Our mount that holds `path`.
pub(super) fn around(path: &Path) -> CliResult<OurMount> {
    let place = settle(path).map_err(|e| failure(path, &e.to_string()))?;
    let holding = ours().into_iter().filter(|mount| place.starts_with(&mount.mountpoint));
    holding
        .max_by_key(|mount| mount.mountpoint.as_os_str().as_bytes().len())
        .ok_or_else(|| failure(path, "not in a mount of pantheonfs; go into one, or name a path in it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_mounts_are_found_with_odd_names() {
        let text = b"36 35 0:48 / /mnt/my\\040site rw,nosuid shared:1 - fuse.pantheonfs mysite.dev rw,user_id=0\n\
                     37 35 8:1 / / rw - ext4 /dev/sda1 rw\nnonsense\n";
        let mounts = parse_mountinfo(text);
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].mountpoint, Path::new("/mnt/my site"));
        assert_eq!(mounts[0].owner, Some(0));
        assert_eq!(unescape(b"a\\134b\\9"), b"a\\b\\9");
    }

    #[test]
    fn a_place_that_cannot_be_mounted_on_says_why() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let message = |path: &Path| prepare(path, false).expect_err("unfit").message;
        assert!(message(&dir.path().join("none")).contains("mkdir"));
        fs::write(dir.path().join("file"), "x").expect("written");
        assert!(message(&dir.path().join("file")).contains("not a directory"));
        assert!(message(dir.path()).contains("not empty"));
        assert!(prepare(dir.path(), true).is_ok());
    }
}
