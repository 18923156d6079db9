//! Holding writes for a workflow of this mount.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tracker::{Job, Tracker};

/// How long a workflow of this mount may hold writes.
const LIMIT: Duration = Duration::from_secs(510);

/// As long as it lives, new changes of code wait.
pub struct Holding {
    tracker: Arc<Tracker>,
    job: Arc<Job>,
}

impl Holding {
    /// `drains`: what was accepted before is still sent.
    pub(super) fn new(tracker: &Arc<Tracker>, why: String, drains: bool) -> Self {
        let job = Arc::new(Job { why, until: Instant::now() + LIMIT, drains });
        tracker.hold(job.clone());
        Self { tracker: tracker.clone(), job }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.tracker.let_go(&self.job);
    }
}
