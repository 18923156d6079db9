//! Which thread used an open file last to write. A child that a program starts inherits its descriptors and closes them
//! before it runs another program. For the kernel that is a close like any other, but the file is only half written.

use std::collections::HashMap;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::fs::HandleId;

/// Threads by handle. Cheap to keep: open files only.
#[derive(Default)]
pub(super) struct Writers(Mutex<HashMap<u64, u32>>);

impl Writers {
    /// The thread has opened the file to write, or has written. 0: a thread that this process cannot see.
    pub(super) fn note(&self, handle: HandleId, thread: u32) {
        self.0.lock().insert(handle.0, thread);
    }

    pub(super) fn forget(&self, handle: HandleId) {
        self.0.lock().remove(&handle.0);
    }

    /// Whether a close by this thread leaves the file open in the process that writes it. In doubt it does not.
    pub(super) fn is_written_elsewhere(&self, handle: HandleId, closing: u32) -> bool {
        let Some(writer) = self.0.lock().get(&handle.0).copied() else { return false };
        if writer == closing || writer == 0 || closing == 0 {
            return false;
        }
        let (process, writers) = (task_of(closing, closing), task_of(writer, writer));
        // A process that has ended has closed its descriptors.
        process.exists() && writers.exists() && !task_of(closing, writer).exists()
    }
}

/// Exists if both threads live and are of one process.
fn task_of(one: u32, other: u32) -> PathBuf {
    format!("/proc/{one}/task/{other}").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn closes_of_the_writing_process_and_of_others_are_told_apart() {
        let (writers, handle) = (Writers::default(), HandleId(1));
        let here = u32::try_from(rustix::thread::gettid().as_raw_nonzero().get()).expect("positive");
        assert!(!writers.is_written_elsewhere(handle, here), "nothing is known of it");
        writers.note(handle, here);
        assert!(!writers.is_written_elsewhere(handle, here));
        let sibling = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get()).join().expect("no panic");
        assert!(!writers.is_written_elsewhere(handle, u32::try_from(sibling).expect("positive")), "it has ended");
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("started");
        assert!(writers.is_written_elsewhere(handle, child.id()));
        writers.note(handle, child.id());
        assert!(writers.is_written_elsewhere(handle, here));
        drop(child.stdin.take());
        child.wait().expect("ended");
        assert!(!writers.is_written_elsewhere(handle, here), "the writer has ended");
        writers.note(handle, 0);
        assert!(!writers.is_written_elsewhere(handle, here), "the writer cannot be seen");
        writers.forget(handle);
        assert!(writers.0.lock().is_empty());
    }
}
