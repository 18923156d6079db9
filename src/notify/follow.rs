//! Which events of a mount are told: what other people do to the environment, changes that are given up, and what is due.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::due::{Due, State};
use super::event::{CommitInfo, Event};
use super::queue::{Notices, Tells};
use super::text::About;
use crate::env::{Belief, Env, Source};
use crate::fs::Fs;
use crate::remote::{Link, Remote};
use crate::write::RejectKind;

/// What is followed.
pub struct Followed {
    pub fs: Fs,
    pub env: Env,
    pub remote: Remote,
    /// The address with which the user commits elsewhere.
    pub email: Option<String>,
}

/// Starts to tell the events of a mount on the session bus at `address`.
///
/// # Errors
///
/// There can be no more threads.
pub fn start(address: String, about: About, followed: Followed) -> std::io::Result<()> {
    let (env, fs) = (followed.env.clone(), followed.fs.clone());
    let notices = Notices::start(address, about, Mount { followed, due: Due::default() })?;
    let given_up = notices.clone();
    fs.on_given_up(move |kind, line| {
        let line = line.to_owned();
        given_up.tell(match kind {
            RejectKind::Conflict => Event::Conflict(line),
            RejectKind::Stranded => Event::Stranded(line),
        });
    });
    let last = Mutex::new(env.belief());
    env.on_change(move |belief| {
        let before = std::mem::replace(&mut *last.lock(), belief.clone());
        changes(&before, belief).into_iter().for_each(|event| notices.tell(event));
    });
    Ok(())
}

/// What other people did between two states of the environment.
fn changes(before: &Belief, now: &Belief) -> Vec<Event> {
    let mut out = Vec::new();
    // What was only assumed before was switched by nobody.
    if now.changed_here || before.source != Source::Api {
        return out;
    }
    if before.mode != now.mode {
        out.push(Event::Switched(now.mode));
    }
    if let (Some(old), Some(new)) = (&before.target_commit, &now.target_commit)
        && old != new
    {
        out.push(Event::Committed(new.clone()));
    }
    out
}

/// A mount, as the thread of the notices asks it.
struct Mount {
    followed: Followed,
    due: Due,
}

impl Tells for Mount {
    fn due(&mut self, now: Instant) -> Vec<Event> {
        self.due.events(&self.followed, now)
    }

    fn commit(&self, hash: &str) -> Option<CommitInfo> {
        let log = self.followed.env.belief().log;
        let commit = log.iter().find(|commit| commit.hash == hash)?;
        Some(CommitInfo { author: commit.author.clone(), email: commit.email.clone(), message: commit.message.clone() })
    }

    fn is_own(&self, commit: &CommitInfo) -> bool {
        self.followed.email.as_ref().is_some_and(|email| email.eq_ignore_ascii_case(&commit.email))
    }
}

impl State for Followed {
    fn link_down(&self) -> Option<Duration> {
        match self.remote.link() {
            Link::Down { since, .. } => Some(since.elapsed()),
            Link::Up { .. } => None,
        }
    }

    fn unsent(&self) -> usize {
        self.fs.dirty_files().len()
    }

    fn uncommitted(&self) -> Option<(usize, Duration)> {
        let status = self.fs.status();
        let age = status.now.duration_since(status.local.backups_since?).ok()?;
        Some((status.local.backups, age))
    }

    fn login(&self) -> Option<String> {
        self.env.login_warning()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::ConnectionMode;

    /// A state of an environment whose code is at a commit.
    fn belief(mode: ConnectionMode, commit: &str) -> Belief {
        let (gate, clock) = (crate::gate::Gate::new(), crate::clock::Clock::system());
        let config = crate::env::EnvConfig {
            name: Some("dev".into()),
            api: None,
            mode: Some(mode),
            memory: None,
            read_only: false,
            author: None,
        };
        let mut belief = Env::start(config, gate, clock, None).belief();
        belief.target_commit = Some(commit.into());
        belief.source = Source::Api;
        belief
    }

    #[test]
    fn what_other_people_do_is_told_and_what_was_asked_for_here_is_not() {
        let before = belief(ConnectionMode::Sftp, "a");
        let mut now = belief(ConnectionMode::Git, "b");
        let told = [Event::Switched(ConnectionMode::Git), Event::Committed("b".into())];
        assert_eq!(changes(&before, &now), told);
        now.changed_here = true;
        assert!(changes(&before, &now).is_empty());
        let mut assumed = before.clone();
        assumed.source = Source::Option;
        now.changed_here = false;
        assert!(changes(&assumed, &now).is_empty() && changes(&before, &before).is_empty());
    }
}
