//! What is done when something was sent, when nothing is to be sent, and when the environment changed.

use std::sync::{Arc, Weak};

use super::state::{Dot, Inner};
use crate::attr::Area;
use crate::path::RemotePath;
use crate::upload::{Applied, AppliedChange, Listener};

impl Dot {
    /// Follows what `upload` sends, and the environment.
    pub fn follow(&self) {
        let weak = Arc::downgrade(&self.0);
        self.0.upload.listen(Follower(weak.clone()));
        self.0.env.on_change(move |_belief| {
            if let Some(inner) = weak.upgrade() {
                Dot(inner).environment_changed();
            }
        });
    }

    /// The mode or the commit changed: what was shown of the code may all be wrong.
    fn environment_changed(&self) {
        // Committed, or discarded by a switch: either way not ours any more.
        self.0.notes.forget_written();
        self.0.reader.provenance_soon();
        self.0.view.renew_everything();
        self.review_backups_soon(true);
    }

    fn sent(&self, applied: &Applied<'_>) {
        if let AppliedChange::Content { attr, .. } = &applied.change {
            self.0.notes.sent(attr.size);
        }
        if applied.area != Area::Code {
            return;
        }
        let shown = self.0.view.shown_path(applied.path);
        self.0.notes.written(&shown);
        if let AppliedChange::RenamedFrom(from) = &applied.change {
            self.0.notes.written(&self.0.view.shown_path(from));
        }
        self.warn_if_ignored(&shown);
        self.back_up(applied);
    }

    /// Says once per path that what was written there can never be committed.
    fn warn_if_ignored(&self, path: &RemotePath) {
        let Some(rules) = self.0.reader.repository().rules() else { return };
        if rules.covers(path) && self.0.notes.ignored(path) {
            log::warn!("{path}: is matched by .gitignore: it is on the server, but no commit will ever have it");
        }
    }
}

/// Weak: `upload` does not keep what follows it alive.
struct Follower(Weak<Inner>);

impl Listener for Follower {
    fn applied(&self, applied: &Applied<'_>) {
        if let Some(inner) = self.0.upgrade() {
            Dot(inner).sent(applied);
        }
    }

    fn idle(&self) {
        if let Some(inner) = self.0.upgrade() {
            Dot(inner.clone()).check_migration();
            inner.view.save_tree(false);
        }
    }
}
