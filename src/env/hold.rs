//! Jobs that were asked for through this mount: while one runs, writes wait.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::state::{Inner, Job};

/// How long a job of ours may hold writes.
const LIMIT: Duration = Duration::from_secs(310);

/// As long as it lives, new changes of code wait.
pub struct Holding {
    env: Arc<Inner>,
    job: Arc<Job>,
}

impl Holding {
    pub(super) fn new(env: &Arc<Inner>, why: String, drains: bool) -> Self {
        let job = Arc::new(Job { why, until: Instant::now() + LIMIT, drains });
        env.own_jobs.lock().push(job.clone());
        env.apply_to_gate();
        Self { env: env.clone(), job }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.env.own_jobs.lock().retain(|job| !Arc::ptr_eq(job, &self.job));
        self.env.apply_to_gate();
    }
}
