//! Other users of this machine: what they cannot read, cannot command, and cannot prepare for us to walk into.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::mounted::Mounted;
use crate::common::program::{Environ, Ran, is_mounted};
use crate::common::{has_fuse, has_program, needs_root, watch};

const FAILED: i32 = 1;
const USAGE: i32 = 2;
const MOUNT_POINT: i32 = 11;
/// Users that nobody is.
const NOBODY: u32 = 65_534;
const NOBODY_ELSE: u32 = 65_533;

/// A simulated site and places to mount it.
struct Desk {
    sim: Sim,
    around: Environ,
}

impl Desk {
    fn new() -> Self {
        let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
        let around = Environ::new().with(sim.env());
        for place in ["mnt", "mnt2"] {
            fs::create_dir(around.path(place)).expect("made");
        }
        Self { sim, around }
    }

    fn words(&self, place: &str, options: &str) -> Vec<String> {
        let (site, place) = (format!("{}.dev", self.sim.site()), self.around.path(place));
        let options = format!("{},{options}", self.sim.options());
        vec!["mount".into(), site, place.display().to_string(), "-o".into(), options]
    }

    fn mount(&self, place: &str, options: &str) -> Ran {
        let words = self.words(place, options);
        self.around.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// Through a shell that permits everything to everybody.
    fn laxly(&self, words: &[String], input: Stdio) -> Ran {
        let mut shell = Command::new("sh");
        shell.args(["-c", "umask 000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_pantheonfs")]).args(words);
        self.around.dress(&mut shell);
        Ran(shell.stdin(input).output().expect("a shell"))
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        for place in ["mnt", "mnt2"].map(|place| self.around.path(place)).iter().filter(|place| is_mounted(place)) {
            self.around.run(&["umount", "--force", &place.to_string_lossy()]);
        }
    }
}

/// Everything below a directory with its permission bits; links are not followed.
fn below(dir: &Path) -> Vec<(PathBuf, u32)> {
    let mut found = vec![(dir.to_owned(), dir.symlink_metadata().expect("there").permissions().mode())];
    for entry in fs::read_dir(dir).expect("listed").flatten() {
        match entry.path().symlink_metadata() {
            Ok(meta) if meta.is_dir() => found.extend(below(&entry.path())),
            // Its own mode says nothing; what it leads to is looked at.
            Ok(meta) if meta.is_symlink() => {}
            Ok(meta) => found.push((entry.path(), meta.permissions().mode())),
            // It came and went.
            Err(_) => {}
        }
    }
    found
}

fn is_root() -> bool {
    needs_root("only root can be somebody else")
}

#[test]
fn state_files_are_private_under_any_umask() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    desk.laxly(&desk.words("mnt", ""), Stdio::null()).ok();
    let at = |name: &str| desk.around.path("mnt").join(name);
    fs::write(at("new.php"), "<?php\n").expect("written");
    fs::write(at(".litter.php.swp"), "stays here").expect("written");
    fs::read(at("index.php")).expect("read");
    fs::write(at(".pantheon/sync"), "now\n").expect("sent");
    // The repository is fetched by git.
    fs::read_to_string(at(".pantheon/pending")).expect("read");
    desk.laxly(&["revert".into(), at("new.php").display().to_string()], Stdio::null());
    fs::write(at("again.php"), "<?php\n").expect("written");
    let mut seen = 0;
    for root in ["state/pantheonfs", "cache/pantheonfs"] {
        for (path, mode) in below(&desk.around.path(root)) {
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
            seen += 1;
        }
    }
    let state = desk.around.state().join(format!("{}.dev", desk.sim.site()));
    for name in ["journal", "lock", "log", "spool", "kept", "litter", "environment.json"] {
        assert!(name == "litter" || state.join(name).exists(), "{name} was to be looked at");
    }
    assert!(seen > 20, "{seen}");
}

#[test]
fn tokens_are_private_under_any_umask() {
    let desk = Desk::new();
    let env = desk.sim.env();
    let token = desk.around.path("token");
    fs::write(&token, &env["TERMINUS_MACHINE_TOKEN"]).expect("written");
    let mut shell = Command::new("sh");
    shell.args(["-c", "umask 000; exec \"$0\" login", env!("CARGO_BIN_EXE_pantheonfs")]);
    desk.around.dress(&mut shell);
    let place = desk.around.path("terminus");
    shell.env("TERMINUS_CACHE_DIR", &place).env_remove("TERMINUS_MACHINE_TOKEN");
    Ran(shell.stdin(fs::File::open(&token).expect("there")).output().expect("a shell")).ok();
    let found = below(&place);
    assert!(found.len() >= 3, "{found:?}");
    found.iter().for_each(|(path, mode)| assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display()));
}

#[test]
fn an_environment_is_mounted_once() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    desk.mount("mnt", "").ok();
    desk.mount("mnt2", "").fails(MOUNT_POINT, &["is mounted already", "unmount it first"]);
    assert!(!is_mounted(&desk.around.path("mnt2")));
    desk.around.run(&["umount", &desk.around.path("mnt").to_string_lossy()]).ok();
    desk.mount("mnt2", "").ok();
}

