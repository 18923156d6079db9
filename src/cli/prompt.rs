//! Questions on the terminal. Answers are remembered for later connections, when the user cannot be asked any more.

use parking_lot::Mutex;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::text::visible;
use crate::transport::{Prompt, Secret};

/// The terminal, as long as a user is there.
pub(super) struct Terminal {
    attended: AtomicBool,
    answers: Mutex<HashMap<String, Secret>>,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self { attended: AtomicBool::new(true), answers: Mutex::default() }
    }

    /// Stops asking questions.
    pub(super) fn leave(&self) {
        self.attended.store(false, Ordering::Relaxed);
    }

    fn attended(&self) -> bool {
        self.attended.load(Ordering::Relaxed)
    }
}

impl Prompt for Terminal {
    fn secret(&self, question: &str) -> Option<Secret> {
        let known = self.answers.lock().get(question).cloned();
        if known.is_some() || !self.attended() {
            return known;
        }
        // Fails without a terminal.
        let secret = Secret::new(rpassword::prompt_password(format!("{}: ", visible(question))).ok()?);
        self.answers.lock().insert(question.to_owned(), secret.clone());
        Some(secret)
    }

    fn confirm(&self, question: &str) -> Option<bool> {
        if !self.attended() {
            return None;
        }
        let mut terminal = File::options().read(true).write(true).open("/dev/tty").ok()?;
        write!(terminal, "{} (yes/no) ", visible(question)).ok()?;
        let mut answer = String::new();
        BufReader::new(terminal).read_line(&mut answer).ok()?;
        Some(matches!(answer.trim().to_ascii_lowercase().as_str(), "yes" | "y"))
    }

    fn tell(&self, message: &str) {
        if self.attended() {
            eprintln!("pantheonfs: {}", visible(message));
        } else {
            log::warn!("{message}");
        }
    }
}
