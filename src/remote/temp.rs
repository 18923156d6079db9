//! Temporary files of ours on the server: their names, and what a lost connection left of them.
//!
//! A name tells which machine and source it belongs to, so that the next mount finds what this one left, and never takes
//! what another machine is just writing.

use std::collections::HashMap;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::list;
use super::session::Inner;
use super::{ErrorKind, RemoteResult};
use crate::clock::Deadline;
use crate::gate::WritePermit;
use crate::path::{Name, RemotePath};
use crate::sftp::{Class, Request};

/// How the name of every temporary file begins.
const START: &str = ".pantheonfs-";

/// Those that are in use, with the connection that made them.
#[derive(Default)]
pub(super) struct Temps(Mutex<HashMap<RemotePath, u64>>);

/// A temporary file; forgotten when it was moved or removed.
pub(super) struct Temp<'a> {
    temps: &'a Temps,
    pub(super) path: RemotePath,
}

impl Temps {
    /// A name in `dir` that cannot be guessed and is not taken.
    pub(super) fn make(&self, dir: &RemotePath, prefix: &str, epoch: u64) -> Result<Temp<'_>, ErrorKind> {
        let path = dir.join(&name(prefix).map_err(ErrorKind::Local)?);
        self.0.lock().insert(path.clone(), epoch);
        Ok(Temp { temps: self, path })
    }

    /// What connections before this one left.
    pub(super) fn take_left(&self, epoch: u64) -> Vec<RemotePath> {
        let mut temps = self.0.lock();
        let left: Vec<RemotePath> =
            temps.iter().filter(|(_, made)| **made < epoch).map(|(path, _)| path.clone()).collect();
        for path in &left {
            temps.remove(path);
        }
        left
    }

    fn is_used(&self, path: &RemotePath) -> bool {
        self.0.lock().contains_key(path)
    }
}

impl Temp<'_> {
    /// It is not there any more.
    pub(super) fn forget(&self) {
        self.temps.0.lock().remove(&self.path);
    }
}

fn name(prefix: &str) -> Result<Name, std::io::Error> {
    let mut random = [0; 12];
    let mut at = 0;
    while at < random.len() {
        at += rustix::rand::getrandom(&mut random[at..], rustix::rand::GetRandomFlags::empty())?;
    }
    let hex: String = random.iter().map(|b| format!("{b:02x}")).collect();
    Name::new(format!("{START}{prefix}-{hex}")).map_err(std::io::Error::other)
}

/// Removes what mounts of this machine left in `dir`; says how many. A directory that is not there holds nothing.
pub(super) fn sweep(inner: &Arc<Inner>, permit: &WritePermit, dir: &RemotePath) -> RemoteResult<usize> {
    let (sender, receiver) = mpsc::sync_channel(1);
    list::list(inner, dir.clone(), Class::Background, Box::new(move |listed| drop(sender.send(listed))));
    let deadline = Deadline::after(inner.config.timeout);
    let listed = receiver.recv_timeout(deadline.remaining());
    let entries = match listed.unwrap_or_else(|_| Err(ErrorKind::Timeout.at("sweep", dir))) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind, ErrorKind::NotFound) => return Ok(0),
        Err(error) => return Err(error),
    };
    let ours = format!("{START}{}-", inner.config.temp_prefix);
    let left: Vec<RemotePath> = entries
        .into_iter()
        .filter(|(name, attr)| attr.is_file() && name.as_bytes().starts_with(ours.as_bytes()))
        .map(|(name, _)| dir.join(&name))
        .filter(|path| !inner.temps.is_used(path))
        .collect();
    for path in &left {
        inner.once("sweep", path, |call| {
            permit.still_valid()?;
            call.done(call.send(Request::Remove { path: call.wire(path) }))
        })?;
    }
    Ok(left.len())
}
