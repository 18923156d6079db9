//! Is the environment there at all? While it moves, the server may answer from a place where the code directory is missing
//! or empty for a moment. What is sent there would be lost, and what is missing there would be taken for removed.
//!
//! The root is looked at once for each connection before anything is sent, and again when something below it is missing.

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

/// How long a root that had something in it, and is empty now without us, is taken for one that is away.
const MAX_AWAY: Duration = Duration::from_secs(15 * 60);
/// A root with fewer names may have been emptied by one removal of another writer.
const MIN_NAMES: usize = 2;
/// A look this short a time ago answers the next doubt.
const RECENT: Duration = Duration::from_millis(100);

/// What is known of the root.
#[derive(Default)]
pub(super) struct RootCheck(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// The connection on which the root was seen, and when it was looked at for this.
    seen: Option<(u64, Option<Instant>)>,
    /// What was in it then, with what we did since.
    names: BTreeSet<Name>,
    /// When something was last seen in it.
    full_at: Option<Instant>,
}

impl RootCheck {
    /// Before something is sent.
    ///
    /// # Errors
    ///
    /// A text for people: why nothing can be sent to this area now.
    pub(super) fn before_sending(&self, local: &Local, remote: &Remote, area: Area) -> Result<(), String> {
        let Link::Up { epoch, since, .. } = remote.link() else { return Ok(()) };
        let seen = self.0.lock().seen.map(|(epoch, _)| epoch);
        if area != Area::Code || seen == Some(epoch) {
            return Ok(());
        }
        let view = &local.0.view;
        if seen.is_none() && view.listed(ROOT).is_some_and(|at| at >= since) {
            // Listed over this connection: programs have seen what is there.
            let there = view.children(ROOT).into_iter().filter(|(_, node)| node.server.is_some());
            self.note(epoch, None, there.map(|(name, _)| name).collect());
            return Ok(());
        }
        self.look(local, remote, epoch)
    }

    /// Something that should be there is missing: is it that the root is away?
    pub(super) fn on_missing(&self, local: &Local, remote: &Remote, area: Area) -> Result<(), String> {
        let Link::Up { epoch, .. } = remote.link() else { return Err("the link is down".into()) };
        let recent =
            self.0.lock().seen.is_some_and(|(seen, at)| seen == epoch && at.is_some_and(|at| at.elapsed() < RECENT));
        if area != Area::Code || recent { Ok(()) } else { self.look(local, remote, epoch) }
    }

    fn look(&self, local: &Local, remote: &Remote, epoch: u64) -> Result<(), String> {
        let root = local.0.view.object(ROOT);
        let (sender, receiver) = mpsc::sync_channel(1);
        remote.list_async(root.clone(), Class::Interactive, move |listed| drop(sender.send(listed)));
        let names: BTreeSet<Name> = match receiver.recv_timeout(local.0.view.timeout()) {
            Ok(Ok(entries)) => entries.into_iter().map(|(name, _)| name).collect(),
            Ok(Err(error)) if matches!(error.kind, ErrorKind::NotFound) => {
                return Err(format!("the directory '{root}' is not on the server now"));
            }
            // It is there, and does not say what is in it.
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

    /// What we did to names of the root: what we removed ourselves is not missing.
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
