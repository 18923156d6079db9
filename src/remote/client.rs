//! What all calls share: the settings, the session in use, and what was learned of the server.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::config::RemoteConfig;
use super::current::CurrentSession;
use super::error::ErrorKind;
use super::link_order::LinkOrder;
use super::rename_capabilities::RenameCapabilities;
use super::session::Session;
use super::temp_files::TempFiles;
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::transport::Transport;

/// The number of the first session. A [`Client`] that is given one at its start has this one.
pub(super) const FIRST_EPOCH: u64 = 1;

/// See the module header.
pub(super) struct Client {
    config: RemoteConfig,
    current: CurrentSession,
    rename_capabilities: RenameCapabilities,
    link_order: LinkOrder,
    temp_files: TempFiles,
}

impl Client {
    /// Without a session as yet. `offline`: why none is tried at first. The receiver is for the supervisor.
    pub(super) fn new(config: RemoteConfig, offline: Option<String>) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (current, events) = CurrentSession::new(config.timeout, config.wake.is_some(), offline);
        let temp_files = TempFiles::new(&config.temp_prefix);
        let (rename_capabilities, link_order) = (RenameCapabilities::default(), LinkOrder::default());
        (Arc::new(Self { config, current, rename_capabilities, link_order, temp_files }), events)
    }

    /// Opens a session on a fresh connection and makes it the one in use.
    pub(super) fn connect_over(self: &Arc<Self>, transport: Box<dyn Transport>, epoch: u64) -> Result<(), ErrorKind> {
        let weak = Arc::downgrade(self);
        let closed = move |error: crate::sftp::SftpError| {
            if let Some(client) = weak.upgrade() {
                client.current.lost(epoch, &error.to_string());
            }
        };
        let look = (epoch == FIRST_EPOCH).then(|| self.wire(&self.config.root));
        let asked = (self.wire(&RemotePath::root()), look);
        let session = Session::open(transport, asked, epoch, self.timeout(), closed)?;
        self.current.replace(&session);
        Ok(())
    }

    pub(super) fn config(&self) -> &RemoteConfig {
        &self.config
    }

    pub(super) fn current(&self) -> &CurrentSession {
        &self.current
    }

    pub(super) fn rename_capabilities(&self) -> &RenameCapabilities {
        &self.rename_capabilities
    }

    pub(super) fn link_order(&self) -> &LinkOrder {
        &self.link_order
    }

    pub(super) fn temp_files(&self) -> &TempFiles {
        &self.temp_files
    }

    /// How long a call may take.
    pub(super) fn timeout(&self) -> Duration {
        self.config.timeout
    }

    /// The end of a call that begins now.
    pub(super) fn deadline(&self) -> Deadline {
        Deadline::after(self.config.timeout)
    }

    /// The path as the server is to see it.
    pub(super) fn wire(&self, path: &RemotePath) -> Vec<u8> {
        match (self.config.base.as_slice(), path.as_bytes()) {
            (b"", b"") => b".".to_vec(),
            (b"", path) => path.to_vec(),
            (base, b"") => base.to_vec(),
            (b"/", path) => [b"/", path].concat(),
            (base, path) => [base, b"/", path].concat(),
        }
    }
}
