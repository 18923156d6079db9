//! Programs that wait for the link: they can be ended, they end by themselves, and signals that mean nothing to them do no
//! harm. Taking the mount away always works.

use std::fs;
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pantheonfs::sim::SimConfig;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::common::mounted::Mounted;
use crate::common::mute::Mute;
use crate::common::program::{Environ, is_mounted};
use crate::common::{eventually, has_fuse, has_program};

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a number")).expect("not zero")
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Every fatal signal ends the program at once, wherever in the mount it waits.
fn ends_when_told(name: &str, command: &mut Command) {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut child = command.spawn().expect("starts");
        std::thread::sleep(Duration::from_millis(400));
        assert!(child.try_wait().expect("waits").is_none(), "{name} waits for the link");
        let sent = Instant::now();
        kill_process(pid(&child), signal).expect("sent");
        child.wait().expect("ends");
        assert!(sent.elapsed() < Duration::from_secs(1), "{name}, {signal:?}: {:?}", sent.elapsed());
    }
}

#[test]
fn programs_waiting_for_a_stalled_link_can_be_killed() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=60") else { return };
    let stall = |stalled: bool| m.control("stall", &format!(r#"{{"stalled": {stalled}}}"#));
    stall(true);
    ends_when_told("ls", quiet("ls").arg(m.path("wp-includes/js")));
    ends_when_told("stat", quiet("stat").arg(m.path("wp-includes/version.php")));
    // An alarm that nobody has made arrangements for ends a program, too.
    if has_program("perl") {
        let mut perl = quiet("perl");
        perl.args(["-e", "alarm 1; opendir my $d, $ARGV[0]; readdir $d; sleep 60"]).arg(m.path("wp-content"));
        let (began, status) = (Instant::now(), perl.status().expect("perl runs"));
        assert_eq!(status.signal(), Some(libc::SIGALRM));
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    }
    stall(false);
    // At once: a file that is seen while it grows is another version a moment later, and that is ESTALE.
    fs::write(m.there("big.new"), vec![7; 3_000_000]).expect("written");
    fs::rename(m.there("big.new"), m.there("big.bin")).expect("moved");
    eventually("its name is known", || fs::metadata(m.path("big.bin")).is_ok());
    stall(true);
    ends_when_told("cat", quiet("cat").arg(m.path("big.bin")));
    stall(false);
}

#[test]
fn unknown_content_on_a_stalled_link_is_etimedout() {
    let ends = |what: &str, error: std::io::Error, began: Instant| {
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT), "{what}: {error}");
        assert!(began.elapsed() < Duration::from_secs(8), "{what}: {:?}", began.elapsed());
    };
    type Look = fn(&Path) -> std::io::Error;
    let looks: [(&str, Look); 3] = [
        ("ls", |root| fs::read_dir(root.join("wp-includes/js")).expect_err("not listed before")),
        ("stat", |root| fs::metadata(root.join("wp-includes/version.php")).expect_err("not looked up before")),
        ("cat", |root| fs::read(root.join("big.bin")).expect_err("not read before")),
    ];
    for (what, look) in looks {
        let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=2") else { return };
        if what == "cat" {
            // At once: a file that is seen while it grows is another version a moment later, and that is ESTALE.
            fs::write(m.there("big.new"), vec![7; 3_000_000]).expect("written");
            fs::rename(m.there("big.new"), m.there("big.bin")).expect("moved");
            eventually("its name is known", || fs::metadata(m.path("big.bin")).is_ok());
        }
        m.control("stall", r#"{"stalled": true}"#);
        let began = Instant::now();
        ends(what, look(m.dir()), began);
        // By now it is known that the link is gone: nobody waits as long for it again.
        let began = Instant::now();
        ends(what, look(m.dir()), began);
        assert!(began.elapsed() < Duration::from_secs(3), "{what}: {:?}", began.elapsed());
        m.control("stall", r#"{"stalled": false}"#);
        eventually("it goes on", || fs::read_dir(m.path("wp-includes/js")).is_ok());
    }
}

/// What Go's runtime does to a program (SIGURG, handled, restarting), and what timers do (SIGALRM), a thousand times a
/// second. As a library, because handlers do not survive exec; in git itself only, because a signal that arrives in the
/// middle of an exec finds no handler and kills, on any filesystem.
const RAIN: &str = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>
static pthread_t target;
static void nothing(int signal) { (void)signal; }
static void *rain(void *unused) {
    for (;;) { pthread_kill(target, SIGURG); usleep(500); pthread_kill(target, SIGALRM); usleep(500); }
    return unused;
}
__attribute__((constructor)) static void start(void) {
    if (strncmp(program_invocation_short_name, "git", 3)) return;
    struct sigaction action; memset(&action, 0, sizeof action);
    action.sa_handler = nothing; action.sa_flags = SA_RESTART;
    sigaction(SIGURG, &action, 0); sigaction(SIGALRM, &action, 0);
    target = pthread_self();
    pthread_t thread; pthread_create(&thread, 0, rain, 0);
}
"#;

fn git(dir: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(["-c", "user.name=t", "-c", "user.email=t@t", "-c", "safe.directory=*"])
        .args(args)
        .output()
        .expect("git runs");
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn git_clones_into_the_mount_while_signals_arrive() {
    if !has_program("git") || !has_program("cc") {
        return;
    }
    let config = SimConfig { rtt: Duration::from_millis(3), ..SimConfig::default() };
    let Some(m) = Mounted::sim_with(&config, "dev", "fresh=1") else { return };
    let (repo, library) = (m.environ().path("repo"), m.environ().path("rain.so"));
    let source = m.environ().path("rain.c");
    fs::write(&source, RAIN).expect("written");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-pthread", "-o"]).args([&library, &source]).status();
    assert!(built.expect("cc runs").success());
    fs::create_dir(&repo).expect("made");
    git(&repo, &["init", "-q", "-b", "main"]);
    for n in 0..120 {
        fs::create_dir_all(repo.join(format!("dir{}", n % 12))).expect("made");
        fs::write(repo.join(format!("dir{}/file{n}.php", n % 12)), format!("<?php // {n}\n").repeat(50))
            .expect("written");
    }
    git(&repo, &["add", "."]);
    git(&repo, &["commit", "-qm", "All"]);
    let target: PathBuf = m.path("wp-content/clone");
    let mut clone = quiet("git");
    clone.args(["clone", "-q", "--no-local"]).arg(&repo).arg(&target).env("LD_PRELOAD", &library);
    let mut clone = clone.process_group(0).stderr(Stdio::piped()).spawn().expect("git starts");
    let group = pid(&clone);
    // And from outside, to whoever is there: nobody has to handle this one.
    let (mut drops, began) = (0_u64, Instant::now());
    let status = loop {
        if let Some(status) = clone.try_wait().expect("git can be waited for") {
            break status;
        }
        drops += u64::from(kill_process_group(group, Signal::URG).is_ok());
        std::thread::sleep(Duration::from_micros(500));
    };
    let mut said = String::new();
    if let Some(mut errors) = clone.stderr.take() {
        std::io::Read::read_to_string(&mut errors, &mut said).expect("text");
    }
    assert!(status.success(), "after {:?} and {drops} signals: {status}: {said}", began.elapsed());
    assert!(drops > 20, "{drops} signals");
    assert_eq!(git(&target, &["status", "--porcelain"]), "");
    git(&target, &["fsck", "--strict"]);
    m.barrier().expect("sent");
    let differs = quiet("diff").args(["-r", "-x", ".git"]).arg(&repo).arg(m.there("wp-content/clone")).status();
    assert!(differs.expect("diff runs").success(), "the server has what was cloned");
}

#[test]
fn a_mount_whose_driver_hangs_on_a_request_can_be_unmounted() {
    if !has_fuse() {
        return;
    }
    let around = Environ::new();
    for args in [&["umount"][..], &["umount", "--force"]] {
        let dir = tempfile::tempdir().expect("made");
        let session = Mute::mount(dir.path());
        let place = dir.path().to_string_lossy().into_owned();
        let began = Instant::now();
        let ran = around.run(&[args, &[&place]].concat()).ok();
        assert!(began.elapsed() < Duration::from_secs(5), "{args:?}: {:?}", began.elapsed());
        assert!(!is_mounted(dir.path()));
        assert!(ran.err().contains("the mount does not answer"), "{}", ran.err());
        drop(session);
    }
}

#[test]
fn a_mount_can_always_be_unmounted() {
    for (force, stopped) in [(false, false), (false, true), (true, false), (true, true)] {
        let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=3") else { return };
        fs::read(m.path("index.php")).expect("known");
        m.control("stall", r#"{"stalled": true}"#);
        let mut file = fs::File::options().write(true).truncate(true).open(m.path("index.php")).expect("opened");
        file.write_all(b"not sent").expect("written");
        drop(file);
        let driver = m.driver();
        if stopped {
            kill_process(driver, Signal::STOP).expect("sent");
        }
        let began = Instant::now();
        let place = m.dir().to_string_lossy().into_owned();
        let args: Vec<&str> = ["umount", "--force", &place].into_iter().filter(|a| force || *a != "--force").collect();
        let ran = m.environ().run(&args).ok();
        let took = began.elapsed();
        assert!(!is_mounted(m.dir()));
        // Without force it waits as long as for anything else that is asked of the server.
        let limit = if force || stopped { 5 } else { 12 };
        assert!(took < Duration::from_secs(limit), "force {force}, stopped {stopped}: {took:?}");
        let word =
            if stopped { "the mount does not answer" } else { "1 change(s) are not on the server yet (index.php)" };
        assert!(ran.err().contains(word), "{}", ran.err());
        if stopped {
            kill_process(driver, Signal::CONT).expect("sent");
        }
        m.control("stall", r#"{"stalled": false}"#);
        let lock = m.environ().state().join(format!("{}.dev/lock", m.sim_ref().site()));
        eventually("the process has ended", || {
            let lock = fs::File::open(&lock).expect("there");
            rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_ok()
        });
        m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
        assert_eq!(fs::read(m.on_server("index.php")).expect("there"), b"not sent");
    }
}
