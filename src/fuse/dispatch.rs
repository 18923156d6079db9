//! How a request is carried out: at once where nothing must be waited for, otherwise on a thread that may wait.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};

use fuser::{INodeNo, ReplyAttr, ReplyEmpty, ReplyEntry, Request};

use super::answer::{Answer, Reply};
use super::convert::ino;
use super::deferred::{Waiting, defer};
use super::errno::Refusal;
use super::replay::{Current, Replay};
use super::writers::Writers;
use crate::fs::{Entry, Fs, FsResult, Wait};

/// What the handlers of the adapter share.
pub(super) struct Adapter {
    pub(super) fs: Fs,
    pub(super) waiting: Arc<Waiting>,
    pub(super) replay: Arc<Replay>,
    pub(super) writers: Arc<Writers>,
    allow_other: bool,
    /// Dropped with the session: tells the main thread that the mount is gone.
    _alive: mpsc::Sender<()>,
}

impl Adapter {
    pub(super) fn new(fs: Fs, allow_other: bool, replay: Arc<Replay>, alive: mpsc::Sender<()>) -> Self {
        let (waiting, writers) = (Arc::default(), Arc::default());
        Self { fs, waiting, writers, replay, allow_other, _alive: alive }
    }

    /// Calls, and gives the result to `ok` or the error to the caller. `undo` gets a result that no caller waits for any
    /// more. A panic is caught: it would end the thread that reads the kernel's requests, and with it the mount.
    pub(super) fn run<R: Reply, T: Send + 'static>(
        &self,
        answer: Answer<R>,
        call: impl Fn(&Fs, Wait) -> FsResult<T> + Send + 'static,
        ok: impl FnOnce(&Fs, Answer<R>, T) + Send + 'static,
        undo: impl FnOnce(&Fs, T) + Send + 'static,
    ) {
        match catch_unwind(AssertUnwindSafe(|| call(&self.fs, Wait::No))) {
            Ok(Ok(value)) => ok(&self.fs, answer, value),
            Ok(Err(error)) if error.would_block() => defer(&self.waiting, &self.fs, answer, call, ok, undo),
            Ok(Err(error)) => answer.fail(&error),
            Err(_) => answer.refuse(Refusal::Panicked),
        }
    }

    pub(super) fn run_empty(
        &self,
        answer: Answer<ReplyEmpty>,
        call: impl Fn(&Fs, Wait) -> FsResult<()> + Send + 'static,
    ) {
        self.run(answer, call, |_, answer, ()| answer.done(), |_, ()| {});
    }

    pub(super) fn run_entry(
        &self,
        answer: Answer<ReplyEntry>,
        call: impl Fn(&Fs, Wait) -> FsResult<Entry> + Send + 'static,
    ) {
        let undo = |fs: &Fs, entry: Entry| fs.forget(entry.ino, 1);
        self.run(answer, call, |fs, answer, entry| answer.entry(fs, &entry), undo);
    }

    /// Answers a request of the process that does changes of others again; returns `None` for it, and the answer for all
    /// other requests. `with` returns the answer if it has none to give.
    pub(super) fn replayed<R: Reply>(
        &self,
        req: &Request,
        answer: Answer<R>,
        with: impl FnOnce(&Fs, &Current, Answer<R>) -> Option<Answer<R>>,
    ) -> Option<Answer<R>> {
        let Some(current) = self.replay.of(req) else { return Some(answer) };
        if let Some(answer) = with(&self.fs, &current, answer) {
            answer.refuse(Refusal::NoSuchName);
        }
        None
    }

    /// Like [`Adapter::replayed`], for a request that makes a name.
    pub(super) fn replayed_make(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        answer: Answer<ReplyEntry>,
    ) -> Option<Answer<ReplyEntry>> {
        self.replayed(req, answer, |fs, current, answer| {
            match fs.made_for(&current.step, ino(parent), name.as_bytes()) {
                Some(entry) => {
                    answer.entry(fs, &entry);
                    None
                }
                None => Some(answer),
            }
        })
    }

    /// Like [`Adapter::replayed`], for a request that removes a name.
    pub(super) fn replayed_removal(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        answer: Answer<ReplyEmpty>,
    ) -> Option<Answer<ReplyEmpty>> {
        self.replayed(req, answer, |fs, current, answer| {
            if fs.removes(&current.step, ino(parent), name.as_bytes()) {
                answer.done();
                return None;
            }
            Some(answer)
        })
    }

    /// Like [`Adapter::replayed`], for a request that answers with attributes.
    pub(super) fn replayed_attr(
        &self,
        req: &Request,
        number: INodeNo,
        answer: Answer<ReplyAttr>,
    ) -> Option<Answer<ReplyAttr>> {
        self.replayed(req, answer, |fs, current, answer| match current.attr(fs, ino(number)) {
            Some(entry) => {
                answer.attr(fs, &entry);
                None
            }
            None => Some(answer),
        })
    }

    /// `.pantheon` takes commands from the mounting user only, even where others may read. If root mounted for another
    /// user (`uid=`, as fstab has it), that user counts; a `uid=` of anyone but root only changes what is shown.
    pub(super) fn is_stranger(&self, req: &Request, number: INodeNo) -> bool {
        let me = rustix::process::getuid();
        let owner = if me.is_root() { self.fs.uid() } else { me.as_raw() };
        self.allow_other && ino(number).is_virtual() && req.uid() != owner && req.uid() != 0
    }
}
