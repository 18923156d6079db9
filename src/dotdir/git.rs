//! The `.git` of the mount: the file that leads git to the git directory of this machine, and what the status says of it.

use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;

use parking_lot::Mutex;

use crate::mirror::GitDir;
use crate::vfiles::GitStatus;

/// The git directory of a mount, and what is to be said about it.
pub struct Git(Option<Shown>);

pub(super) struct Shown {
    pub(super) dir: GitDir,
    pub(super) status: Mutex<GitStatus>,
    wake: Mutex<Option<mpsc::Sender<()>>>,
}

impl Shown {
    /// A channel that [`Git::wake`] sends to.
    pub(super) fn woken(&self) -> mpsc::Receiver<()> {
        let (wake, woken) = mpsc::channel();
        *self.wake.lock() = Some(wake);
        woken
    }
}

impl Git {
    /// `None`: the mount has no `.git` of its own.
    pub fn new(dir: Option<GitDir>) -> Self {
        let shown = |dir: GitDir| {
            let status = GitStatus { dir: dir.dir().to_owned(), ..GitStatus::default() };
            Shown { dir, status: Mutex::new(status), wake: Mutex::default() }
        };
        Self(dir.map(shown))
    }

    pub(super) fn shown(&self) -> Option<&Shown> {
        self.0.as_ref()
    }

    pub(super) fn is_shown(&self) -> bool {
        self.0.as_ref().is_some_and(|shown| shown.status.lock().shown)
    }

    /// The text of the file `.git`.
    pub(super) fn link(&self) -> Vec<u8> {
        let path = self.0.as_ref().map(|shown| shown.dir.dir().as_os_str().as_bytes().to_vec()).unwrap_or_default();
        [b"gitdir: ", path.as_slice(), b"\n"].concat()
    }

    /// `hides`: whether the server has a `.git`, too.
    pub(super) fn status(&self, hides: bool) -> Option<GitStatus> {
        self.0.as_ref().map(|shown| GitStatus { hides, ..shown.status.lock().clone() })
    }

    /// Has the thread look at once whether the environment runs another commit.
    pub(super) fn wake(&self) {
        let wake = self.0.as_ref().and_then(|shown| shown.wake.lock().clone());
        if let Some(wake) = wake {
            // The thread ends only while unmounting.
            let _ = wake.send(());
        }
    }
}
