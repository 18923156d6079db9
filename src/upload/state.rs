//! The callers' side: the type [`Upload`], its parts, and its read access.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::events::{Listener, Listeners};
use super::local::Local;
use super::own_links::OwnLinks;
use super::root_check::RootCheck;
use super::sender::Sender;
use super::worker::start;
use crate::admit::Admission;
use crate::attr::Version;
use crate::content::Content;
use crate::error::{Cause, FsError, FsResult, LastError, Wait};
use crate::gate::WritePermit;
use crate::inode::Ino;
use crate::path::RemotePath;
use crate::remote::Remote;
use crate::view::{Unsent, View};
use crate::write::{Journal, Queue, RejectKind, Spool};

/// Takes local changes and sends them: see the module documentation. Cheap to clone.
#[derive(Clone)]
pub struct Upload {
    pub(super) local: Local,
    pub(super) admission: Admission,
    pub(super) remote: Remote,
    /// Read only: the content of the server, to copy it into spools.
    pub(super) content: Content,
    pub(super) own_links: Arc<OwnLinks>,
    listeners: Arc<Listeners>,
}

/// The view's access to the changes in a journal that the server does not know yet.
pub fn unsent_in(journal: &Arc<Journal>) -> Box<dyn Unsent> {
    Box::new(UnsentNames(journal.clone()))
}

struct UnsentNames(Arc<Journal>);

impl Unsent for UnsentNames {
    fn takes_away(&self, path: &RemotePath) -> bool {
        self.0.queue(|queue| queue.takes_away(path))
    }

    fn is_elsewhere(&self, path: &RemotePath) -> bool {
        self.0.queue(|queue| queue.is_elsewhere(path))
    }

    fn wait_until_there(&self, path: &RemotePath, patience: Duration) -> bool {
        self.0.wait_until(patience, |queue| !queue.is_elsewhere(path))
    }
}

impl Upload {
    /// Makes the uploader of a journal. The changes that an earlier mount left are not shown before
    /// [`Upload::recover`], and nothing is sent before [`Upload::start`].
    pub fn new(
        (view, admission): (View, Admission),
        (remote, content): (Remote, Content),
        journal: Arc<Journal>,
        state_dir: &Path,
        sync: bool,
        errors: LastError,
    ) -> Self {
        let local = Local::new((view, content.clone()), journal, state_dir, sync, errors);
        let own_links = Arc::new(OwnLinks::remembered(state_dir));
        Self { local, admission, remote, content, own_links, listeners: Arc::default() }
    }

    /// Adds a listener for events from now on. The listener must not keep an [`Upload`] alive.
    pub fn listen(&self, listener: impl Listener + 'static) {
        self.listeners.add(listener);
    }

    /// Sets the one listener that is told of each change that is given up: its kind, and a line about it.
    pub fn on_given_up(&self, listener: impl Fn(RejectKind, &str) + Send + Sync + 'static) {
        self.local.0.given_up.listen(Box::new(listener));
    }

    /// Starts the worker that sends.
    pub fn start(&self) {
        let (admission, remote) = (self.admission.clone(), self.remote.clone());
        let (content, listeners) = (self.content.clone(), self.listeners.clone());
        let (root, refused, swept) = (Arc::<RootCheck>::default(), Arc::default(), Arc::default());
        start(&self.local, move |local| Sender {
            local,
            admission: admission.clone(),
            remote: remote.clone(),
            content: content.clone(),
            listeners: listeners.clone(),
            root: root.clone(),
            refused: Arc::clone(&refused),
            swept: Arc::clone(&swept),
        });
    }

    /// Stops sending. Content that could not be recorded becomes a rejected copy, if the local disk allows it.
    pub fn close(&self) {
        if let Err(error) = self.local.save_unsaved() {
            log::error!("{error}");
            self.local.keep_unsaved();
        }
        self.local.0.journal.close();
    }

