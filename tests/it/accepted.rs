//! Accepted is accepted, refused is refused: what was written is saved although `close` could not wait long enough, and a
//! call that was interrupted, or ended in an error, has no effect afterwards.

use std::fs::{self, File};
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use pantheonfs::fs::{OpenMode, SetAttr};
use pantheonfs::sim::SimConfig;
use rustix::process::{Pid, Signal, kill_process};

use crate::common::eventually;
use crate::common::inner::{Inner, wait};
use crate::common::meddler::Fate;
use crate::common::mounted::Mounted;

const NAMES: [&str; 6] = ["cut", "truncated", "appended", "moved", "removed", "chmodded"];

/// A site with files that are known and at rest.
fn held(options: &str) -> Option<Mounted> {
    let m = Mounted::sim_with(&SimConfig::default(), "dev", options)?;
    for name in NAMES {
        fs::write(m.path(name), format!("old {name}")).expect("saved");
    }
    fs::create_dir(m.path("dir")).expect("made");
    m.barrier().expect("sent");
    // The last change is forgotten: the next one asks for the mode, and for jobs.
    std::thread::sleep(Duration::from_millis(2100));
    Some(m)
}

fn begin_job(m: &Mounted, ms: u32) {
    m.control("job", &format!(r#"{{"environment": "dev", "kind": "sync_code", "ms": {ms}}}"#));
    eventually("the job is seen", || is_held(m));
}

fn is_held(m: &Mounted) -> bool {
    fs::read_to_string(m.path(".pantheon/activity")).is_ok_and(|text| text.contains("sync_code"))
}

fn shell(m: &Mounted, text: &str) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", text]).current_dir(m.dir());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a shell")
}

#[test]
fn an_interrupted_call_has_no_effect() {
    let Some(m) = held("timeout=20") else { return };
    begin_job(&m, 7000);
    let calls = [
        "echo new > cut",
        "exec truncate -s 2 truncated",
        "echo more >> appended",
        "exec mv moved moved-away",
        "exec rm removed",
        "exec chmod 600 chmodded",
        "echo new > created",
        "exec mkdir made",
        "exec rmdir dir",
        "exec ln -s cut link",
    ];
    let mut waiting: Vec<Child> = calls.iter().map(|text| shell(&m, text)).collect();
    std::thread::sleep(Duration::from_millis(1000));
    for (child, text) in waiting.iter_mut().zip(calls) {
        assert!(child.try_wait().expect("looked at").is_none(), "{text}: it waits for the job");
    }
    let sent = Instant::now();
    for child in &mut waiting {
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("a number")).expect("not zero");
        kill_process(pid, Signal::INT).expect("sent");
    }
    for child in &mut waiting {
        child.wait().expect("ended");
    }
    assert!(sent.elapsed() < Duration::from_secs(3), "{:?}", sent.elapsed());
    eventually("the job is over", || !is_held(&m));
    std::thread::sleep(Duration::from_secs(1));
    m.barrier().expect("nothing is left");
    for name in NAMES {
        assert_eq!(fs::read_to_string(m.there(name)).expect("there"), format!("old {name}"));
        assert_eq!(fs::read_to_string(m.path(name)).expect("shown"), format!("old {name}"));
    }
    for name in ["moved-away", "created", "made", "link"] {
        assert!(m.there(name).symlink_metadata().is_err() && m.path(name).symlink_metadata().is_err(), "{name}");
    }
    assert!(m.there("dir").is_dir());
}

#[test]
fn a_close_during_a_job_is_recorded_and_sent_after_it() {
    let Some(m) = held("timeout=2") else { return };
    let mut open = File::create(m.path("cut")).expect("opened before the job");
    open.write_all(b"an hour of work").expect("written");
    begin_job(&m, 14_000);
    drop(open);
    assert!(is_held(&m), "the job goes on");
    let error = fs::write(m.path("truncated"), "refused").expect_err("a call that begins now is refused");
    assert_eq!(error.raw_os_error(), Some(libc::EBUSY));
    let status = m.status();
    assert!(status["dirty"].to_string().contains("cut") && status["waiting"] == 1, "{status}");
    eventually("the job is over", || !is_held(&m));
    m.barrier().expect("sent");
    assert_eq!(fs::read(m.there("cut")).expect("there"), b"an hour of work");
    assert_eq!(fs::read(m.there("truncated")).expect("there"), b"old truncated");
}

const HOUR: Duration = Duration::from_secs(3600);
/// Types of requests, and codes of answers.
const OPEN: u8 = 3;
const READLINK: u8 = 19;
const SYMLINK: u8 = 20;
const FAILURE: u32 = 4;
const EXISTS: u32 = 11;

/// A write that needs the content from the server, and does not get it, leaves alone what is waiting to be sent.
#[test]
fn a_write_that_fails_does_not_uncover_the_servers_permissions() {
    let Some(inner) = Inner::with(&[], HOUR) else { return };
    fs::write(inner.home.join("a"), "content").expect("written");
    let mode = OpenMode { read: true, write: true, truncate: false };
    let handle = inner.open("a", mode, false).expect("opened");
    inner.setattr("a", SetAttr { perm: Some(0o711), ..SetAttr::default() }).expect("recorded");
    inner.hold(true);
    inner.faults.plan.on_request(|_, kind| if kind == OPEN { Fate::Refuse(FAILURE, "no") } else { Fate::Pass });
    inner.write_at(handle, 1, b"x").expect_err("it cannot be read");
    inner.faults.plan.on_request(|_, _| Fate::Pass);
    inner.look_anew();
    let shown = inner.fs.getattr(inner.find("a").expect("there"), wait()).expect("shown");
    assert_eq!(shown.attr.perm & 0o777, 0o711);
    inner.hold(false);
    inner.close(handle).expect("nothing was written");
    inner.barrier();
}

/// The link was made, and its answer lost; then the link that shows it cannot be read, because the connection is lost again.
#[test]
fn a_symlink_that_cannot_be_looked_at_is_no_conflict() {
    let Some(inner) = Inner::with(&[], HOUR) else { return };
    inner.names("").expect("listed");
    let plan = inner.faults.plan.clone();
    let lost = std::sync::atomic::AtomicU32::new(0);
    inner.faults.plan.on_request(move |_, kind| {
        if kind == READLINK && lost.fetch_add(1, std::sync::atomic::Ordering::Relaxed) < 3 {
            plan.lose_answer(0);
        }
        if kind == SYMLINK { Fate::Refuse(EXISTS, "it exists") } else { Fate::Pass }
    });
    inner.symlink("link", "a").expect("recorded");
    std::os::unix::fs::symlink("a", inner.home.join("link")).expect("made by the first attempt");
    inner.barrier();
    assert_eq!(inner.names("").expect("listed"), ["link"]);
    assert!(inner.fs.status().last_error.is_none(), "{:?}", inner.fs.status().last_error);
}
