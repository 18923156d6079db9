//! The worker's side: the type [`Sender`], which alone changes the server.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::events::{Applied, Listeners};
use super::local::Local;
use super::root_check::RootCheck;
use crate::admit::Admission;
use crate::attr::Area;
use crate::content::Content;
use crate::path::RemotePath;
use crate::remote::Remote;
use crate::write::OpId;

/// Carries out what is recorded. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) local: Local,
    pub(super) admission: Admission,
    pub(super) remote: Remote,
    /// Only read: what the server has, to compare it.
    pub(super) content: Content,
    pub(super) listeners: Arc<Listeners>,
    pub(super) root: Arc<RootCheck>,
    /// How often the server refused an operation. To be kept from trying is no refusal.
    pub(super) refused: Arc<Mutex<HashMap<OpId, u32>>>,
}

impl Sender {
    pub(super) fn emit(&self, applied: &Applied<'_>) {
        self.listeners.each(|listener| listener.applied(applied));
    }

    /// Where the server keeps temporary files for us, outside of what it serves.
    pub(super) fn temp_dir(&self, area: Area) -> Option<RemotePath> {
        let pantheon = self.local.0.view.is_pantheon() && area == Area::Code;
        pantheon.then(|| RemotePath::parse("tmp").ok()).flatten()
    }
}
