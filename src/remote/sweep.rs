//! Removing the temporary files that earlier mounts of this machine left on the server.

use std::sync::Arc;

use super::client::Client;
use super::error::{ErrorKind, RemoteResult};
use super::list;
use super::retry::{Repeat, retry, wait_for};
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::{Class, Request};

/// Removes what was left in `dir`; says how many files. A directory that does not exist holds none.
pub(super) fn sweep(client: &Arc<Client>, permit: &WritePermit, dir: &RemotePath) -> RemoteResult<usize> {
    let listed =
        wait_for("sweep", dir, client.timeout(), |done| list::list(client, dir.clone(), Class::Background, None, done));
    let entries = match listed {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind, ErrorKind::NotFound) => return Ok(0),
        Err(error) => return Err(error),
    };
    let left = entries.into_iter().filter(|(name, attr)| attr.is_file() && client.temp_files().is_left(dir, name));
    let left: Vec<RemotePath> = left.map(|(name, _)| dir.join(&name)).collect();
    for path in &left {
        retry(client, "sweep", path, Repeat::Never, |attempt| {
            permit.still_valid()?;
            attempt.ok(attempt.send(Request::Remove { path: attempt.wire(path) }))
        })?;
    }
    Ok(left.len())
}