#[test]
fn directories_that_others_prepared_are_refused() {
    if !has_fuse() || !is_root() {
        return;
    }
    let _watch = watch();
    for root in ["state", "cache"] {
        for below in ["pantheonfs", "pantheonfs/KEY"] {
            for theirs in [false, true] {
                let desk = Desk::new();
                let name = below.replace("KEY", &format!("{}.dev", desk.sim.site_id()));
                let (place, trap) = (desk.around.path(root).join(name), desk.around.path("trap"));
                fs::create_dir_all(place.parent().expect("a parent")).expect("made");
                fs::create_dir(&trap).expect("made");
                if theirs {
                    fs::create_dir(&place).expect("made");
                    chown(&place, Some(NOBODY), None).expect("given away");
                } else {
                    symlink(&trap, &place).expect("made");
                }
                let why = if theirs { "another user" } else { "symlink" };
                desk.mount("mnt", "").fails(FAILED, &[&place.to_string_lossy(), why, "move it away"]);
                assert!(!is_mounted(&desk.around.path("mnt")));
                let put: Vec<_> = fs::read_dir(&trap).expect("listed").flatten().map(|entry| entry.path()).collect();
                assert!(put.is_empty(), "{put:?}");
            }
        }
    }
}

/// Runs as somebody else, and says whether it went well.
fn as_user(uid: u32, script: &str, dir: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command.args([&format!("--reuid={uid}"), &format!("--regid={uid}"), "--clear-groups", "sh", "-c", script]);
    let ran = command.current_dir(dir).stdin(Stdio::null()).output().expect("setpriv runs");
    ran.status.success()
}

#[test]
fn other_users_cannot_give_commands() {
    if !is_root() || !has_program("setpriv") {
        return;
    }
    for (options, owner) in [("allow_other", None), ("allow_other,uid=65534,gid=65534", Some(NOBODY))] {
        let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", options) else { return };
        let parent = m.dir().parent().expect("a parent");
        fs::set_permissions(parent, fs::Permissions::from_mode(0o755)).expect("set");
        for (file, text) in [("mode", "git --discard"), ("commit", "theirs"), ("sync", "now"), ("hydrate", ".")] {
            let write = format!("echo '{text}' > .pantheon/{file}");
            assert!(!as_user(NOBODY_ELSE, &write, m.dir()), "{options}: {write}");
        }
        for change in ["rm .pantheon/mode", "mkdir .pantheon/x", "echo x > .pantheon/x", "mv .pantheon/mode x"] {
            assert!(!as_user(NOBODY_ELSE, change, m.dir()), "{options}: {change}");
        }
        assert!(as_user(NOBODY_ELSE, "cat .pantheon/status index.php", m.dir()), "{options}: reading");
        assert_eq!(m.status()["mode"], "sftp", "{options}");
        if let Some(owner) = owner {
            assert!(as_user(owner, "echo now > .pantheon/sync", m.dir()), "whose mount it is");
        }
    }
}

#[test]
fn without_allow_other_other_users_see_nothing() {
    if !is_root() || !has_program("setpriv") {
        return;
    }
    let Some(m) = Mounted::sim() else { return };
    fs::set_permissions(m.dir().parent().expect("a parent"), fs::Permissions::from_mode(0o755)).expect("set");
    assert!(!as_user(NOBODY, "ls", m.dir()) && !as_user(NOBODY, "cat .pantheon/status", m.dir()));
}

#[test]
fn setuid_and_devices_of_the_server_have_no_effect() {
    if !has_fuse() {
        return;
    }
    let _watch = watch();
    let desk = Desk::new();
    for options in ["suid", "dev", "rw,suid", "nosuid,dev"] {
        desk.mount("mnt", options).fails(USAGE, &["not possible", "nosuid,nodev"]);
    }
    // An ordinary user may give `allow_other` only where /etc/fuse.conf permits it.
    let others = if rustix::process::geteuid().is_root() { ",allow_other" } else { "" };
    desk.mount("mnt", &format!("exec,default_permissions{others}")).ok();
    let place = desk.around.path("mnt").display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts").expect("read");
    let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(&place)).expect("listed");
    let options: Vec<&str> = line.split(' ').nth(3).expect("options").split(',').collect();
    assert!(options.contains(&"nosuid") && options.contains(&"nodev"), "{line}");
}

#[test]
fn hosts_and_users_that_look_like_options_are_refused() {
    let around = Environ::new();
    fs::create_dir(around.path("mnt")).expect("made");
    let place = around.path("mnt").display().to_string();
    let witness = around.path("witness");
    let evil = format!("-oProxyCommand=touch${{IFS}}{}", witness.display());
    let cases = [
        vec!["mount".to_owned(), "--".into(), format!("sftp://{evil}/x"), place.clone()],
        vec!["mount".into(), "--".into(), format!("sftp://-lroot@{evil}/"), place.clone()],
        vec![
            "mount".into(),
            "-o".into(),
            format!("HostName={evil}"),
            "sftp://u@example.invalid/".into(),
            place.clone(),
        ],
        vec!["mount".into(), "-o".into(), "User=-oProxyCommand=x".into(), "sftp://h.invalid/".into(), place.clone()],
        vec!["mount".into(), "--".into(), "-site.dev".into(), place.clone()],
    ];
    for words in cases {
        let ran = around.run(&words.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(ran.code() != 0 && !is_mounted(&around.path("mnt")), "{words:?}");
        assert!(!witness.exists(), "{words:?} ran something");
    }
}

/// A mount says where its state is, and the mount may be somebody else's.
#[test]
fn backups_are_shown_to_their_owner_only() {
    if !is_root() {
        return;
    }
    let Some(m) = Mounted::sim() else { return };
    let (place, state) =
        (m.dir().to_string_lossy().into_owned(), m.environ().state().join(format!("{}.dev", m.sim_ref().site_id())));
    let list = || m.environ().run(&["rescue", "list", "--at", &place]);
    list().ok();
    std::os::unix::fs::chown(&state, Some(NOBODY), None).expect("given away");
    list().fails(1, &[&state.to_string_lossy(), "it belongs to another user"]);
    std::os::unix::fs::chown(&state, Some(0), None).expect("taken back");
}
