//! Detects migrations. The container home, host key and address of the last connection are remembered; if one of them
//! changes, the environment has migrated (or another machine answers in its place), and uncommitted work may be lost.

use parking_lot::Mutex;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::vfiles::Connection;

/// Number of changes that are shown.
const MAX_CHANGES: usize = 10;

/// The remembered connection, in `connection.json` of the state directory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Memory {
    host: String,
    port: u16,
    user: String,
    /// The login directory, as the server reports it.
    home: String,
    host_key: String,
    /// Changes, one line each, the newest last.
    changes: Vec<String>,
}

/// See the module documentation.
pub(super) struct Migration {
    file: PathBuf,
    state: Mutex<(Memory, u64)>,
}

impl Migration {
    pub(super) fn remembered(state_dir: &Path) -> Self {
        let file = state_dir.join("connection.json");
        let memory = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file, state: Mutex::new((memory, 0)) }
    }

    /// Changes with their times, the newest last.
    pub(super) fn changes(&self) -> Vec<String> {
        self.state.lock().0.changes.clone()
    }

    /// Compares a new connection with the last one. Returns what has changed if the environment has migrated; `None`
    /// also for a connection that was compared before.
    pub(super) fn compare(&self, connection: &Connection, now: &Connected, when: SystemTime) -> Option<String> {
        let (migrated, memory) = {
            let mut state = self.state.lock();
            if state.1 == now.epoch {
                return None;
            }
            state.1 = now.epoch;
            let before = state.0.clone();
            let now = Memory {
                host: connection.host.clone(),
                port: connection.port,
                user: connection.user.clone(),
                home: now.home.clone(),
                host_key: now.host_key.clone().unwrap_or_else(|| before.host_key.clone()),
                changes: before.changes.clone(),
            };
            let (memory, migrated) = compare(&before, now, &format_rfc3339_seconds(when).to_string());
            if memory == before {
                return None;
            }
            state.0 = memory.clone();
            (migrated, memory)
        };
        if let Err(error) = self.save(&memory) {
            log::warn!("{}: {error}", self.file.display());
        }
        migrated
    }

    fn save(&self, memory: &Memory) -> std::io::Result<()> {
        durable::replace(&self.file, |new| Ok(serde_json::to_writer_pretty(new, memory)?)).map(drop)
    }
}

/// A connection to the environment.
pub(super) struct Connected {
    /// The number of the connection in this mount.
    pub(super) epoch: u64,
    /// The login directory, as the server reports it.
    pub(super) home: String,
    /// `None`: not known, because the `ssh` program does not report it.
    pub(super) host_key: Option<String>,
}

/// The new memory, and the differences if the environment has migrated.
fn compare(before: &Memory, mut now: Memory, when: &str) -> (Memory, Option<String>) {
    if before.host.is_empty() {
        return (now, None);
    }
    let differences: Vec<String> = [
        ("host", &before.host, &now.host),
        ("port", &before.port.to_string(), &now.port.to_string()),
        ("user", &before.user, &now.user),
        ("home", &before.home, &now.home),
        ("host key", &before.host_key, &now.host_key),
    ]
    .into_iter()
    .filter(|(_, old, new)| old != new && !old.is_empty())
    .map(|(what, old, new)| format!("{what} was {old}, is {new}"))
    .collect();
    now.changes.extend(differences.iter().map(|line| format!("{when} {line}")));
    let surplus = now.changes.len().saturating_sub(MAX_CHANGES);
    now.changes.drain(..surplus);
    let moved = before.home != now.home || before.host_key != now.host_key;
    (now, (moved && !differences.is_empty()).then(|| differences.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_move_is_seen_and_remembered() {
        let at = |home: &str, key: &str| Memory {
            host: "h".into(),
            home: home.into(),
            host_key: key.into(),
            ..Memory::default()
        };
        let (first, moved) = compare(&Memory::default(), at("/a", "k"), "now");
        assert!(moved.is_none() && first.changes.is_empty(), "the first time nothing has changed");
        let (same, moved) = compare(&first, at("/a", "k"), "now");
        assert!(moved.is_none() && same == first);
        let (second, moved) = compare(&first, at("/b", "k"), "T");
        assert_eq!(moved.as_deref(), Some("home was /a, is /b"));
        assert_eq!(second.changes, ["T home was /a, is /b"]);
    }
}
