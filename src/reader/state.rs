//! The type [`Reader`] and its parts.

use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use super::following::Following;
use super::repository::Repository;
use super::scan::Scans;
use super::sent::CacheFollower;
use crate::content::{AttestConfig, Content};
use crate::error::{FsError, LastError};
use crate::remote::Remote;
use crate::upload::Upload;
use crate::vfiles::Hydration;
use crate::view::View;

/// How symlinks of the server are shown that lead out of the mount (`-o links=`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Links {
    /// As symlinks to a name below `.pantheon/outside`, so that nothing outside is reached by following them.
    #[default]
    Contain,
    /// With their own text, for those who trust the server.
    AsIs,
}

/// The options of a reader.
pub struct ReaderConfig {
    /// Directory of the proofs. It may be deleted at any time.
    pub cache_dir: Option<PathBuf>,
    pub links: Links,
    /// How to ask the server for checksums of the code.
    pub attest: Option<AttestConfig>,
}

/// See the module documentation. Cheap to clone.
#[derive(Clone)]
pub struct Reader(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: ReaderConfig,
    pub(super) view: View,
    pub(super) upload: Upload,
    pub(super) remote: Remote,
    pub(super) content: Content,
    pub(super) repository: Repository,
    pub(super) scans: Scans,
    pub(super) following: Following,
    pub(super) hydration: Mutex<Hydration>,
    pub(super) errors: LastError,
}

impl Reader {
    /// Makes a reader, which follows the events of `upload` from now on. Proofs are followed after
    /// [`Reader::follow_provenance`].
    pub fn new(
        config: ReaderConfig,
        (view, upload): (View, Upload),
        (remote, content): (Remote, Content),
        repository: Repository,
        errors: LastError,
    ) -> Self {
        let scans = Scans::new(view.clone(), content.clone(), remote.clone());
        upload.listen(CacheFollower(content.clone()));
        Self(Arc::new(Inner {
            config,
            view,
            upload,
            remote,
            content,
            repository,
            scans,
            following: Following::default(),
            hydration: Mutex::default(),
            errors,
        }))
    }

    /// The committed files.
    pub fn repository(&self) -> &Repository {
        &self.0.repository
    }

    /// The content and its caches.
    pub fn content(&self) -> &Content {
        &self.0.content
    }

    pub(super) fn noted(&self, error: FsError) -> FsError {
        self.0.errors.noted(error)
    }
}
