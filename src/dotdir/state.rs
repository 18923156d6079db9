//! The type [`Dot`] and its parts.

use std::path::PathBuf;
use std::sync::Arc;

use super::comparisons::Comparisons;
use super::git::Git;
use super::inodes::Inodes;
use super::migration::Migration;
use super::notes::Notes;
use crate::admit::Admission;
use crate::env::Env;
use crate::error::{Cause, FsError, FsResult, LastError, Wait};
use crate::reader::Reader;
use crate::remote::Remote;
use crate::upload::Upload;
use crate::vfiles::Connection;
use crate::view::View;
use crate::write::Backups;

/// The options of `.pantheon`.
pub struct DotConfig {
    /// The source as the user named it: `mysite.dev` or the `sftp://` URL.
    pub source: String,
    /// Directory for state that must survive the mount: the last connection.
    pub state_dir: PathBuf,
    /// Connection data, shown to users who want to connect with another program.
    pub connection: Connection,
    /// Backups of uncommitted changes; `None` for sources without commits.
    pub backups: Option<Arc<Backups>>,
    /// The `.git` of the mount.
    pub git: Git,
}

/// See the module documentation. Cheap to clone.
#[derive(Clone)]
pub struct Dot(pub(super) Arc<Inner>);

pub(super) struct Inner {
    pub(super) config: DotConfig,
    pub(super) view: View,
    pub(super) upload: Upload,
    pub(super) reader: Reader,
    pub(super) admission: Admission,
    pub(super) remote: Remote,
    pub(super) env: Env,
    pub(super) inodes: Inodes,
    pub(super) comparisons: Comparisons,
    pub(super) notes: Notes,
    pub(super) migration: Migration,
    pub(super) errors: LastError,
}

impl Dot {
    /// Events are not followed before [`Dot::follow`].
    pub fn new(
        config: DotConfig,
        (view, upload, reader): (View, Upload, Reader),
        (admission, env): (Admission, Env),
        remote: Remote,
        errors: LastError,
    ) -> Self {
        let migration = Migration::remembered(&config.state_dir);
        Self(Arc::new(Inner {
            config,
            view,
            upload,
            reader,
            admission,
            remote,
            env,
            inodes: Inodes::default(),
            comparisons: Comparisons::default(),
            notes: Notes::default(),
            migration,
            errors,
        }))
    }

    /// Whether there are committed versions to show.
    pub(super) fn has_repository(&self) -> bool {
        self.0.view.is_pantheon() && self.0.reader.repository().mirror().is_some()
    }
}

/// Fails for callers that must not wait, before an action that may take a round trip.
pub(super) fn must_wait(op: &'static str, object: impl std::fmt::Display, wait: Wait) -> FsResult<()> {
    match wait {
        Wait::Until(_) => Ok(()),
        Wait::No => Err(FsError::new(op, object, Cause::WouldBlock)),
    }
}
