//! Tools that exist to break filesystems, and a disk that is too small.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;
use crate::common::{eventually, has_fuse, has_program, skip};

/// Operations of a run of fsx; `PANTHEONFS_FSX_OPS` asks for more.
const FSX_OPS: &str = "20000";

/// Reads, writes, truncations, mappings of one file at random, each read compared with what must be there; what is on the
/// server in the end is compared, too.
fn fsx(m: &Mounted, seed: &str, while_running: impl Fn()) {
    let file = m.path("fsx.bin");
    let ops = std::env::var("PANTHEONFS_FSX_OPS").unwrap_or_else(|_| FSX_OPS.into());
    let mut child = Command::new("fsx")
        .args(["-N", &ops, "-S", seed])
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("fsx runs");
    while child.try_wait().expect("it can be asked").is_none() {
        while_running();
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = child.wait_with_output().expect("it ended");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    let end: Vec<&str> = said.lines().rev().take(20).collect();
    assert!(output.status.success(), "seed {seed}: {end:?}");
    eventually("all is sent", || m.barrier().is_ok());
    let (there, here) = (fs::read(m.there("fsx.bin")).expect("there"), fs::read(&file).expect("here"));
    assert!(there == here, "seed {seed}: {} bytes there, {} here", there.len(), here.len());
    assert_eq!(m.status()["conflicts"], serde_json::json!([]));
}

#[test]
fn fsx_finds_nothing() {
    if !has_program("fsx") {
        return skip("fsx is not installed (scripts/setup installs it)");
    }
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    fsx(&m, "1", || {});
}

#[test]
fn fsx_finds_nothing_while_links_break() {
    if !has_program("fsx") {
        return skip("fsx is not installed (scripts/setup installs it)");
    }
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    fsx(&m, "2", || {
        m.control("cut", "{}");
    });
}

/// A filesystem of a few megabytes where the state is kept; taken away in the end.
struct SmallDisk<'a>(&'a Path);

impl SmallDisk<'_> {
    fn mount(at: &Path) -> Option<SmallDisk<'_>> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(at).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            skip("a small disk can only be made by root");
            return None;
        }
        Some(SmallDisk(at))
    }
}

impl Drop for SmallDisk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(self.0).status());
    }
}

/// The local disk is full: the write says so, and nothing that was accepted is lost.
#[test]
fn a_full_local_disk_fails_the_write() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    m.umount().ok();
    let state = m.environ().path("state");
    let Some(_disk) = SmallDisk::mount(&state) else { return };
    crate::crash::mount_again(&m);
    fs::write(m.path("index.php"), "accepted").expect("there is room");
    m.control("stall", r#"{"stalled": true}"#);
    fs::write(m.path("waits.php"), "accepted, too").expect("there is room");
    let mut large = fs::File::create(m.path("large.bin")).expect("created");
    let piece = vec![7; 1 << 20];
    let errors: Vec<_> = (0..40).map_while(|_| Some(large.write_all(&piece).err())).flatten().collect();
    assert!(!errors.is_empty() && errors.iter().all(|e| e.raw_os_error() == Some(libc::ENOSPC)), "{errors:?}");
    drop(large);
    fs::remove_file(m.path("large.bin")).expect("removed");
    // The kernel tells of the last close in its own time: the room comes back with it.
    crate::common::eventually("room", || fs::write(m.path("small.php"), "there is room again").is_ok());
    m.control("stall", r#"{"stalled": false}"#);
    for (name, content) in
        [("index.php", "accepted"), ("waits.php", "accepted, too"), ("small.php", "there is room again")]
    {
        crate::common::eventually(name, || fs::read(m.there(name)).is_ok_and(|bytes| bytes == content.as_bytes()));
    }
    assert!(!m.on_server("large.bin").exists());
    m.umount().ok();
}

/// `scripts/jobs`: unpacking, `rsync --delete`, git, `sed -i` over all, moves of what is being sent, on servers with each
/// limit. What is in the mount, on the server and in a local directory is compared. The times are for a quiet machine.
#[test]
fn big_jobs_in_small_end_as_in_a_local_directory() {
    if !has_fuse() || !has_program("python3") || !has_program("zip") || !has_program("rsync") {
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/jobs");
    let mut jobs = Command::new(script);
    jobs.args(["--files", "60", "--limit", "60"]).env("PANTHEONFS", env!("CARGO_BIN_EXE_pantheonfs"));
    let ran = jobs.output().expect("it runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success(), "{said}{}", String::from_utf8_lossy(&ran.stderr));
    assert_eq!(said.matches("objects compared").count(), 6, "{said}");
}