    /// The spool of a file whose content is on this machine.
    pub fn spool(&self, ino: Ino) -> Option<Arc<Spool>> {
        self.local.spool(ino)
    }

    /// Whether a read failed because the spool was released meanwhile: the server has the content then.
    pub fn was_let_go(&self, ino: Ino, spool: &Arc<Spool>, error: &io::Error) -> bool {
        let current = self.local.spool(ino).is_some_and(|now| Arc::ptr_eq(&now, spool));
        error.kind() == io::ErrorKind::NotFound && !current
    }

    /// Called when the last descriptor of a file is closed. A spool that is not needed any more is removed; another
    /// one closes its own descriptor.
    pub fn last_closed(&self, ino: Ino) {
        self.local.last_closed(ino);
    }

    /// Whether a symlink at `link` (from the root of the mount) that leads where this text does was made through this mount.
    pub fn made_link(&self, link: &RemotePath, text: &[u8]) -> bool {
        self.own_links.has(link, text)
    }

    /// The text of a symlink that is on this machine and not on the server.
    pub fn link_text(&self, ino: Ino, path: &RemotePath) -> Option<Vec<u8>> {
        self.local.link_text(ino, path)
    }

    /// Tells the listeners that an object is being renamed locally, see [`Listener::renamed`].
    pub(super) fn tell_renamed(&self, from: &RemotePath, to: &RemotePath, files: &[(RemotePath, Version)]) {
        self.listeners.each(|listener| listener.renamed(from, to, files));
    }

    /// The permit for a change of this object, or the reason why there is none.
    pub fn permit(&self, op: &'static str, ino: Ino, object: &RemotePath, wait: Wait) -> FsResult<WritePermit> {
        let gone = || FsError::new(op, object, Cause::NotFound);
        let area = self.local.0.view.area(ino).ok_or_else(gone)?;
        self.admission.permit(op, area, object, wait)
    }

    /// Whether the mode of the environment allows changes of this object, for access(2).
    pub fn may_write(&self, op: &'static str, ino: Ino) -> FsResult<()> {
        let Some(area) = self.local.0.view.area(ino) else { return Ok(()) };
        self.admission.may_write(op, area, &self.local.0.view.object(ino))
    }

    /// The patterns of names that stay on this machine.
    pub fn local_names(&self) -> String {
        self.local.0.spools.here.patterns.text()
    }

    /// Replaces these patterns, or adds lines to them.
    ///
    /// # Errors
    ///
    /// [`Cause::Invalid`] if a line is no pattern; [`Cause::Local`] if the local disk fails.
    pub fn change_local_names(&self, lines: &str, replace: bool) -> Result<(), Cause> {
        let changed = self.local.0.spools.here.patterns.change(lines, replace);
        changed.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => Cause::Invalid(error.to_string()),
            _ => error.into(),
        })
    }

    // For the status.

    /// Number and bytes of the files that are only on this machine.
    pub fn local_only_figures(&self) -> (usize, u64) {
        self.local.local_only_figures()
    }

    /// The operations that are queued, one line each.
    pub fn waiting(&self) -> Vec<String> {
        self.local.queue(|queue| queue.ops().map(|(_, op)| op.describe()).collect())
    }

    /// Bytes of content that are queued.
    pub fn waiting_bytes(&self) -> u64 {
        self.local.queue(Queue::bytes)
    }

    /// The local directory of rejected copies of this kind.
    pub fn rejects_dir(&self, kind: RejectKind) -> PathBuf {
        self.local.0.rejects.dir(kind)
    }

    /// The changes of names that the server refused, one line each. There is no copy that tells of them.
    pub fn refused_names(&self) -> Vec<String> {
        self.local.0.given_up.names()
    }

    /// The rejected copies of this kind, as paths below [`Upload::rejects_dir`].
    pub fn rejects(&self, kind: RejectKind) -> Vec<PathBuf> {
        self.local.0.rejects.list(kind)
    }
}
