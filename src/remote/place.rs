//! Whether a path leads where it says. Another writer may have put a symbolic link in the place of a directory: every
//! request below it acts on what the link leads to, and no check of the object itself shows that.
//!
//! REALPATH of the directory is sent beside the first request of a change, so that it costs no round trip. Where the answer
//! is another path, or there is none, each directory on the way is looked at: servers spell paths in ways of their own.
//!
//! The directories that the server itself provides (see [`RemoteConfig::root`](super::config::RemoteConfig)) may be links.

use super::attempt::Attempt;
use super::error::ErrorKind;
use super::reply;
use crate::attr::Attr;
use crate::path::RemotePath;
use crate::sftp::{Pending, Request};

/// The directory of an object, asked for and not answered yet.
pub(super) struct Place<'a> {
    attempt: &'a Attempt<'a>,
    dir: RemotePath,
    /// `None`: the server provides this directory.
    asked: Option<Pending>,
}

impl Attempt<'_> {
    /// Sends the REALPATH of the directory of this object.
    pub(super) fn send_place(&self, path: &RemotePath) -> Place<'_> {
        let dir = path.parent().unwrap_or_else(RemotePath::root);
        let asked = (!self.is_provided(&dir)).then(|| self.send(Request::RealPath { path: self.wire(&dir) }));
        Place { attempt: self, dir, asked }
    }

    /// Whether the server provides this directory, as the platform does `code` and `files`: it may be a link.
    fn is_provided(&self, dir: &RemotePath) -> bool {
        dir.depth() <= self.root().depth()
    }
}

impl Place<'_> {
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]: something on the way to the object is no directory.
    pub(super) fn check(self) -> Result<(), ErrorKind> {
        let Some(asked) = self.asked else { return Ok(()) };
        match reply::name(asked.wait(self.attempt.deadline())) {
            Ok(real) if real == expected(self.attempt.session().home(), &self.dir) => Ok(()),
            Err(kind) if kind.is_unanswered() => Err(kind),
            Ok(_) | Err(_) => look(self.attempt, self.dir),
        }
    }
}

/// An object and its directory, asked for and not answered yet.
pub(super) struct Look<'a> {
    place: Place<'a>,
    found: Pending,
}

impl Attempt<'_> {
    /// Sends the LSTAT of an object, and the REALPATH of its directory.
    pub(super) fn send_look(&self, path: &RemotePath) -> Look<'_> {
        Look { place: self.send_place(path), found: self.send_lstat(path) }
    }
}

impl Look<'_> {
    /// The attributes of the object; not found if something on the way to it is no directory.
    pub(super) fn attr(self) -> Result<Attr, ErrorKind> {
        let attempt = self.place.attempt;
        self.place.check()?;
        attempt.attr(self.found)
    }
}

/// The directory below the path that the server gave for the root when the session began.
fn expected(root: &[u8], dir: &RemotePath) -> Vec<u8> {
    [root.strip_suffix(b"/").unwrap_or(root), dir.as_bytes()].join(&b'/')
}

/// Looks at the directory and at all above it that other writers can replace, in one round trip.
fn look(attempt: &Attempt<'_>, dir: RemotePath) -> Result<(), ErrorKind> {
    let on_the_way = std::iter::successors(Some(dir), RemotePath::parent);
    let way: Vec<_> = on_the_way.take_while(|dir| !attempt.is_provided(dir)).collect();
    let asked: Vec<_> = way.iter().map(|dir| attempt.send_lstat(dir)).collect();
    for (dir, asked) in way.iter().zip(asked) {
        match attempt.attr(asked) {
            Ok(attr) if !attr.is_dir() => {
                log::info!("{dir}: the server has something else in the place of this directory");
                return Err(ErrorKind::NotFound);
            }
            Err(kind) if kind.is_unanswered() || matches!(kind, ErrorKind::NotFound) => return Err(kind),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_below_the_root() {
        let dir = RemotePath::parse("a/b").expect("valid");
        assert_eq!(expected(b"/srv/code", &dir), b"/srv/code/a/b");
        assert_eq!(expected(b"/", &dir), b"/a/b");
    }
}
