//! `pantheonfs watch` in a real terminal: what it shows, its keys, and mounts that do not answer.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::common::mounted::Mounted;
use crate::common::program::Environ;
use crate::common::{eventually, has_program};

const USAGE: i32 = 2;
const MOUNT_POINT: i32 = 11;

/// The program in a terminal of its own, which is gone when this is dropped.
struct Screen<'a> {
    around: &'a Environ,
    socket: String,
}

impl<'a> Screen<'a> {
    /// A terminal with nothing in it.
    fn none(around: &'a Environ) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("tmux-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        Self { around, socket: around.path(&name).to_string_lossy().into_owned() }
    }

    /// `before`: variables for the program, as a shell writes them.
    fn open(m: &'a Mounted, (width, height): (u16, u16), before: &str, words: &str) -> Self {
        let around = m.environ();
        let screen = Self::none(around);
        // The names of the git user are needed for a commit.
        let git = "GIT_CONFIG_COUNT=2 GIT_CONFIG_KEY_0=user.name GIT_CONFIG_VALUE_0=Dev GIT_CONFIG_KEY_1=user.email \
                   GIT_CONFIG_VALUE_1=dev@sim.example";
        let program = env!("CARGO_BIN_EXE_pantheonfs");
        let line = format!("{git} {before} '{program}' watch {words}; echo \"ended with $?\"; exec sleep 200");
        let size = [width.to_string(), height.to_string()];
        screen.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", &size[0], "-y", &size[1], &line]);
        screen
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        self.around.dress(&mut command);
        command.env("TERM", "xterm-256color").env("LC_ALL", "C.UTF-8").arg("-S").arg(&self.socket).args(args);
        let output = command.output().expect("tmux runs");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    #[track_caller]
    fn shows(&self, parts: &[&str]) {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let text = self.text();
            let missing: Vec<_> = parts.iter().filter(|part| !text.contains(**part)).collect();
            if missing.is_empty() {
                return;
            }
            assert!(Instant::now() < until, "{missing:?} did not appear:\n{text}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn key(&self, key: &str) {
        self.tmux(&["send-keys", key]);
    }

    #[track_caller]
    fn quits(&self) {
        let begun = Instant::now();
        self.key("q");
        self.shows(&["ended with 0"]);
        assert!(begun.elapsed() < Duration::from_secs(5), "it ends at once");
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        let mut command = Command::new("tmux");
        command.arg("-S").arg(&self.socket).arg("kill-server").stderr(Stdio::null());
        drop(command.status());
    }
}

fn mounted() -> Option<Mounted> {
    if has_program("tmux") { Mounted::sim() } else { None }
}

/// The driver's process, from its record.
fn pid(m: &Mounted) -> String {
    let record = m.environ().state().join(format!("{}.dev/mount.json", m.sim_ref().site()));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).expect("there")).expect("JSON");
    record["pid"].to_string()
}

fn signal(pid: &str, name: &str) {
    assert!(Command::new("kill").args([name, pid]).status().expect("kill runs").success());
}

/// Known here as `base`, changed by another writer to `theirs`, then saved here as `ours`.
fn conflict(m: &Mounted, name: &str) {
    fs::write(m.path(name), "base\n").expect("written");
    m.barrier().expect("sent");
    fs::read(m.path(name)).expect("known");
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path(name), "ours\n").expect("saved");
    fs::write(m.there(name), "theirs\n").expect("changed there");
    m.control("stall", r#"{"stalled": false}"#);
    eventually("it is a conflict", || m.status()["conflicts"] == serde_json::json!([format!("code/{name}")]));
}

