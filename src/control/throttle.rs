//! What the API's 429 means for all clients of one user on this machine: none of them asks again before a certain time, which a
//! small file tells the other processes.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::login::write_private;

/// The first pause after a 429 that names none; each further one is twice as long, as Terminus does it.
const FIRST: Duration = Duration::from_secs(10);
/// Longest pause, whatever the API asks for.
const MOST: Duration = Duration::from_secs(320);
/// Doublings of the first pause at most.
const MAX_DOUBLINGS: u32 = 5;

/// See the module header.
pub(super) struct Throttle {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Default)]
struct State {
    /// Nobody asks before; seconds since the epoch.
    until: Option<f64>,
    /// Refusals since the last answer.
    refusals: u32,
}

impl Throttle {
    /// `file`: shared with the other processes.
    pub(super) fn new(file: Option<PathBuf>) -> Self {
        Self { file, state: Mutex::default() }
    }

    /// How long the API may not be asked; `None`: the API can be asked now.
    pub(super) fn pause(&self) -> Option<Duration> {
        let own = self.state.lock().until;
        let until = [own, self.told()].into_iter().flatten().fold(0.0, f64::max);
        let left = until - now();
        // A time far away comes from a clock that was wrong.
        (left > 0.0).then(|| Duration::from_secs_f64(left.min(MOST.as_secs_f64())))
    }

    /// Notes a 429; returns the pause until the next question.
    pub(super) fn refused(&self, asked_for: Option<Duration>) -> Duration {
        let pause = {
            let mut state = self.state.lock();
            let doubled = FIRST * 2_u32.pow(state.refusals.min(MAX_DOUBLINGS));
            let pause = asked_for.unwrap_or(doubled).min(MOST);
            *state = State { until: Some(now() + pause.as_secs_f64()), refusals: state.refusals + 1 };
            pause
        };
        self.tell();
        pause
    }

    /// Notes an answer.
    pub(super) fn answered(&self) {
        *self.state.lock() = State::default();
    }

    fn tell(&self) {
        let Some((file, until)) = self.file.as_ref().zip(self.state.lock().until) else { return };
        let text = json!({ "until": until }).to_string();
        let (Some(dir), Some(name)) = (file.parent(), file.file_name().and_then(|name| name.to_str())) else { return };
        if let Err(error) = write_private(dir, name, text.as_bytes()) {
            log::debug!("{}: {error}", file.display());
        }
    }

    fn told(&self) -> Option<f64> {
        let value: Value = serde_json::from_slice(&fs::read(self.file.as_ref()?).ok()?).ok()?;
        value.get("until")?.as_f64().filter(|until| until.is_finite())
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_until_an_answer_and_the_apis_own_goes_first() {
        let throttle = Throttle::new(None);
        assert_eq!(throttle.pause(), None);
        let pauses: Vec<u64> = (0..7).map(|_| throttle.refused(None).as_secs()).collect();
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 320]);
        assert!(throttle.pause().is_some_and(|left| left > Duration::from_secs(310)));
        throttle.answered();
        assert_eq!(throttle.pause(), None);
        assert_eq!(throttle.refused(Some(Duration::from_secs(3))).as_secs(), 3);
        assert_eq!(throttle.refused(Some(Duration::from_secs(86_400))), MOST);
    }

    #[test]
    fn other_processes_wait_too_and_nonsense_holds_nobody() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("api/throttle.json");
        let (one, other) = (Throttle::new(Some(file.clone())), Throttle::new(Some(file.clone())));
        one.refused(None);
        assert!(other.pause().is_some_and(|left| left > Duration::from_secs(8)));
        fs::write(&file, r#"{"until": 1e300}"#).expect("written");
        assert_eq!(other.pause(), Some(MOST));
        fs::write(&file, "nonsense").expect("written");
        assert_eq!(other.pause(), None);
    }
}
