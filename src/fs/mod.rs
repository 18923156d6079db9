//! The filesystem: operations on inode numbers and handles, on our own types. `fuse` translates them for the kernel, the
//! tests call them directly.
//!
//! Every operation that may need the network takes a [`Wait`]: the kernel's worker threads call with `Wait::No` first and
//! hand the call to a thread that may wait only when the answer is not known yet.
//!
//! Changes are local first: made in the table, recorded in the journal (`local`), sent by the `syncer`.
//!
//! Locks, in order (none is held across a round trip or a disk sync): `names`, `handles`, `spools`, the table's, the
//! journal's, a spool's, a handle's own, the cache's. In-flight tickets are not locks; they are taken before any lock.

mod ahead;
mod backup;
mod dir;
mod error;
mod handle;
mod hydrate;
mod io;
mod link;
mod local_only;
mod lookup;
mod migration;
mod names;
mod open;
mod pending;
mod provenance;
mod record;
mod recover;
mod reject;
mod scan;
mod setattr;
mod statfs;
mod status;
mod syncer;
mod tree;
mod virt;

use parking_lot::Mutex;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

pub use crate::content::AttestConfig;
pub use dir::DirEntry;
pub use error::{Cause, FsError, FsResult, Wait};
pub use handle::{HandleId, OpenMode};
pub use io::Allocate;
pub use lookup::Entry;
pub use open::Opened;
pub use setattr::{SetAttr, Time};
pub use statfs::Space;

use crate::attr::Area;
use crate::cache::InFlight;
use crate::clock::{Clock, Deadline};
use crate::content::{Content, SharedError};
use crate::env::Env;
use crate::gate::{Gate, WritePermit};
use crate::inode::{Change, Ino, LOGS, ROOT, Root, Snapshot, Table, UPLOADS};
use crate::mirror::Mirror;
use crate::path::RemotePath;
use crate::remote::Remote;
use crate::vfiles::{Connection, Hydration};
use crate::write::{Backups, Journal, Rejects, Spool};

/// What a mount is made of and how it behaves.
pub struct FsConfig {
    /// For people: `mysite.dev` or the `sftp://` URL.
    pub source: String,
    /// Owner of everything shown.
    pub uid: u32,
    pub gid: u32,
    /// Permission bits taken away from everything shown (`-o umask=`).
    pub umask: u16,
    /// How long names and attributes may be shown without asking again.
    pub fresh: Duration,
    /// How long an operation may wait for the network.
    pub timeout: Duration,
    /// Memory for file content, bytes.
    pub cache_bytes: u64,
    /// Holds what must survive: conflicts, stranded files. Private to the user.
    pub state_dir: PathBuf,
    /// Holds what may be deleted at any time: the tree as it was seen last.
    pub cache_dir: Option<PathBuf>,
    /// Holds what was read, for all environments of the site; may be deleted at any time, too.
    pub content_dir: Option<PathBuf>,
    /// What is still to be sent.
    pub journal: Arc<Journal>,
    /// `close`, `fsync` and operations on names wait for the server.
    pub sync: bool,
    pub layout: Layout,
    /// The site's repository, where it can be had.
    pub mirror: Option<Arc<Mirror>>,
    /// Where the server can be asked for checksums of the code.
    pub attest: Option<AttestConfig>,
    /// Copies of what is changed, until it is committed; `None` where nothing is ever committed.
    pub kept: Option<Arc<Backups>>,
    /// For people who want to connect another way.
    pub connection: Connection,
}

/// Which directories of the server the mount shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// A Pantheon binding: `code` is the root; `files` and `logs` are under `.pantheon`.
    Pantheon,
    /// Any SFTP server: the path of the source is the root, and nothing else is shown.
    Plain,
}

impl Layout {
    fn roots(self) -> Vec<Root> {
        let root = |ino, path: &str, area| Root {
            ino,
            path: RemotePath::parse(path).unwrap_or_else(|_| RemotePath::root()),
            area,
        };
        match self {
            Layout::Pantheon => vec![
                root(ROOT, "code", Area::Code),
                root(UPLOADS, "files", Area::Uploads),
                root(LOGS, "logs", Area::Logs),
            ],
            Layout::Plain => vec![root(ROOT, "", Area::Code)],
        }
    }
}

