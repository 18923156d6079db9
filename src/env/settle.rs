//! What became of a commit after its workflow. The platform reports the workflow as succeeded while the environment still
//! shows the commit before: a job `sync_code` (or `sync_code_with_build`) that ends seconds later moves `target_commit`. Only what the platform shows in
//! the end decides whether the commit is there.

use std::time::{Duration, Instant};

use super::code_jobs::{concerns, is_commit, is_sync};
use super::error::CommitError;
use crate::control::{Control, ControlError, Environment};

/// How long such a job is waited for.
const SYNC_LIMIT: Duration = Duration::from_secs(180);
/// How long `target_commit` may take once no such job runs.
const SHOWN_WITHIN: Duration = Duration::from_secs(12);
/// Pause between looks.
const PAUSE: Duration = Duration::from_secs(1);

/// A commit that the platform has.
pub(super) struct Settled {
    pub(super) hash: String,
    /// The environment that shows it; `None`: only its history does.
    pub(super) environment: Option<Environment>,
}

/// See the module header.
pub(super) struct Settling<'a> {
    control: &'a Control,
    site: &'a str,
    env: &'a str,
    /// What the environment showed before the commit.
    before: Option<String>,
    message: &'a str,
    began: Instant,
    /// The running job of that kind, once it was seen.
    sync: Option<String>,
    /// Whether the answer to the commit was lost, so that only its message tells it from a commit of another writer.
    doubtful: bool,
}

impl<'a> Settling<'a> {
    pub(super) fn new(
        (control, site, env): (&'a Control, &'a str, &'a str),
        before: Option<String>,
        message: &'a str,
        doubtful: bool,
    ) -> Self {
        Self { control, site, env, before, message, began: Instant::now(), sync: None, doubtful }
    }

    /// Waits until the environment shows another commit than before. If it does not, its history decides.
    ///
    /// # Errors
    ///
    /// Neither shows the commit in time, or the API cannot be asked for either.
    pub(super) fn wait(mut self) -> Result<Settled, CommitError> {
        let (limit, mut quiet_since) = (self.began + SYNC_LIMIT, Instant::now());
        loop {
            match self.control.environment(self.site, self.env) {
                Ok(environment) => {
                    let shown = environment.target_commit.clone().filter(|hash| Some(hash) != self.before.as_ref());
                    if let Some(hash) = shown.filter(|_| !self.doubtful || self.by_history().is_ok()) {
                        return Ok(Settled { hash, environment: Some(environment) });
                    }
                }
                Err(error) if error.is_passing() => log::info!("after the commit: {error}"),
                Err(error) => return Err(error.into()),
            }
            if self.is_synchronizing() {
                quiet_since = Instant::now();
            }
            if quiet_since.elapsed() >= SHOWN_WITHIN || Instant::now() >= limit {
                return self.by_history();
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Whether a job of that kind, or a commit, runs on this environment. The whole list is long, so once the job is known, only it is
    /// asked for. Without an answer it may still run.
    fn is_synchronizing(&mut self) -> bool {
        if let Some(id) = &self.sync {
            match self.control.workflow(self.site, id) {
                Ok(job) if job.outcome.is_some() => self.sync = None,
                Ok(_) => return true,
                Err(error) => return error.is_passing(),
            }
        }
        match self.control.jobs(self.site, Duration::ZERO) {
            Ok(jobs) => {
                let found = jobs.into_iter().find(|job| (is_sync(job) || is_commit(job)) && concerns(job, self.env));
                self.sync = found.map(|job| job.id);
            }
            Err(error) => log::info!("after the commit: {error}"),
        }
        self.sync.is_some()
    }

    /// The commit in the history: newer than what the environment showed before, with this message.
    fn by_history(&self) -> Result<Settled, CommitError> {
        let log = self.control.log(self.site, self.env).map_err(|error: ControlError| CommitError::Api(error))?;
        let newer = log.iter().take_while(|commit| Some(&commit.hash) != self.before.as_ref());
        let found = newer.into_iter().find(|commit| commit.message.trim() == self.message);
        match found {
            Some(commit) => Ok(Settled { hash: commit.hash.clone(), environment: None }),
            None => Err(CommitError::NotThere {
                runs: self.before.clone().unwrap_or_else(|| "no known commit".into()),
                seconds: self.began.elapsed().as_secs(),
            }),
        }
    }
}
