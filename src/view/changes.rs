//! What the kernel must drop from its caches, sent to the thread that tells it; and what other writers changed, sent to the
//! thread that shows it to programs that watch files.

use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::touched::Touched;
use crate::inode::Change;

/// Changes of other writers that may wait to be shown. Programs that watch files are told of fewer before the kernel says
/// that there were too many.
const MAX_SEEN: usize = 20_000;

/// A handle: every clone announces to the same receiver.
#[derive(Clone)]
pub(super) struct KernelChanges {
    receiver: Arc<Mutex<Option<mpsc::Sender<Change>>>>,
    seen: Arc<Mutex<Option<mpsc::SyncSender<Change>>>>,
    touched: Touched,
}

impl KernelChanges {
    pub(super) fn new(touched: Touched) -> Self {
        Self { receiver: Arc::default(), seen: Arc::default(), touched }
    }

    pub(super) fn touched(&self) -> &Touched {
        &self.touched
    }

    pub(super) fn subscribe(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::channel();
        *self.receiver.lock() = Some(sender);
        receiver
    }

    /// The stream of what other writers changed.
    pub(super) fn subscribe_seen(&self) -> mpsc::Receiver<Change> {
        let (sender, receiver) = mpsc::sync_channel(MAX_SEEN);
        *self.seen.lock() = Some(sender);
        receiver
    }

    pub(super) fn announce(&self, changes: impl IntoIterator<Item = Change>) {
        let sender = self.receiver.lock().clone();
        let seen = self.seen.lock().clone();
        for change in changes {
            self.touched.change(&change);
            if let Some(seen) = &seen
                && !matches!(change, Change::Entry { .. } | Change::Outdated(_))
                && matches!(seen.try_send(change.clone()), Err(mpsc::TrySendError::Full(_)))
            {
                log::debug!("too many changes of others at once: programs that watch files are not told of {change:?}");
            }
            if let Some(sender) = &sender {
                // The receiver is dropped only while unmounting.
                drop(sender.send(change));
            }
        }
    }
}
