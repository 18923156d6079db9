//! Builds the parts of a filesystem, from the bottom up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::handles::Handles;
use super::state::{Fs, Owner};
use crate::admit::Admission;
use crate::clock::Clock;
use crate::content::{AttestConfig, Content};
use crate::dotdir::{Dot, DotConfig, Git};
use crate::env::Env;
use crate::error::LastError;
use crate::gate::Gate;
use crate::mirror::{GitDir, GitDirConfig, Mirror};
use crate::reader::{Links, Reader, ReaderConfig, Repository, open_disk, proofs_of};
use crate::remote::Remote;
use crate::upload::{Upload, unsent_in};
use crate::vfiles::Connection;
use crate::view::{EarlierTree, Layout, View, ViewConfig};
use crate::write::{Backups, Journal};

/// The options and parts of a mount.
pub struct FsConfig {
    /// The source as the user named it: `mysite.dev` or the `sftp://` URL.
    pub source: String,
    /// Owner of everything shown.
    pub uid: u32,
    pub gid: u32,
    /// Permission bits removed from everything shown (`-o umask=`).
    pub umask: u16,
    /// How long names and attributes may be shown without asking again.
    pub fresh: Duration,
    /// How long an operation may wait for the network.
    pub timeout: Duration,
    /// Memory for file content, bytes.
    pub cache_bytes: u64,
    /// Directory for state that must survive the mount: rejected copies, journal. Private to the user.
    pub state_dir: PathBuf,
    /// What the last mount knew.
    pub tree: EarlierTree,
    /// Directory of proofs. It may be deleted at any time.
    pub cache_dir: Option<PathBuf>,
    /// Directory of cached content, shared by all environments of the site. It may be deleted at any time.
    pub content_dir: Option<PathBuf>,
    /// The changes that are still to be sent.
    pub journal: Arc<Journal>,
    /// `-o sync`: `close`, `fsync` and operations on names wait for the server.
    pub sync: bool,
    /// `-o links=`: how symlinks of the server are shown that lead out of the mount.
    pub links: Links,
    pub layout: Layout,
    /// The local copy of the site's repository, if it can be fetched.
    pub mirror: Option<Arc<Mirror>>,
    /// The git directory of the mount; `None`: it has none (`-o git=no`, sources without commits).
    pub git: Option<GitDirConfig>,
    /// How to ask the server for checksums of the code.
    pub attest: Option<AttestConfig>,
    /// Backups of uncommitted changes; `None` for sources without commits.
    pub backups: Option<Arc<Backups>>,
    /// Connection data, shown to users who want to connect with another program.
    pub connection: Connection,
}

impl Fs {
    /// Shows what an earlier mount recorded, starts to send, and starts to follow the environment.
    pub fn new(config: FsConfig, remote: Remote, env: Env, gate: Gate, clock: Clock) -> Self {
        let owner = Owner { uid: config.uid, gid: config.gid, umask: config.umask };
        let pantheon = config.layout == Layout::Pantheon;
        let errors = LastError::new(clock.clone());

        let disk = config.content_dir.as_deref().and_then(|dir| open_disk(dir, &config.source));
        let proofs = config.mirror.as_ref().filter(|_| pantheon).and_then(proofs_of);
        let content = Content::new(remote.clone(), config.cache_bytes, disk, proofs, clock.clone());
        let admission = Admission::new(env.clone(), gate, remote.clone(), errors.clone(), pantheon);

        let view = ViewConfig {
            layout: config.layout,
            fresh: config.fresh,
            timeout: config.timeout,
            own_git: config.git.is_some(),
            shown_as: config.umask,
        };
        let git = config.git.zip(config.mirror.clone()).map(|(git, mirror)| GitDir::new(git, mirror));
        let unsent = unsent_in(&config.journal);
        let view = View::new(view, config.tree, remote.clone(), admission.clone(), unsent, clock, errors.clone());

        let (below, server) = ((view.clone(), admission.clone()), (remote.clone(), content.clone()));
        let upload = Upload::new(below, server, config.journal, &config.state_dir, config.sync, errors.clone());

        let reader = ReaderConfig { links: config.links, cache_dir: config.cache_dir, attest: config.attest };
        let repository = Repository::new(config.mirror, env.clone());
        let (below, server) = ((view.clone(), upload.clone()), (remote.clone(), content));
        let reader = Reader::new(reader, below, server, repository, errors.clone());

        let dot = DotConfig {
            source: config.source,
            state_dir: config.state_dir,
            connection: config.connection,
            backups: config.backups,
            git: Git::new(git),
        };
        let below = (view.clone(), upload.clone(), reader.clone());
        let dot = Dot::new(dot, below, (admission, env), remote, errors);

        upload.recover();
        dot.follow();
        dot.follow_with_git();
        reader.follow_provenance();
        upload.start();
        Self { view, upload, reader, dot, handles: Arc::new(Handles::default()), owner }
    }
}
