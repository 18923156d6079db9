//! One attempt at a call: on which session, until when, and whether the server may have executed the call before.

use std::sync::{Arc, mpsc};

use super::client::Client;
use super::error::ErrorKind;
use super::handles::Slot;
use super::link_order::LinkOrder;
use super::rename_capabilities::RenameCapabilities;
use super::reply;
use super::session::Session;
use super::temp_files::TempFiles;
use crate::attr::Attr;
use crate::clock::Deadline;
use crate::path::RemotePath;
use crate::sftp::{Capabilities, Class, Pending, Request};

/// See the module header.
pub(super) struct Attempt<'a> {
    client: &'a Client,
    session: Arc<Session>,
    deadline: Deadline,
    repeated: bool,
}

impl<'a> Attempt<'a> {
    /// On the session in use, or on the next one if it comes before the deadline.
    pub(super) fn begin(client: &'a Client, deadline: Deadline, repeated: bool) -> Result<Self, ErrorKind> {
        let session = client.current().wait(deadline)?;
        Ok(Self { client, session, deadline, repeated })
    }

    /// The same attempt with the whole time limit from now on, for calls in which each answer is progress.
    pub(super) fn extended(&self) -> Self {
        let deadline = self.client.deadline();
        Self { client: self.client, session: self.session.clone(), deadline, repeated: self.repeated }
    }

    /// An earlier attempt was made: the server may have executed it, although its answer was lost.
    pub(super) fn is_repeated(&self) -> bool {
        self.repeated
    }

    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    pub(super) fn capabilities(&self) -> Capabilities {
        self.session.capabilities()
    }

    pub(super) fn rename_capabilities(&self) -> &RenameCapabilities {
        self.client.rename_capabilities()
    }

    pub(super) fn link_order(&self) -> &LinkOrder {
        self.client.link_order()
    }

    pub(super) fn temp_files(&self) -> &'a TempFiles {
        self.client.temp_files()
    }

    /// See [`RemoteConfig::root`](super::config::RemoteConfig).
    pub(super) fn root(&self) -> &'a RemotePath {
        &self.client.config().root
    }

    pub(super) fn deadline(&self) -> Deadline {
        self.deadline
    }

    pub(super) fn wire(&self, path: &RemotePath) -> Vec<u8> {
        self.client.wire(path)
    }

    pub(super) fn send(&self, request: Request) -> Pending {
        self.session.send(request, Class::Interactive)
    }

    /// Waits until a handle may be opened.
    pub(super) fn handle_slot(&self) -> Result<Slot, ErrorKind> {
        let (sender, receiver) = mpsc::sync_channel(1);
        self.session.handles().acquire(Class::Bulk, move |slot| drop(sender.send(slot)));
        receiver.recv_timeout(self.deadline.remaining()).map_err(|_| ErrorKind::Timeout)
    }

    pub(super) fn send_lstat(&self, path: &RemotePath) -> Pending {
        self.send(Request::Lstat { path: self.wire(path) })
    }

    /// Waits for the answer to a request without a result.
    pub(super) fn ok(&self, pending: Pending) -> Result<(), ErrorKind> {
        reply::ok(pending.wait(self.deadline))
    }

    pub(super) fn attr(&self, pending: Pending) -> Result<Attr, ErrorKind> {
        reply::attr(pending.wait(self.deadline))
    }

    pub(super) fn lstat(&self, path: &RemotePath) -> Result<Attr, ErrorKind> {
        self.attr(self.send_lstat(path))
    }
}
