//! Sessions and machine tokens, shared with Terminus: the file `session` is the answer to a login, `tokens/EMAIL` a saved token.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::config::ControlConfig;
use super::error::ControlError;
use super::http::Http;
use crate::durable;

/// Terminus' file, and the API's answer.
#[derive(Serialize, Deserialize)]
struct Session {
    session: Zeroizing<String>,
    #[serde(default)]
    expires_at: i64,
    #[serde(default)]
    user_id: String,
}

#[derive(Deserialize)]
struct SavedToken {
    token: Zeroizing<String>,
    #[serde(default)]
    email: String,
}

pub(super) struct Login {
    config: ControlConfig,
    session: Option<Session>,
}

impl Login {
    pub(super) fn new(config: ControlConfig) -> Self {
        Self { config, session: None }
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.config.token.is_some() || self.saved_session().is_some() || !self.saved_tokens().is_empty()
    }

    /// The session that is in use, or that Terminus saved.
    pub(super) fn current(&mut self) -> Option<Zeroizing<String>> {
        if self.session.as_ref().is_none_or(|session| session.expires_at < now()) {
            self.session = if self.config.token.is_some() { None } else { self.saved_session() };
        }
        self.session.as_ref().map(|session| session.session.clone())
    }

    /// The token to log in with.
    pub(super) fn token(&self) -> Result<Zeroizing<String>, ControlError> {
        match &self.config.token {
            Some(token) => Ok(token.clone()),
            None => self.saved_token(),
        }
    }

    /// Adopts the answer to a login and saves it for Terminus.
    pub(super) fn keep(&mut self, answer: serde_json::Value) -> Result<Zeroizing<String>, ControlError> {
        let session: Session =
            serde_json::from_value(answer).map_err(|e| ControlError::malformed("the login's answer", e))?;
        if self.config.token.is_none()
            && let Err(error) = self.save(&session)
        {
            log::info!("the API session could not be saved: {error}");
        }
        let secret = session.session.clone();
        self.session = Some(session);
        Ok(secret)
    }

    /// The id of the account that is logged in.
    pub(super) fn user_id(&mut self) -> Option<String> {
        self.current()?;
        self.session.as_ref().map(|session| session.user_id.clone()).filter(|id| !id.is_empty())
    }

    /// Saves a machine token as Terminus does.
    pub(super) fn save_token(&self, token: &str, email: &str) -> Result<(), ControlError> {
        let Some(dir) = &self.config.cache_dir else { return Ok(()) };
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_@.".contains(c) { c } else { '-' };
        let name: String = email.chars().map(plain).collect();
        let text = Zeroizing::new(json!({ "token": token, "email": email, "date": now() }).to_string());
        write_private(&dir.join("tokens"), &name, text.as_bytes())
            .map_err(|e| ControlError::NotSaved { source: Arc::new(e) })
    }

    fn saved_session(&self) -> Option<Session> {
        let text = Zeroizing::new(fs::read(self.config.cache_dir.as_ref()?.join("session")).ok()?);
        let session: Session = serde_json::from_slice(&text).ok()?;
        (session.expires_at >= now() && !session.session.is_empty()).then_some(session)
    }

    fn saved_tokens(&self) -> Vec<SavedToken> {
        let Some(dir) = &self.config.cache_dir else { return Vec::new() };
        let entries = fs::read_dir(dir.join("tokens")).into_iter().flatten().flatten();
        entries.filter_map(|entry| serde_json::from_slice(&Zeroizing::new(fs::read(entry.path()).ok()?)).ok()).collect()
    }

    fn saved_token(&self) -> Result<Zeroizing<String>, ControlError> {
        let mut tokens = self.saved_tokens();
        if let Some(user) = &self.config.user {
            tokens.retain(|token| token.email.eq_ignore_ascii_case(user));
        }
        match tokens.as_slice() {
            [] => Err(ControlError::NotLoggedIn),
            [one] => Ok(one.token.clone()),
            several => Err(ControlError::SeveralAccounts(several.iter().map(|t| t.email.clone()).collect())),
        }
    }

    fn save(&self, session: &Session) -> std::io::Result<()> {
        let Some(dir) = &self.config.cache_dir else { return Ok(()) };
        write_private(dir, "session", &serde_json::to_vec(session).map_err(std::io::Error::other)?)
    }
}

/// Exchanges a machine token for a session.
pub(super) fn log_in(http: &Http, token: &str) -> Result<serde_json::Value, ControlError> {
    let body = json!({ "machine_token": token, "client": "terminus" });
    http.call("POST", "authorize/machine-token", Some(&body), None).map_err(|error| match error {
        // The platform answers 500 to a bad token.
        ControlError::Unauthorized { message, .. }
        | ControlError::Forbidden { message, .. }
        | ControlError::NotFound { message, .. }
        | ControlError::Status { message, status: 400..=500, .. } => ControlError::TokenRefused { message },
        other => other,
    })
}

/// Replaces the file atomically; only its owner may read it.
fn write_private(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    durable::replace(&dir.join(name), |file| file.write_all(bytes)).map(drop)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn login(dir: &Path) -> Login {
        Login::new(ControlConfig { cache_dir: Some(dir.to_owned()), ..ControlConfig::default() })
    }

    #[test]
    fn sessions_and_tokens_of_terminus_are_found() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        assert!(!login(dir.path()).has_credentials());
        write_private(dir.path(), "session", br#"{"session":"s","expires_at":1,"user_id":"u"}"#).expect("written");
        assert!(login(dir.path()).saved_session().is_none(), "expired");
        let text = format!(r#"{{"session":"s","expires_at":{},"user_id":"u"}}"#, now() + 60);
        write_private(dir.path(), "session", text.as_bytes()).expect("written");
        assert!(login(dir.path()).saved_session().is_some());
        let mode = fs::metadata(dir.path().join("session")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let tokens = dir.path().join("tokens");
        write_private(&tokens, "a@x", br#"{"token":"A","email":"a@x","date":1}"#).expect("written");
        assert_eq!(*login(dir.path()).saved_token().expect("the only one"), "A");
        write_private(&tokens, "b@x", br#"{"token":"B","email":"b@x","date":1}"#).expect("written");
        assert!(matches!(login(dir.path()).saved_token(), Err(ControlError::SeveralAccounts(_))));
        write_private(&tokens, "c@x", b"nonsense").expect("written");
        let mut chosen = login(dir.path());
        chosen.config.user = Some("b@x".into());
        assert_eq!(*chosen.saved_token().expect("chosen"), "B");
    }
}
