//! With `-v -v` the log has every request of the kernel and its answer.

use std::fs;
use std::os::unix::fs::MetadataExt;

use crate::common::mounted::Mounted;

/// The lines about requests, in order: `request NUMBER: OPERATION of inode INODE by pid PID: ANSWER, after TIME`.
fn requests(m: &Mounted) -> Vec<String> {
    let log = m.environ().state().join(format!("{}.dev/log", m.sim_ref().site()));
    let text = fs::read_to_string(log).expect("a log");
    text.lines().filter_map(|line| line.split_once("request ")).map(|(_, request)| request.to_owned()).collect()
}

#[test]
fn with_v_v_requests_and_answers_are_logged() {
    let Some(m) = Mounted::sim() else { return };
    fs::write(m.path("traced.txt"), "0123456789").expect("written");
    assert_eq!(requests(&m), [""; 0], "it was not asked for");
    m.umount().ok();

    let (source, dir) = (format!("{}.dev", m.sim_ref().site()), m.dir().to_string_lossy().into_owned());
    m.environ().run(&["mount", &source, &dir, "-o", &m.sim_ref().options(), "-v", "-v"]).ok();
    let inode = fs::metadata(m.path("traced.txt")).expect("there").ino();
    assert_eq!(fs::read(m.path("traced.txt")).expect("read"), b"0123456789");
    fs::hard_link(m.path("traced.txt"), m.path("link")).expect_err("there are no hard links");

    let pid = rustix::thread::gettid().as_raw_nonzero();
    let lines = requests(&m);
    let one = |operation: &str, answer: &str| {
        let middle = format!(": {operation} by pid {pid}: {answer}, after ");
        let line = lines.iter().find(|line| line.contains(&middle));
        line.unwrap_or_else(|| panic!("no line with {middle:?} in\n{}", lines.join("\n"))).clone()
    };
    one("lookup of inode 1", &format!("ok, inode {inode}"));
    one(&format!("read of inode {inode}"), "ok, 10 bytes");
    let refused = one(&format!("link of inode {inode}"), "Operation not permitted (os error 1)");

    let number = |line: &str| line.split_once(':').and_then(|(number, _)| number.parse::<u64>().ok());
    let same = lines.iter().filter(|line| number(line) == number(&refused)).count();
    assert_eq!((number(&refused).is_some(), same), (true, 1), "the number of a request is its own: {refused}");
}
