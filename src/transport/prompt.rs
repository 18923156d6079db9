//! Questions to the user who mounts.

use super::secret::Secret;

/// Asks the user, while there is one.
pub trait Prompt: Send + Sync {
    /// A password or passphrase; `None`: there is no user to ask.
    fn secret(&self, question: &str) -> Option<Secret>;
    /// Yes or no; `None`: there is no user to ask.
    fn confirm(&self, question: &str) -> Option<bool>;
    fn tell(&self, message: &str);
}

/// Without a user: questions have no answer, messages go to the log.
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
