//! What the kernel must drop from its caches, sent to the thread that tells it.

use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::touched::Touched;
use crate::inode::Change;

/// A handle: every clone announces to the same receiver.
#[derive(Clone)]
pub(super) struct KernelChanges {
    receiver: Arc<Mutex<Option<mpsc::Sender<Change>>>>,
    touched: Touched,
}

impl KernelChanges {
    pub(super) fn new(touched: Touched) -> Self {
        Self { receiver: Arc::default(), touched }
    }

    pub(super) fn touched(&self) -> &Touched {
        &self.touched
    }

    pub(super) fn subscribe(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel();
        *self.receiver.lock() = Some(sender);
        receiver
    }

    pub(super) fn announce(&self, changes: impl IntoIterator<Item = Change>) {
        let sender = self.receiver.lock().clone();
        for change in changes {
            self.touched.change(&change);
            if let Some(sender) = &sender {
                // The receiver is dropped only while unmounting.
                drop(sender.send(change));
            }
        }
    }
}
