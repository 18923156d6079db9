//! Calls that fail, and must have no effect; and closes that fail, whose content must be sent nevertheless.

use std::sync::Arc;
use std::time::Duration;

use pantheonfs::call;
use pantheonfs::fs::{FsResult, HandleId, OpenMode, SetAttr};

use super::common::inner::{Inner, within};
use super::exact::Run;
use super::steps::{Call, Step};

/// Longest wait of a call that is to be late.
const SHORT: Duration = Duration::from_millis(5);
const READ_WRITE: OpenMode = OpenMode { read: true, write: true, truncate: false };
/// Bytes that are appended before a close that fails.
const APPENDED: usize = 700;

impl Run<'_> {
    /// Through the kernel a call cannot be told how long to wait.
    fn is_through_the_kernel(&self) -> bool {
        self.inner.mounted_at().is_some()
    }

    pub fn late(&mut self, call: &Step) {
        if self.is_through_the_kernel() {
            return;
        }
        self.inner.stall(true);
        self.may_refuse = true;
        within(SHORT, || self.step(call));
        self.may_refuse = false;
        self.inner.stall(false);
    }

    pub fn on_a_full_disk(&mut self, call: &Step) {
        self.may_refuse = true;
        let full = self.inner.fill_disk();
        self.step(call);
        drop(full);
        self.may_refuse = false;
    }

    pub fn given_up(&mut self, what: Call, path: &str, other: &str) {
        let needs_a_file = matches!(what, Call::Write | Call::Truncate);
        if self.is_through_the_kernel() || (needs_a_file && self.file_error(path).is_err()) {
            return;
        }
        let (inner, full) = (&*self.inner, self.full(path));
        // Opening a file is no change.
        let handle = matches!(what, Call::Write).then(|| inner.open(&full, READ_WRITE, false).expect("opened"));
        let interrupted = Arc::new(call::Call::default());
        assert!(interrupted.give_up());
        let result: FsResult<()> = interrupted.run(|| match what {
            Call::Create => {
                inner.open(&full, OpenMode { read: false, write: true, truncate: true }, true).and_then(|handle| {
                    inner.close(handle)?;
                    panic!("it was opened, and cut");
                })
            }
            Call::Write => inner.write_at(handle.expect("opened"), 1, b"never"),
            Call::Truncate => inner.setattr(&full, SetAttr { size: Some(1234), ..SetAttr::default() }),
            Call::Mkdir => inner.mkdir(&full),
            Call::Rmdir => inner.rmdir(&full),
            Call::Unlink => inner.unlink(&full),
            Call::Rename => inner.rename(&full, &self.full(other)),
            Call::Symlink => inner.symlink(&full, "never"),
            Call::Chmod => inner.setattr(&full, SetAttr { perm: Some(0o700), ..SetAttr::default() }),
        });
        let nothing_to_do = path == other || self.content(path).len() == 1234;
        assert!(result.is_err() || nothing_to_do, "{what:?} of {path}: it was interrupted");
        if let Some(handle) = handle {
            inner.close(handle).expect("nothing was written");
        }
    }

    /// Appends to a file that is there, and closes it while something is in the way; with the result of the close.
    fn append_and_close(
        &mut self,
        path: &str,
        byte: u8,
        close: impl FnOnce(&Inner, HandleId) -> FsResult<()>,
    ) -> FsResult<()> {
        let mut content = self.content(path);
        let handle = self.inner.open(&self.full(path), READ_WRITE, false).expect("it is there");
        self.inner.write_at(handle, content.len() as u64, &[byte; APPENDED]).expect("written");
        let closed = close(self.inner, handle);
        content.extend([byte; APPENDED]);
        self.set_content(path, content);
        let (dirty, full) = (self.inner.fs.dirty_files(), self.full(path));
        assert!(dirty.iter().any(|path| path.to_string() == full), "{full} is counted: {dirty:?}");
        closed
    }

    pub fn close_on_a_full_disk(&mut self, path: &str, byte: u8) {
        if self.is_through_the_kernel() || self.file_error(path).is_err() {
            return;
        }
        let closed = self.append_and_close(path, byte, |inner, handle| {
            let _full = inner.fill_disk();
            inner.close(handle)
        });
        assert!(closed.is_err(), "{path}: it cannot be recorded");
        self.unsaved = true;
    }

    pub fn close_in_a_job(&mut self, path: &str, byte: u8) {
        if self.is_through_the_kernel() || self.file_error(path).is_err() {
            return;
        }
        self.append_and_close(path, byte, |inner, handle| {
            inner.hold(true);
            let closed = within(SHORT, || inner.close(handle));
            let refused = within(SHORT, || inner.mkdir("in-a-job"));
            inner.hold(false);
            assert!(refused.is_err(), "what begins in a job is refused");
            closed
        })
        .expect("what was written before is accepted");
    }
}