/// How old an answer to `open` may be. Shorter than for names: here it is bytes that are shown.
const OPEN_FRESH: Duration = Duration::from_secs(5);
/// Validity where nobody can change the code (Git mode, Test, Live): only a new commit ends it, and that is noticed.
const FROZEN_FRESH: Duration = Duration::from_secs(3600);

/// How long the mode is taken for what it was.
const TRUSTED: Duration = Duration::from_secs(2);
/// How long a change waits for the platform's word on the mode.
const CONFIRM_LIMIT: Duration = Duration::from_secs(3);

/// A listing has many waiters.
type ListResult = Result<(), SharedError>;

/// The filesystem of one mount. Cheap to clone.
#[derive(Clone)]
pub struct Fs(Arc<Shared>);

pub(crate) struct Shared {
    config: FsConfig,
    remote: Remote,
    env: Env,
    gate: Gate,
    clock: Clock,
    table: Table,
    snapshot: Option<Snapshot>,
    content: Content,
    rescue: Rejects,
    journal: Arc<Journal>,
    /// Held from the last look at the table to the record in the journal.
    names: Mutex<()>,
    slots: syncer::Slots,
    /// With `-o sync`: why an operation was put aside, by its path, until its caller has been told.
    failures: Mutex<HashMap<RemotePath, FsError>>,
    /// When something was last changed here.
    changed: Mutex<Option<Instant>>,
    listings: InFlight<Ino, ListResult>,
    fills: InFlight<Ino, Result<Arc<Spool>, Cause>>,
    spools: Mutex<HashMap<Ino, Arc<Spool>>>,
    /// Links that stay on this machine, and where they lead.
    local_links: Mutex<HashMap<Ino, Vec<u8>>>,
    /// Kept copies that were looked at: number to local path.
    kept: Mutex<HashMap<Ino, PathBuf>>,
    /// Committed paths that were looked at: number to path below the code directory.
    heads: Mutex<HashMap<Ino, RemotePath>>,
    /// Differing paths that were looked at.
    diffs: Mutex<HashMap<Ino, RemotePath>>,
    handles: Mutex<HashMap<u64, Arc<handle::Handle>>>,
    next_handle: AtomicU64,
    ahead: ahead::Ahead,
    scans: scan::Scans,
    looks: pending::Looks,
    space: statfs::SpaceCache,
    notes: status::Notes,
    migration: migration::Migration,
    following: provenance::Following,
    hydration: Mutex<Hydration>,
    /// Bytes that the server had said when it fell silent.
    silent_at: Mutex<Option<u64>>,
    changes: Mutex<Option<mpsc::Sender<Change>>>,
    closing: AtomicBool,
}

impl Fs {
    pub fn new(config: FsConfig, remote: Remote, env: Env, gate: Gate, clock: Clock) -> Self {
        let disk = config.content_dir.as_deref().and_then(|dir| tree::open_content(dir, &config.source));
        let content =
            Content::new(remote.clone(), config.cache_bytes, disk, provenance::proofs(&config), clock.clone());
        let journal = config.journal.clone();
        let migration = migration::Migration::remembered(&config.state_dir);
        let (snapshot, saved) = tree::open(config.cache_dir.as_deref());
        let fs = Self(Arc::new(Shared {
            snapshot,
            table: Table::new(config.layout.roots()),
            rescue: Rejects::new(&config.state_dir),
            config,
            remote,
            env,
            gate,
            clock,
            content,
            journal,
            names: Mutex::default(),
            slots: syncer::Slots::default(),
            failures: Mutex::default(),
            changed: Mutex::default(),
            listings: InFlight::default(),
            fills: InFlight::default(),
            spools: Mutex::default(),
            local_links: Mutex::default(),
            kept: Mutex::default(),
            heads: Mutex::default(),
            diffs: Mutex::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            ahead: ahead::Ahead::default(),
            scans: scan::Scans::default(),
            looks: pending::Looks::default(),
            space: statfs::SpaceCache::default(),
            notes: status::Notes::default(),
            migration,
            following: provenance::Following::default(),
            hydration: Mutex::default(),
            silent_at: Mutex::default(),
            changes: Mutex::default(),
            closing: AtomicBool::new(false),
        }));
        fs.restore_tree(&saved);
        fs.show_what_waits();
        fs.follow_environment();
        fs.follow_provenance();
        syncer::start(Arc::downgrade(&fs.0), fs.0.journal.clone());
        fs
    }

