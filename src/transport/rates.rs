//! Whether the stream is worth compressing, as measured: which rates connections to this server reached with compression and
//! without. On a slow link compressed code arrives two or three times as fast; on a fast one the compression itself (about
//! 10 to 30 MB/s of one core at each end) is the limit. Nothing tells the two apart but trying.

use parking_lot::{Mutex, MutexGuard};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::durable;

/// A server that takes this long for its first answer is taken to be behind a link of limited bandwidth until measured.
const FAR: Duration = Duration::from_millis(20);
/// File bytes per second below which the link is the limit with compression, and above which it may be the compression.
const DOUBTFUL: u64 = 8_000_000;
/// A connection is replaced at once where the other way was faster by half; for less it waits for the next connection.
const WORTH_IT: (u64, u64) = (3, 2);
/// Seconds after which a rate is forgotten: the machine may be on another network.
const LIFETIME: u64 = 24 * 3600;

/// See the module header. In memory, or in a file too, so that the next mount knows.
#[derive(Debug, Default)]
pub struct Rates {
    file: Option<PathBuf>,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Known {
    plain: Option<Measured>,
    compressed: Option<Measured>,
}

/// File bytes per second, and when (seconds since the epoch).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Measured {
    rate: u64,
    at: u64,
}

impl Rates {
    /// Those that an earlier mount measured; none if the file is missing or damaged.
    pub fn kept(file: PathBuf) -> Self {
        let known = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { file: Some(file), known: Mutex::new(known) }
    }

    /// Whether to ask a server for compression whose first answer took `answered`.
    pub(super) fn compress(&self, answered: Duration) -> bool {
        self.lock().compress(answered, seconds(SystemTime::now()))
    }

    /// A connection carried `rate` file bytes per second. Returns whether one of the other kind is worth reconnecting.
    pub(super) fn measured(&self, compressed: bool, rate: u64) -> bool {
        let known = {
            let mut known = self.lock();
            let measured = Some(Measured { rate, at: seconds(SystemTime::now()) });
            if compressed {
                known.compressed = measured
            } else {
                known.plain = measured
            }
            *known
        };
        log::debug!("{rate} bytes/s, {}", if compressed { "compressed" } else { "not compressed" });
        if let Some(Err(error)) = self.file.as_deref().map(|file| save(file, known)) {
            log::debug!("the rate is not kept: {error}");
        }
        known.should_reconnect(compressed, seconds(SystemTime::now()))
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock()
    }
}

impl Known {
    /// The rates that still say something: plain, compressed.
    fn fresh(self, now: u64) -> (Option<u64>, Option<u64>) {
        let fresh = |measured: Option<Measured>| {
            measured.filter(|m| now.saturating_sub(m.at) < LIFETIME).map(|measured| measured.rate)
        };
        (fresh(self.plain), fresh(self.compressed))
    }

    fn compress(self, answered: Duration, now: u64) -> bool {
        match self.fresh(now) {
            (Some(plain), Some(compressed)) => compressed > plain,
            // One was measured: the other is tried where it may be better.
            (None, Some(compressed)) => compressed < DOUBTFUL,
            (Some(plain), None) => plain < DOUBTFUL,
            (None, None) => answered >= FAR,
        }
    }

    /// Whether a connection that is compressed, or not, should be of the other kind.
    fn should_reconnect(self, compressed: bool, now: u64) -> bool {
        if self.compress(FAR, now) == compressed {
            return false;
        }
        match self.fresh(now) {
            (Some(plain), Some(packed)) => plain.max(packed) * WORTH_IT.1 >= plain.min(packed) * WORTH_IT.0,
            _ => true,
        }
    }
}

fn save(file: &Path, known: Known) -> io::Result<()> {
    durable::replace_unsynced(file, |new| Ok(serde_json::to_writer(new, &known)?)).map(drop)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEAR: Duration = Duration::from_millis(1);
    const MEGABYTE: u64 = 1_000_000;

    fn known(plain: Option<u64>, compressed: Option<u64>) -> Known {
        let at = |rate: Option<u64>| rate.map(|rate| Measured { rate: rate * MEGABYTE, at: 1_000 });
        Known { plain: at(plain), compressed: at(compressed) }
    }

    #[test]
    fn latency_decides_until_something_was_measured() {
        assert!(known(None, None).compress(FAR, 1_000));
        assert!(!known(None, None).compress(NEAR, 1_000));
    }

    #[test]
    fn the_other_way_is_tried_where_it_may_be_better_and_the_faster_stays() {
        assert!(known(None, Some(2)).compress(FAR, 2_000), "the link is the limit");
        assert!(!known(None, Some(12)).compress(FAR, 2_000), "the compression may be");
        assert!(known(Some(2), None).compress(NEAR, 2_000), "near, and slow nevertheless");
        assert!(!known(Some(60), None).compress(FAR, 2_000));
        assert!(known(Some(10), Some(12)).compress(NEAR, 2_000));
        assert!(!known(Some(60), Some(12)).compress(FAR, 2_000));
    }

    #[test]
    fn a_connection_is_given_up_for_the_unknown_or_for_half_as_much_again() {
        assert!(!known(None, Some(2)).should_reconnect(true, 2_000));
        assert!(known(None, Some(12)).should_reconnect(true, 2_000), "plain may be faster");
        assert!(!known(Some(10), Some(12)).should_reconnect(false, 2_000), "not by half");
        assert!(known(Some(2), Some(12)).should_reconnect(false, 2_000));
        assert!(!known(Some(2), Some(12)).should_reconnect(true, 2_000));
        assert!(known(Some(60), Some(12)).should_reconnect(true, 2_000));
    }

    #[test]
    fn a_rate_of_another_day_says_nothing() {
        let now = 1_000 + LIFETIME;
        assert!(known(Some(60), Some(12)).compress(FAR, now));
        assert!(!known(Some(1), Some(12)).compress(NEAR, now));
    }

    #[test]
    fn rates_are_there_for_the_next_mount_and_damage_is_nothing() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("rates.json");
        let rates = Rates::kept(file.clone());
        assert!(rates.measured(true, 12 * MEGABYTE));
        assert!(!rates.compress(FAR));
        assert!(!rates.measured(false, 60 * MEGABYTE));
        assert_eq!(*Rates::kept(file.clone()).lock(), *rates.lock());
        fs::write(&file, "{\"plain\": 7").expect("written");
        assert!(Rates::kept(file).compress(FAR));
    }
}
