//! What the callers of the kernel were shown of the server's state: the next change is based on it.

use super::Ino;
use super::node::Shown;
use super::table::Table;
use crate::path::Name;

impl Table {
    /// Callers are shown the object as it is now: the next change is based on this version. While local changes are
    /// queued, they are what is shown, and the base does not change.
    pub fn mark_shown(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.show_perm();
            node.show_server();
        }
    }

    /// A caller was given bytes of the file. With `followed`, the file and its directory are kept as fresh as an open
    /// file from now on.
    pub fn mark_read(&self, ino: Ino, followed: bool) {
        let mut state = self.lock();
        let Some(node) = state.nodes.get_mut(ino) else { return };
        node.show_server();
        if followed && !node.callers().was_read {
            node.callers_mut().was_read = true;
            let parent = node.parent;
            if let Some(dir) = state.dir_mut(parent) {
                dir.was_read = true;
            }
        }
    }

    /// The bytes of a file that callers were not shown are a part of what they write.
    pub fn taken_over(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(ino)
            && node.callers().shown == Shown::Absent
        {
            node.callers_mut().shown = node.server().into();
        }
    }

    /// A local change of this name was refused: if the server lists it again, no other writer has made it.
    pub fn restored(&self, dir: Ino, name: Name) {
        if let Some(dir) = self.lock().dir_mut(dir) {
            dir.restored.insert(name);
        }
    }

    /// What callers were shown is not the object that the server has at this name.
    pub fn forget_shown(&self, ino: Ino) {
        if let Some(node) = self.lock().nodes.get_mut(ino) {
            node.callers_mut().shown = Shown::Never;
        }
    }
}