#[test]
fn the_screen_follows_a_mount_at_every_size() {
    let Some(m) = mounted() else { return };
    let screen = Screen::open(&m, (80, 24), "", "");
    screen.shows(&["sim-wordpress.dev", "sftp for ", "code writable", "up for ", "nothing waits", "LOG 1"]);
    fs::write(m.path("index.php"), "<?php\n\tuse A\\B; // changed\n").expect("written");
    screen.shows(&["UNCOMMITTED 1", "M index.php +1", "+    use A\\B; // changed", "1 copies of uncommitted work"]);
    screen.tmux(&["resize-window", "-x", "200", "-y", "60"]);
    screen.shows(&["libssh2 to 127.0.0.1", "M index.php +1", "+    use A\\B; // changed"]);
    let lines = screen.text();
    assert!(lines.lines().nth(59).is_some_and(|last| last.contains("quit")), "the whole screen is used:\n{lines}");
    screen.tmux(&["resize-window", "-x", "40", "-y", "12"]);
    screen.shows(&["UNCOMMITTED 1"]);
    screen.tmux(&["resize-window", "-x", "20", "-y", "5"]);
    screen.shows(&["too"]);
    screen.quits();
}

#[test]
fn without_a_link_it_says_so_and_shows_what_waits() {
    let Some(m) = mounted() else { return };
    let screen = Screen::open(&m, (120, 30), "", "");
    screen.shows(&["up for "]);
    fs::write(m.path("before.php"), "x").expect("the directory is known");
    screen.shows(&["A before.php", "nothing waits"]);
    m.control("stall", r#"{"stalled": true}"#);
    m.control("cut", "{}");
    fs::write(m.path("waits.php"), "x".repeat(2000)).expect("saved");
    screen.shows(&["DOWN for ", "1 change(s), 1.95 KiB wait", "0 %", "/s"]);
    m.control("stall", r#"{"stalled": false}"#);
    screen.shows(&["up for ", "nothing waits", "A waits.php"]);
    screen.quits();
}

#[test]
fn keys_commit_revert_and_switch() {
    let Some(m) = mounted() else { return };
    let editor = m.environ().path("editor");
    fs::write(
        &editor,
        "#!/bin/sh\ncat \"$1\" > \"$1.seen\"\necho 'By keys' > \"$1\"\ncp \"$1.seen\" \"$(dirname \"$0\")/seen\"\n",
    )
    .expect("written");
    fs::set_permissions(&editor, fs::Permissions::from_mode(0o755)).expect("chmod");
    let screen = Screen::open(&m, (100, 30), &format!("EDITOR={}", editor.display()), "");
    screen.shows(&["LOG 1"]);
    screen.key("c");
    screen.shows(&["nothing is uncommitted"]);
    fs::write(m.path("one.php"), "<?php // one\n").expect("written");
    screen.shows(&["A one.php +1 -0"]);
    screen.key("v");
    screen.shows(&["Replace one.php"]);
    screen.key("n");
    screen.key("v");
    screen.shows(&["y  revert"]);
    screen.key("y");
    screen.shows(&["revert: ", "nothing waits"]);
    eventually("the new file is taken back", || !m.path("one.php").exists());
    fs::write(m.path("two.php"), "<?php // two\n").expect("written");
    screen.shows(&["A two.php +1 -0"]);
    screen.key("c");
    screen.shows(&["commit: commit: ", "By keys"]);
    let seen = fs::read_to_string(m.environ().path("seen")).expect("the editor was run");
    assert!(seen.contains("# A two.php"), "{seen}");
    assert_eq!(m.status()["committed"]["message"], "By keys");
    eventually("nothing is uncommitted any more", || !screen.text().contains("UNCOMMITTED"));
    screen.key("m");
    screen.shows(&["to Git mode?", "y  switch"]);
    screen.key("y");
    screen.shows(&["git for ", "code read-only", "switch: git"]);
    screen.key("m");
    screen.shows(&["to SFTP mode?"]);
    screen.key("y");
    screen.shows(&["sftp for ", "code writable"]);
    screen.key("s");
    screen.shows(&["sync: nothing to send"]);
    screen.key("h");
    screen.shows(&["hydrate: "]);
    screen.quits();
}

#[test]
fn a_switch_that_deletes_needs_another_key() {
    let Some(m) = mounted() else { return };
    fs::write(m.path("index.php"), "<?php // uncommitted\n").expect("written");
    let screen = Screen::open(&m, (100, 30), "", "");
    screen.shows(&["M index.php +"]);
    for other in ["y", "Enter", "d"] {
        screen.key("m");
        screen.shows(&["DELETES 1 uncommitted change(s)"]);
        screen.key(other);
    }
    screen.key("m");
    screen.shows(&["DELETES 1 uncommitted change(s)", "sftp for"]);
    screen.key("D");
    screen.shows(&["switch: git", "git for ", "1 not on the server any more"]);
    screen.quits();
}

#[test]
fn a_conflict_is_resolved_by_keys() {
    let Some(m) = mounted() else { return };
    conflict(&m, "both.php");
    let screen = Screen::open(&m, (100, 30), "", "");
    screen.shows(&["CONFLICTS 1", "! code/both.php", "Another writer changed this file"]);
    screen.key("o");
    screen.shows(&["o  ours", "t  theirs", "m  both, merged"]);
    screen.key("m");
    screen.shows(&["resolve FAILED: ", "both sides changed the same lines"]);
    screen.key("o");
    screen.shows(&["o  ours"]);
    screen.key("o");
    screen.shows(&["resolve: ", "nothing waits"]);
    eventually("ours is on the server", || fs::read(m.there("both.php")).is_ok_and(|text| text == b"ours\n"));
    eventually("it is no conflict any more", || !screen.text().contains("CONFLICTS"));
    screen.quits();
}

#[test]
fn the_merge_tool_uses_the_terminal_and_gives_it_back() {
    let Some(m) = mounted() else { return };
    for (name, value) in [
        ("merge.tool", "asking"),
        ("mergetool.asking.cmd", r#"echo TOOL; read line </dev/tty; cat "$LOCAL" "$REMOTE" > "$MERGED""#),
        ("mergetool.asking.trustExitCode", "true"),
    ] {
        let mut git = Command::new("git");
        m.environ().dress(&mut git);
        assert!(git.args(["config", "--global", name, value]).status().expect("git runs").success());
    }
    conflict(&m, "both.php");
    let screen = Screen::open(&m, (100, 30), "", "");
    screen.shows(&["CONFLICTS 1"]);
    screen.key("o");
    screen.shows(&["e  both"]);
    screen.key("e");
    screen.shows(&["TOOL"]);
    screen.key("Enter");
    screen.shows(&["resolve: done", "code writable"]);
    eventually("both are on the server", || fs::read(m.there("both.php")).is_ok_and(|text| text == b"ours\ntheirs\n"));
    screen.quits();
}

#[test]
fn a_mount_that_does_not_answer_does_not_stop_the_screen() {
    let Some(m) = mounted() else { return };
    let screen = Screen::open(&m, (100, 30), "", "");
    screen.shows(&["code writable"]);
    let driver = pid(&m);
    signal(&driver, "-STOP");
    screen.shows(&["does not answer since ", "umount --force"]);
    screen.key("s");
    screen.shows(&["the mount does not answer\n"]);
    screen.key("?");
    screen.shows(&["this help"]);
    screen.key("x");
    screen.quits();
    let second = Screen::open(&m, (100, 30), "", &m.dir().join("wp-content").to_string_lossy());
    second.shows(&["does not answer since "]);
    signal(&driver, "-CONT");
    second.shows(&["code writable"]);
    signal(&driver, "-KILL");
    second.shows(&["its driver has ended"]);
    second.quits();
}

#[test]
fn all_mounts_are_shown_and_come_and_go() {
    let Some(m) = mounted() else { return };
    let screen = Screen::open(&m, (110, 30), "", "");
    screen.shows(&["sim-wordpress.dev", "code writable"]);
    let live = m.environ().path("live");
    fs::create_dir(&live).expect("made");
    let options = m.sim_ref().options();
    let source = format!("{}.live", m.sim_ref().site());
    m.environ().run(&["mount", &source, &live.to_string_lossy(), "-o", &options]).ok();
    screen.shows(&["1 sim-wordpress.live", "2 sim-wordpress.dev", "code read-only, link up"]);
    screen.key("1");
    screen.shows(&["uploads writable", "code read-only"]);
    screen.key("Tab");
    screen.shows(&["code writable"]);
    let one = Screen::none(m.environ());
    let line = format!("'{}' watch {source}", env!("CARGO_BIN_EXE_pantheonfs"));
    one.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "100", "-y", "30", &line]);
    one.shows(&["sim-wordpress.live", "code read-only"]);
    assert!(!one.text().contains("sim-wordpress.dev"), "only the mount that was named is shown");
    m.environ().run(&["umount", "--force", &live.to_string_lossy()]).ok();
    one.shows(&["nothing is mounted"]);
    eventually("the other mount is alone", || !screen.text().contains("sim-wordpress.live"));
    screen.quits();
}

#[test]
fn an_unmount_waits_for_a_program_that_looks_for_a_moment() {
    let Some(m) = mounted() else { return };
    let screen = Screen::open(&m, (100, 30), "", "");
    screen.shows(&["code writable"]);
    // The screen has the difference to it compared when it is sent.
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    let held = fs::File::open(m.path("index.php")).expect("opened");
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(700));
        drop(held);
    });
    m.umount().ok();
    ends.join().expect("ended");
    screen.shows(&["nothing is mounted"]);
    screen.quits();
}

