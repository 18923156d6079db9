//! Permission bits at the call: what the mount shows binds the owner, as on a local disk.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::common::mounted::Mounted;

/// A user without privileges.
const NOBODY: u32 = 65_534;

/// The exit code of a shell command that an ordinary user runs, whom the mount shows as the owner.
fn as_owner(dir: &Path, line: &str) -> i32 {
    let user = NOBODY.to_string();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "sh", "-c", line]).current_dir(dir);
    command.stderr(std::process::Stdio::null()).status().expect("it runs").code().expect("it ends")
}

/// A mount that shows an ordinary user as the owner and lets that user in. `None`: only root can make one.
fn shown_as_nobody() -> Option<Mounted> {
    if !rustix::process::getuid().is_root() {
        eprintln!("SKIPPED: only root can act as another user");
        return None;
    }
    let m = Mounted::openssh(&format!("allow_other,uid={NOBODY},gid={NOBODY}"))?;
    let above = m.dir().ancestors().skip(1).take_while(|dir| dir.starts_with("/tmp") && *dir != Path::new("/tmp"));
    for dir in above {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).expect("opened for others");
    }
    Some(m)
}

fn chmod(path: &Path, bits: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(bits)).expect("chmod");
}

#[test]
fn the_owner_is_bound_by_the_write_bits_that_are_shown() {
    let Some(m) = shown_as_nobody() else { return };
    let sites = m.path("sites");
    fs::create_dir(&sites).expect("made");
    for name in ["settings.php", "other"] {
        fs::write(sites.join(name), "conf").expect("written");
    }
    fs::create_dir(sites.join("empty")).expect("made");
    chmod(&sites.join("settings.php"), 0o444);
    chmod(&sites, 0o555);
    m.barrier().expect("sent");
    let refused = [
        "echo x >> settings.php",
        "echo x > settings.php",
        "truncate -s 1 settings.php",
        "echo x > new",
        "mkdir d",
        "rm -f other",
        "rmdir empty",
        "ln -s x link",
        "mv other second",
        "test -w settings.php",
        "test -w .",
    ];
    for line in refused {
        assert_ne!(as_owner(&sites, line), 0, "{line}: accepted");
    }
    assert_eq!(
        as_owner(&sites, "echo more >> other && test -w other"),
        0,
        "a writable file in a directory that is not"
    );
    m.barrier().expect("nothing was refused by the server");
    assert_eq!(fs::read(m.there("sites/other")).expect("there"), b"confmore\n");
    assert_eq!(fs::read(m.there("sites/settings.php")).expect("there"), b"conf");
    chmod(&sites, 0o755);
    assert_eq!(as_owner(&sites, "echo x > new && rm other && chmod u+w settings.php && echo x > settings.php"), 0);
    m.barrier().expect("sent");
    assert_eq!(m.status()["stranded"], serde_json::json!([]));
}

#[test]
fn replacing_a_read_only_file_reaches_the_server() {
    let Some(m) = shown_as_nobody() else { return };
    let dir = m.path("d");
    fs::create_dir(&dir).expect("made");
    assert_eq!(as_owner(&dir, "echo a > f && chmod 444 f"), 0);
    m.barrier().expect("sent");
    assert_eq!(as_owner(&dir, "echo b > t && chmod 444 t && mv -f t f"), 0);
    m.barrier().expect("sent");
    assert_eq!(fs::read(m.there("d/f")).expect("there"), b"b\n");
    assert_eq!(fs::metadata(m.there("d/f")).expect("there").permissions().mode() & 0o777, 0o444);
}
