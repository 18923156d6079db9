//! What the kernel must drop from its caches, sent to the thread that tells it.

use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use crate::inode::Change;

/// A handle: every clone announces to the same receiver.
#[derive(Clone, Default)]
pub(super) struct KernelChanges(Arc<Mutex<Option<mpsc::Sender<Change>>>>);

impl KernelChanges {
    pub(super) fn subscribe(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel();
        *self.0.lock() = Some(sender);
        receiver
    }

    pub(super) fn announce(&self, changes: impl IntoIterator<Item = Change>) {
        let sender = self.0.lock().clone();
        if let Some(sender) = sender {
            for change in changes {
                // The receiver is dropped only while unmounting.
                drop(sender.send(change));
            }
        }
    }
}
