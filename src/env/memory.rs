//! The last answer of the API, for a mount that starts while the API cannot be reached: `environment.json` of the state
//! directory. If the file is damaged or missing, nothing is remembered.

use std::fs;
use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::belief::{Belief, Source};
use crate::attr::{secs_from_time, time_from_secs};
use crate::control::ConnectionMode;
use crate::durable;

/// The content of the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Memory {
    mode: String,
    target_commit: Option<String>,
    /// Seconds since the epoch.
    learned: u32,
}

impl Memory {
    pub(super) fn load(file: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// What to remember of the belief; `None`, unless it comes from the API.
    pub(super) fn of(belief: &Belief) -> Option<Self> {
        (belief.source == Source::Api).then(|| Self {
            mode: belief.mode.to_string(),
            target_commit: belief.target_commit.clone(),
            learned: secs_from_time(belief.learned),
        })
    }

    pub(super) fn save(&self, file: &Path) -> io::Result<()> {
        durable::replace(file, |new| Ok(serde_json::to_writer_pretty(new, self)?)).map(drop)
    }

    /// The mode, and when the API confirmed it.
    pub(super) fn mode(&self) -> Option<(ConnectionMode, SystemTime)> {
        Some((ConnectionMode::parse(&self.mode)?, time_from_secs(self.learned)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_platform_said_is_remembered() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("environment.json");
        let mut belief = Belief::new(Some("dev".into()), None, ConnectionMode::Git, time_from_secs(77));
        assert!(Memory::of(&belief).is_none());
        belief.source = Source::Api;
        Memory::of(&belief).expect("said").save(&file).expect("saved");
        let mode = Memory::load(&file).and_then(|memory| memory.mode());
        assert_eq!(mode, Some((ConnectionMode::Git, time_from_secs(77))));
        fs::write(&file, "{").expect("damaged");
        assert!(Memory::load(&file).is_none());
    }
}
