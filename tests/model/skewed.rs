//! A clock of this machine that is some seconds ahead of the server's, or behind it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

use pantheonfs::clock::Clock;
use parking_lot::Mutex;

/// Clocks that stand at the time when the first was asked for: one that is behind is moved less far than the time has gone.
static STANDING: LazyLock<Mutex<Vec<Clock>>> =
    LazyLock::new(|| Mutex::new((0..50_000).map(|_| Clock::manual()).collect()));
const TICK: Duration = Duration::from_millis(10);

/// The clock goes as long as this lives.
pub struct Skewed {
    clock: Clock,
    ended: Arc<AtomicBool>,
}

impl Skewed {
    /// Ahead by so many seconds. In the first seconds of the run no clock can be behind.
    pub fn new(by: i64) -> Self {
        let clock = STANDING.lock().pop().unwrap_or_else(Clock::manual);
        let ended = Arc::new(AtomicBool::new(false));
        adjust(&clock, by);
        let (ticking, end) = (clock.clone(), ended.clone());
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                adjust(&ticking, by);
                std::thread::sleep(TICK);
            }
        });
        Self { clock, ended }
    }

    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }
}

fn adjust(clock: &Clock, by: i64) {
    let (now, secs) = (SystemTime::now(), Duration::from_secs(by.unsigned_abs()));
    let target = if by < 0 { now - secs } else { now + secs };
    clock.advance(target.duration_since(clock.wall()).unwrap_or_default());
}

impl Drop for Skewed {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}
