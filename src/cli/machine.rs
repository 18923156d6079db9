//! What this machine has of what a mount needs: for `pantheonfs doctor` without a source, and for `pantheonfs` alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::environ::{Environ, Platform};
use super::exit::{CliResult, Exit, Failure};
use super::mount;
use crate::control::Control;

/// Names of private keys that are tried without a setting, as OpenSSH has them, of types that the platform accepts.
const KEYS: [&str; 2] = ["id_rsa", "id_ecdsa"];

/// Where the credentials for the platform come from.
pub(super) fn login(platform: Platform) -> CliResult<String> {
    if platform.control.token.is_some() {
        return Ok("credentials from a variable with a token".into());
    }
    if Control::new(platform.control)?.can_log_in() {
        return Ok("credentials from Terminus' files".into());
    }
    Err(Failure::new(
        Exit::NotLoggedIn,
        "no credentials are saved; create a Personal Access Token (https://docs.pantheon.io/personal-access-tokens) and run \
         `pantheonfs login`",
    ))
}

/// FUSE: the device, and for an ordinary user the program that mounts.
pub(super) fn fuse() -> CliResult<String> {
    mount::fuse_is_there()?;
    if rustix::process::geteuid().is_root() {
        return Ok("/dev/fuse can be opened".into());
    }
    match first_line("fusermount3", "--version") {
        Some(version) => Ok(format!("/dev/fuse can be opened, {version}")),
        None => {
            let text = "fusermount3 is missing; install the package fuse3";
            Err(Failure::new(Exit::NoFuse, text))
        }
    }
}

/// The keys that a mount would offer without further settings.
pub(super) fn keys(around: &Environ) -> CliResult<String> {
    let ssh = around.home.as_ref().map(|home| home.join(".ssh"));
    let of = |name: &&str| ssh.as_ref().map(|dir| dir.join(name)).filter(|file| file.exists());
    let mut found: Vec<String> = KEYS.iter().filter_map(of).map(|file| file.display().to_string()).collect();
    if around.agent.as_deref().is_some_and(Path::exists) {
        found.push("those of the agent".into());
    }
    if !found.is_empty() {
        return Ok(found.join(", "));
    }
    Err(Failure::new(
        Exit::LoginRefused,
        "no SSH key of a type that Pantheon accepts is in ~/.ssh, and no agent runs; make one with `ssh-keygen -t rsa -b 4096`, \
         add it to your account, or name one with -o IdentityFile=",
    ))
}

/// A program that some functions need.
pub(super) fn program(name: &str, flag: &str, needed_for: &str) -> CliResult<String> {
    let missing = || Failure::new(Exit::Failed, format!("{name} is missing; it is needed for {needed_for}"));
    first_line(name, flag).ok_or_else(missing)
}

/// Whether the helper of mount(8) is installed, and for whom that matters.
pub(super) fn mount_helper() -> String {
    let places = ["/sbin/mount.pantheonfs", "/usr/sbin/mount.pantheonfs"].map(PathBuf::from);
    match places.iter().find(|place| place.exists()) {
        Some(place) => format!("{} is there: fstab and mount -t pantheonfs work", place.display()),
        None => "mount.pantheonfs is not installed: fstab and mount -t pantheonfs do not work (a package, or \
                 scripts/setup --mount-helper, installs it)"
            .into(),
    }
}

/// The first line that a program prints about its version, on either output.
pub(super) fn first_line(program: &str, flag: &str) -> Option<String> {
    let output = Command::new(program).arg(flag).current_dir("/").output().ok()?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}