#[test]
fn what_the_server_says_does_not_steer_the_terminal() {
    let Some(m) = mounted() else { return };
    let name = "evil\u{1b}[31m\u{7}.php";
    fs::write(m.there(name), "a\u{1b}]0;title\u{7}\u{9b}31m\n").expect("written there");
    m.control(
        "commit",
        &serde_json::json!({ "environment": "dev", "message": "Red \u{1b}[2J\u{202e}text" }).to_string(),
    );
    fs::write(m.there(name), "b\u{1b}[2J\n").expect("written there");
    let screen = Screen::open(&m, (120, 40), "", "");
    screen.shows(&["M evil\\033[31m\\007.php", "+b\\033[2J", "Red \\033[2J\\342\\200\\256text"]);
    screen.quits();
}

#[test]
fn no_color_has_no_colours() {
    let Some(m) = mounted() else { return };
    conflict(&m, "both.php");
    let colours = |before: &str| {
        let screen = Screen::open(&m, (100, 30), before, "");
        screen.shows(&["CONFLICTS 1", "up for "]);
        let text = screen.tmux(&["capture-pane", "-p", "-e"]);
        screen.quits();
        let is_colour = |code: &str| matches!(code.parse(), Ok(30..=38 | 40..=48 | 90..=97 | 100..=107));
        let codes = text.split("\u{1b}[").skip(1).filter_map(|part| part.split_once('m')).map(|(codes, _)| codes);
        codes.flat_map(|codes| codes.split(';')).filter(|code| is_colour(code)).count()
    };
    assert!(colours("") > 0);
    assert_eq!(colours("NO_COLOR=1"), 0);
}

