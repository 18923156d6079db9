//! Checks that the root of the environment is present. While an environment migrates, the server may show a missing
//! or empty code directory for a moment. Changes sent at that time would be lost, and missing files would be taken
//! for removed ones.
//!
//! The root is listed once per connection before anything is sent, and again when an object below it is missing.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::local::Local;
use crate::attr::Area;
use crate::inode::ROOT;
use crate::path::{Name, RemotePath};
use crate::remote::{Class, ErrorKind, Link, Remote};
use crate::write::{Action, Op};

/// How long an empty root that had entries before, none of which this mount removed, counts as unavailable.
const MAX_AWAY: Duration = Duration::from_secs(15 * 60);
/// A root with fewer names may have been emptied by a single removal of another writer.
const MIN_NAMES: usize = 2;
/// A check that is at most this old is not repeated.
const RECENT: Duration = Duration::from_millis(100);

/// The last check of the root.
#[derive(Default)]
pub(super) struct RootCheck(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The connection on which the root was seen, and the time of the check.
    seen: Option<(u64, Option<Instant>)>,
    /// The names of the root at that time, with the changes of this mount applied.
    names: BTreeSet<Name>,
    /// When the root was last seen with entries.
    full_at: Option<Instant>,
}

/// The shown names of the root that the server has.
fn shown_names(local: &Local) -> BTreeSet<Name> {
    let shown = local.0.view.children(ROOT).into_iter().filter(|(_, node)| node.server.is_some());
    shown.map(|(name, _)| name).collect()
}

impl RootCheck {
    /// Called before an operation is sent.
    ///
    /// # Errors
    ///
    /// A text for the log: why nothing can be sent to this area now.
    pub(super) fn before_sending(&self, local: &Local, remote: &Remote, area: Area) -> Result<(), String> {
        let Link::Up { epoch, since, .. } = remote.link() else { return Ok(()) };
        let seen = self.0.lock().seen.map(|(epoch, _)| epoch);
        if area != Area::Code || seen == Some(epoch) {
            return Ok(());
        }
        if seen.is_none() {
            let shown = shown_names(local);
            // Listed over this connection: the names that were shown are of this server.
            if !shown.is_empty() && local.0.view.listed(ROOT).is_some_and(|at| at >= since) {
                self.note(epoch, None, shown);
                return Ok(());
            }
            self.note_shown(shown);
        }
        self.list_root(local, remote, epoch)
    }

    /// Called instead while the link is down. The next connection may find the root empty: if nothing was sent before,
    /// only the names that are shown tell that it was not.
    pub(super) fn while_down(&self, local: &Local, area: Area) {
        if area == Area::Code && self.0.lock().names.is_empty() {
            self.note_shown(shown_names(local));
        }
    }

    /// Notes names that were shown before the first check.
    fn note_shown(&self, names: BTreeSet<Name>) {
        let mut known = self.0.lock();
        if known.seen.is_none() && known.names.is_empty() && !names.is_empty() {
            (known.full_at, known.names) = (Some(Instant::now()), names);
        }
    }

    /// Called when an object is missing that the server should have: checks whether the whole root is missing.
    pub(super) fn on_missing(&self, local: &Local, remote: &Remote, area: Area) -> Result<(), String> {
        let Link::Up { epoch, .. } = remote.link() else { return Err("the link is down".into()) };
        let recent =
            self.0.lock().seen.is_some_and(|(seen, at)| seen == epoch && at.is_some_and(|at| at.elapsed() < RECENT));
        if area != Area::Code || recent { Ok(()) } else { self.list_root(local, remote, epoch) }
    }

    fn list_root(&self, local: &Local, remote: &Remote, epoch: u64) -> Result<(), String> {
        let root = local.0.view.object(ROOT);
        let (sender, receiver) = mpsc::sync_channel(1);
        remote.list_async(root.clone(), Class::Interactive, None, move |listed| drop(sender.send(listed)));
        let names: BTreeSet<Name> = match receiver.recv_timeout(local.0.view.timeout()) {
            Ok(Ok(entries)) => entries.into_iter().map(|(name, _)| name).collect(),
            Ok(Err(error)) if matches!(error.kind, ErrorKind::NotFound) => {
                return Err(format!("the directory '{root}' is not on the server now"));
            }
            // The root exists, but must not be listed.
            Ok(Err(error)) if matches!(error.kind, ErrorKind::PermissionDenied) => return Ok(()),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err(format!("the server did not list '{root}' in time")),
        };
        let was_full = {
            let known = self.0.lock();
            known.names.len() >= MIN_NAMES && known.full_at.is_some_and(|at| at.elapsed() < MAX_AWAY)
        };
        if names.is_empty() && was_full {
            return Err(format!("the directory '{root}' is empty on the server, and was not a moment ago"));
        }
        self.note(epoch, Some(Instant::now()), names);
        Ok(())
    }

    fn note(&self, epoch: u64, looked: Option<Instant>, names: BTreeSet<Name>) {
        let mut known = self.0.lock();
        known.full_at = (!names.is_empty()).then(Instant::now);
        (known.seen, known.names) = (Some((epoch, looked)), names);
    }

    /// Applies an operation of this mount to the remembered names: what this mount removed is not missing.
    pub(super) fn done(&self, local: &Local, op: &Op) {
        let root = local.0.view.object(ROOT);
        let name = |path: &RemotePath| path.file_name().filter(|_| path.parent().as_ref() == Some(&root));
        let (mut gone, mut come) = (None, None);
        match &op.action {
            Action::Unlink { .. } | Action::RemoveDir => gone = name(&op.path),
            Action::Rename { to, .. } => (gone, come) = (name(&op.path), name(to)),
            Action::Put(_) | Action::MakeDir { .. } | Action::Symlink { .. } => come = name(&op.path),
            Action::SetAttr { .. } => {}
        }
        if gone.is_some() || come.is_some() {
            let mut known = self.0.lock();
            gone.map(|name| known.names.remove(&name));
            if come.map(|name| known.names.insert(name)).is_some() {
                known.full_at = Some(Instant::now());
            }
        }
    }
}