    /// What the server says about the root, learned when the connection was made.
    pub fn set_root_attr(&self, attr: crate::attr::Attr) {
        self.0.table.apply_attr(ROOT, attr, self.0.clock.now());
    }

    pub fn uid(&self) -> u32 {
        self.0.config.uid
    }

    pub fn gid(&self) -> u32 {
        self.0.config.gid
    }

    /// Permission bits as shown: what the server says, less the mount's umask.
    pub fn shown_perm(&self, perm: u16) -> u16 {
        perm & !self.0.config.umask
    }

    /// The deadline of an operation that starts now.
    pub fn deadline(&self) -> Deadline {
        Deadline::after(self.0.config.timeout)
    }

    /// Where changes go that the kernel must forget. One receiver: the invalidator's thread.
    pub fn subscribe(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel();
        *self.0.changes.lock() = Some(sender);
        receiver
    }

    fn announce(&self, changes: impl IntoIterator<Item = Change>) {
        let sender = self.0.changes.lock().clone();
        if let Some(sender) = sender {
            for change in changes {
                // The receiver is gone only while unmounting.
                drop(sender.send(change));
            }
        }
    }

    /// Drops what is believed about the code when the environment turned: its files may all be other ones.
    fn follow_environment(&self) {
        let weak = Arc::downgrade(&self.0);
        self.0.env.on_change(move |_belief| {
            if let Some(shared) = weak.upgrade() {
                let fs = Fs(shared);
                // Committed, or discarded by a switch: either way not ours any more.
                fs.0.notes.forget_written();
                fs.provenance_soon();
                fs.renew_everything();
                fs.review_kept_soon(true);
            }
        });
    }

    /// Everything that is known is looked at anew when it is used next.
    pub fn renew_everything(&self) {
        let known = self.0.table.walk();
        self.0.table.expire(None);
        self.announce(
            known.into_iter().flat_map(|(parent, name, ino)| [Change::Entry { parent, name }, Change::Attr(ino)]),
        );
    }

    /// The first change after a pause learns how the environment stands before it is answered: EROFS must not be found
    /// out later. In a burst the belief is trusted, and with the link or the platform away, too.
    fn confirm_mode(&self, op: &'static str, area: Area, object: &RemotePath, wait: Wait) -> FsResult<()> {
        let recent = |at: Option<Instant>| at.is_some_and(|at| at.elapsed() < TRUSTED);
        if area != Area::Code || recent(*self.0.changed.lock()) || self.0.env.is_certain(TRUSTED) {
            return Ok(());
        }
        if self.is_offline() {
            return Ok(());
        }
        match wait {
            Wait::No => return Err(FsError::new(op, object, Cause::WouldBlock)),
            Wait::Until(deadline) => self.0.env.confirm(deadline.0.min(Instant::now() + CONFIRM_LIMIT)),
        }
        Ok(())
    }

    fn permit(&self, op: &'static str, ino: Ino, object: &RemotePath, wait: Wait) -> FsResult<WritePermit> {
        let area = self.0.table.area(ino).ok_or_else(|| FsError::new(op, object, Cause::NotFound))?;
        self.confirm_mode(op, area, object, wait)?;
        let permit = match wait {
            Wait::No => match self.0.gate.admit(area) {
                Err(crate::gate::Refused::Held(_)) => return Err(FsError::new(op, object, Cause::WouldBlock)),
                other => other,
            },
            Wait::Until(deadline) => self.0.gate.admit_waiting(area, deadline.0),
        };
        self.0.env.touch();
        if permit.is_ok() {
            *self.0.changed.lock() = Some(Instant::now());
        }
        permit.map_err(|refused| self.noted(FsError::new(op, object, refused)))
    }

    /// Remembers an error for `.pantheon/status`, and logs it.
    fn noted(&self, error: FsError) -> FsError {
        if !error.would_block() {
            self.0.notes.error(&error, self.0.clock.wall());
        }
        error
    }

    fn object(&self, ino: Ino) -> RemotePath {
        self.0.table.path(ino).unwrap_or_else(RemotePath::root)
    }

    /// Begins the end: prefetching and sending stop.
    pub fn close(&self) {
        self.0.closing.store(true, Ordering::Relaxed);
        self.0.journal.close();
        self.save_tree(true);
        self.save_proofs();
        self.0.content.close();
    }

    fn is_closing(&self) -> bool {
        self.0.closing.load(Ordering::Relaxed)
    }
}