#[test]
fn a_terminal_that_is_closed_ends_it() {
    let Some(m) = mounted() else { return };
    let screen = Screen::open(&m, (80, 24), "", "");
    screen.shows(&["sim-wordpress"]);
    let shell = screen.tmux(&["display-message", "-p", "#{pane_pid}"]);
    let found =
        Command::new("pgrep").args(["-f", "-P", shell.trim(), "pantheonfs.* watch"]).output().expect("pgrep runs");
    let program = String::from_utf8(found.stdout).expect("a number").trim().to_owned();
    assert!(Path::new("/proc").join(&program).exists() && !program.is_empty(), "it runs");
    screen.tmux(&["kill-server"]);
    eventually("it has ended", || {
        let state = fs::read_to_string(format!("/proc/{program}/stat")).unwrap_or_default();
        state.is_empty() || state.contains(") Z ")
    });
}

#[test]
fn without_a_terminal_or_a_mount_it_says_so() {
    let around = Environ::new();
    around.run(&["watch"]).fails(USAGE, &["needs a terminal", "status --json"]);
    let Some(m) = mounted() else { return };
    let screen = Screen::open(&m, (160, 24), "", "/usr");
    screen.shows(&["/usr: not a mount of yours", &format!("ended with {MOUNT_POINT}")]);
}
