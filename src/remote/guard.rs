//! What is destroyed is kept by a second name until it was looked at: the check that comes after the last moment.
//!
//! Between a check and the request that it guards lies a round trip, in which another writer may replace the file. Where
//! the server offers hard links, LINK is sent right before the request and LSTAT right behind it: if what got the second
//! name is another version than was checked, it gets its own name back. The file is never without a name, and no round trip
//! is added; each guarded request costs three more.

use super::ErrorKind;
use super::session::Call;
use super::temp::Temp;
use crate::attr::{Attr, Version};
use crate::gate::WritePermit;
use crate::path::RemotePath;
use crate::sftp::{Pending, Request};

/// What is expected at a path that is about to be destroyed, and where it can be kept meanwhile.
#[derive(Debug, Clone)]
pub struct Guard {
    pub base: Version,
    /// A directory on the same disk of the server that is not served.
    pub temp_dir: RemotePath,
}

/// The second name of a file, asked for and not answered yet.
pub(super) struct Held<'a> {
    call: &'a Call<'a>,
    aside: Temp<'a>,
    /// What became of it the LSTAT tells.
    _linked: Pending,
}

impl Guard {
    /// Sends the LINK. `None`: the server offers no hard links.
    pub(super) fn hold<'a>(&self, call: &'a Call<'a>, path: &RemotePath) -> Result<Option<Held<'a>>, ErrorKind> {
        if !call.session.engine.capabilities().hardlink {
            return Ok(None);
        }
        let inner = call.inner;
        let aside = inner.temps.make(&self.temp_dir, &inner.config.temp_prefix, call.session.epoch())?;
        let _linked = call.send(Request::hardlink(&call.wire(path), &call.wire(&aside.path)));
        Ok(Some(Held { call, aside, _linked }))
    }

    /// REMOVE, and back with it if it was another version.
    pub(super) fn unlink(&self, call: &Call<'_>, permit: &WritePermit, path: &RemotePath) -> Result<(), ErrorKind> {
        permit.still_valid()?;
        let held = self.hold(call, path)?;
        let removed = call.send(Request::Remove { path: call.wire(path) });
        let Some(held) = held else { return call.removed(path, removed) };
        let seen = held.look();
        call.removed(path, removed).inspect_err(|_| held.drop_it())?;
        match held.other_than(self.base, seen)? {
            Some(other) => {
                held.put_back(path)?;
                Err(ErrorKind::Conflict { found: Some(other) })
            }
            None => Ok(()),
        }
    }
}

impl Held<'_> {
    /// Sends the LSTAT of what got the second name.
    pub(super) fn look(&self) -> Pending {
        self.call.send_lstat(&self.aside.path)
    }

    /// The version that was destroyed, if it is not `base`. Otherwise the second name goes.
    pub(super) fn other_than(&self, base: Version, seen: Pending) -> Result<Option<Version>, ErrorKind> {
        let found: Result<Attr, ErrorKind> = self.call.attr(seen);
        match found {
            Ok(attr) if attr.version() != base => return Ok(Some(attr.version())),
            Err(kind) if kind.is_loss() => return Err(kind),
            // Not linked: another disk, or a server that offers what it does not do.
            Ok(_) | Err(_) => self.drop_it(),
        }
        Ok(None)
    }

    /// Gives the file its own name again; what is there now gives way.
    pub(super) fn put_back(&self, path: &RemotePath) -> Result<(), ErrorKind> {
        let call = self.call;
        let request = if call.session.engine.capabilities().posix_rename {
            Request::posix_rename(&call.wire(&self.aside.path), &call.wire(path))
        } else {
            Request::Rename { from: call.wire(&self.aside.path), to: call.wire(path) }
        };
        call.done(call.send(request)).inspect(|()| self.aside.forget()).inspect_err(|kind| {
            log::error!("{path}: another writer's version is kept as {} on the server ({kind})", self.aside.path);
        })
    }

    /// Removes the second name; the answer is not waited for.
    pub(super) fn drop_it(&self) {
        drop(self.call.send(Request::Remove { path: self.call.wire(&self.aside.path) }));
        self.aside.forget();
    }
}
