//! Questions to the person who mounts.

use super::secret::Secret;

/// Questions to the person, while there is one.
pub trait Prompt: Send + Sync {
    /// A password or passphrase; `None`: nobody to ask.
    fn secret(&self, question: &str) -> Option<Secret>;
    /// Yes or no; `None`: nobody to ask.
    fn confirm(&self, question: &str) -> Option<bool>;
    fn tell(&self, message: &str);
}

/// Nobody there: every question goes unanswered, messages go to the log.
pub struct Silent;

impl Prompt for Silent {
    fn secret(&self, _: &str) -> Option<Secret> {
        None
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        None
    }

    fn tell(&self, message: &str) {
        log::warn!("{message}");
    }
}
