//! The type [`Dot`] and its parts.

use std::path::PathBuf;
use std::sync::Arc;

use super::comparison::Comparisons;
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

/// What `.pantheon` is about.
pub struct DotConfig {
    /// For people: `mysite.dev` or the `sftp://` URL.
    pub source: String,
    /// Holds what must survive: the last connection.
    pub state_dir: PathBuf,
    /// For people who want to connect another way.
    pub connection: Connection,
    /// Copies of what is changed, until it is committed; `None` where nothing is ever committed.
    pub backups: Option<Arc<Backups>>,
}

/// See the module header. Cheap to clone.
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
    /// Nothing is followed before [`Dot::follow`].
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

/// What may take a round trip is not done for callers that may not wait.
pub(super) fn must_wait(op: &'static str, object: impl std::fmt::Display, wait: Wait) -> FsResult<()> {
    match wait {
        Wait::Until(_) => Ok(()),
        Wait::No => Err(FsError::new(op, object, Cause::WouldBlock)),
    }
}
