//! A spinner on the terminal while a command waits, with what the platform reports meanwhile.

use std::fs;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A spinner; nothing where standard error is no terminal. Ends when dropped.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    done: Arc<AtomicBool>,
}

/// How often the activity is read.
const TICK: Duration = Duration::from_secs(1);

impl Progress {
    /// Shows what the command does, and the first line of the file `activity`.
    pub(super) fn start(doing: &str, activity: PathBuf) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        if !std::io::stderr().is_terminal() {
            return Self { bar: None, done };
        }
        let bar = ProgressBar::new_spinner().with_message(doing.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let (shown, ended, doing) = (bar.clone(), done.clone(), doing.to_owned());
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(TICK);
                let text = fs::read_to_string(&activity).unwrap_or_default();
                if let Some(line) = text.lines().find(|line| !line.starts_with('#')) {
                    shown.set_message(format!("{doing}: {line}"));
                }
            }
        });
        Self { bar: Some(bar), done }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
