//! The belief: the state of the environment, since when it is known, and from where.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use super::code_jobs::holds_code;
use crate::control::{Commit, ConnectionMode, Diffstat, EnvKind, Environment, Workflow};
use crate::gate::ReadOnlyReason;

/// Where the mode comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Api,
    /// The API, as an earlier mount remembered it.
    Remembered,
    /// A mount option or the default, because the API has not answered or there is none.
    Option,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "api",
            Self::Remembered => "remembered",
            Self::Option => "option",
        })
    }
}

/// A workflow that runs on the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    pub id: String,
    pub description: String,
    /// Why writes to code wait for it; `None`: they do not.
    pub holds: Option<&'static str>,
    /// When it was first seen.
    pub seen: SystemTime,
}

/// What a mount believes about its environment.
#[derive(Debug, Clone)]
pub struct Belief {
    pub environment: Option<String>,
    pub kind: Option<EnvKind>,
    pub mode: ConnectionMode,
    /// Since when this mount has seen this mode; the platform does not tell when it was switched.
    pub since: SystemTime,
    pub source: Source,
    /// When the mode was last confirmed.
    pub learned: SystemTime,
    pub target_commit: Option<String>,
    /// The uncommitted paths as the platform lists them, which may be thousands; `None` if it has not been asked. Shared,
    /// because a belief is copied with each change that is sent.
    pub diffstat: Option<Arc<Diffstat>>,
    /// The history, newest first, as of when the deployed commit was first seen.
    pub log: Arc<Vec<Commit>>,
    /// Workflows that run on this environment.
    pub running: Vec<Running>,
    /// Whether this mount asked for the last change of mode or commit.
    pub changed_here: bool,
    /// Why the API did not answer the last question.
    pub error: Option<String>,
}

impl Belief {
    pub(super) fn new(
        environment: Option<String>,
        kind: Option<EnvKind>,
        mode: ConnectionMode,
        now: SystemTime,
    ) -> Self {
        Self {
            environment,
            kind,
            mode,
            since: now,
            source: Source::Option,
            learned: now,
            target_commit: None,
            diffstat: None,
            log: Arc::default(),
            running: Vec::new(),
            changed_here: false,
            error: None,
        }
    }

    /// Takes over the API's answer. Returns whether the code may have changed.
    pub(super) fn learn(&mut self, environment: Environment, now: SystemTime) -> bool {
        let switched = self.mode != environment.mode;
        let moved = self.target_commit.is_some() && self.target_commit != environment.target_commit;
        if switched {
            self.since = now;
        }
        self.mode = environment.mode;
        self.target_commit = environment.target_commit;
        self.diffstat = Some(Arc::new(environment.diffstat)).filter(|_| self.kind.is_some_and(EnvKind::takes_code));
        self.source = Source::Api;
        self.learned = now;
        self.error = None;
        switched || moved
    }

    /// Takes over the workflows that run now; each keeps the time at which it was first seen.
    pub(super) fn learn_running(&mut self, running: Vec<Workflow>, now: SystemTime) {
        let known = std::mem::take(&mut self.running);
        let seen = |id: &str| known.iter().find(|job| job.id == id).map_or(now, |job| job.seen);
        let jobs = running.into_iter().map(|job| Running {
            seen: seen(&job.id),
            holds: holds_code(&job.kind),
            id: job.id,
            description: job.description,
        });
        self.running = jobs.collect();
    }

    /// Why code cannot be written, if it cannot.
    pub fn read_only_reason(&self) -> Option<ReadOnlyReason> {
        match (&self.environment, self.kind) {
            (Some(name), Some(kind)) if !kind.takes_code() => Some(ReadOnlyReason::Environment(name.clone())),
            _ if self.mode == ConnectionMode::Git => Some(ReadOnlyReason::GitMode),
            _ => None,
        }
    }

    /// Whether code can change only by a push or a deploy, both of which the watcher notices.
    pub fn is_frozen(&self) -> bool {
        self.source == Source::Api && self.read_only_reason().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(mode: ConnectionMode, commit: &str) -> Environment {
        let target_commit = Some(commit.into());
        let diffstat = Diffstat::default();
        Environment { mode, target_commit, diffstat, initialized: None, dns_zone: None, lock: None }
    }

    #[test]
    fn test_and_live_never_take_code_and_git_mode_does_not_either() {
        let now = SystemTime::UNIX_EPOCH;
        let of = |name: &str, mode| Belief::new(Some(name.into()), Some(EnvKind::of(name)), mode, now);
        assert_eq!(
            of("live", ConnectionMode::Sftp).read_only_reason(),
            Some(ReadOnlyReason::Environment("live".into()))
        );
        assert_eq!(of("dev", ConnectionMode::Git).read_only_reason(), Some(ReadOnlyReason::GitMode));
        assert_eq!(of("feature-x", ConnectionMode::Sftp).read_only_reason(), None);
    }

    #[test]
    fn a_switch_and_a_new_commit_are_changes_and_the_first_answer_is_not() {
        let mut belief =
            Belief::new(Some("dev".into()), Some(EnvKind::Dev), ConnectionMode::Sftp, SystemTime::UNIX_EPOCH);
        assert!(!belief.is_frozen());
        assert!(!belief.learn(environment(ConnectionMode::Sftp, "a"), SystemTime::now()));
        assert!(belief.learn(environment(ConnectionMode::Git, "a"), SystemTime::now()));
        assert!(belief.is_frozen());
        assert!(belief.learn(environment(ConnectionMode::Git, "b"), SystemTime::now()));
        assert!(!belief.learn(environment(ConnectionMode::Git, "b"), SystemTime::now()));
    }
}
