//! The reactions to events: a change was sent, nothing is queued, the environment changed.

use std::sync::{Arc, Weak};

use super::migration::Connected;
use super::state::{Dot, Inner};
use crate::attr::Area;
use crate::path::RemotePath;
use crate::remote::Link;
use crate::upload::{Applied, AppliedChange, Listener};

impl Dot {
    /// Starts to follow `upload` and the environment.
    pub fn follow(&self) {
        let weak = Arc::downgrade(&self.0);
        self.0.upload.listen(Follower(weak.clone()));
        self.0.env.on_change(move |_belief| {
            if let Some(inner) = weak.upgrade() {
                Dot(inner).environment_changed();
            }
        });
    }

    /// The mode or the commit changed: everything shown of the code may be outdated.
    fn environment_changed(&self) {
        // Committed, or discarded by a switch: no longer uncommitted in either case.
        self.0.notes.forget_written();
        self.0.reader.provenance_soon();
        self.0.view.renew_everything();
        self.review_backups_soon(true);
        self.0.config.git.wake();
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

    /// Compares the present connection with the last one. After a migration uncommitted work may be gone.
    fn check_migration(&self) {
        let Link::Up { epoch, home, .. } = self.0.remote.link() else { return };
        let Some(info) = self.0.remote.session_info() else { return };
        let host_key = Some(info.transport.host_key).filter(|key| !key.is_empty());
        let now = Connected { epoch, home: String::from_utf8_lossy(&home).into_owned(), host_key };
        let changed = self.0.migration.compare(&self.0.config.connection, &now, self.0.view.clock().wall());
        let Some(what) = changed else { return };
        log::warn!("the environment has migrated ({what}): everything is listed again");
        self.0.view.renew_everything();
        self.0.reader.content().forget_proofs();
        self.review_backups_soon(true);
    }

    /// Warns once per path that is matched by .gitignore and therefore never committed.
    fn warn_if_ignored(&self, path: &RemotePath) {
        let Some(rules) = self.0.reader.repository().rules() else { return };
        if rules.covers(path) && self.0.notes.ignored(path) {
            log::warn!("{path}: is matched by .gitignore: it is on the server, but no commit will ever have it");
        }
    }
}

/// A weak reference: a listener must not keep its `Dot` alive.
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
