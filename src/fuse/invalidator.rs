//! Tells the kernel what it must forget. One thread, fed by a channel; see the room's header for why.

use std::io;
use std::sync::mpsc::Receiver;

use fuser::{INodeNo, Notifier};

use crate::inode::Change;

/// Runs until the sending side is gone.
pub(super) fn start(notifier: Notifier, changes: Receiver<Change>) -> io::Result<()> {
    std::thread::Builder::new().name("invalidator".into()).spawn(move || {
        for change in changes {
            let told = match &change {
                Change::Entry { parent, name } | Change::Made { parent, name, .. } => {
                    notifier.inval_entry(INodeNo(parent.0), name.as_os_str())
                }
                Change::Removed(objects) => match objects.last() {
                    Some(top) => notifier.inval_entry(INodeNo(top.parent.0), top.name.as_os_str()),
                    None => Ok(()),
                },
                Change::Content(ino) => notifier.inval_inode(INodeNo(ino.0), 0, 0),
                // A negative offset drops the attributes and leaves the pages.
                Change::Attr(ino) | Change::Outdated(ino) => notifier.inval_inode(INodeNo(ino.0), -1, 0),
            };
            if let Err(error) = told {
                // The kernel does not know the inode, or the mount is ending: nothing to forget either way.
                log::trace!("invalidate {change:?}: {error}");
            }
        }
    })?;
    Ok(())
}
