//! Sessions and tokens, shared with Terminus: the file `session` is the answer to a login, `tokens/EMAIL` a saved token.

use std::fs;
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::json;
use zeroize::Zeroizing;

use super::config::ControlConfig;
use super::error::ControlError;
use super::http::Http;
use super::session::{Session, now};
use crate::durable;

/// Life of a Personal Access Token (seconds).
const TOKEN_LIFE: i64 = 90 * 86_400;
/// How long before its end a token is reported (seconds).
const NEAR_END: i64 = 14 * 86_400;

#[derive(Deserialize)]
struct SavedToken {
    token: Zeroizing<String>,
    #[serde(default)]
    email: String,
    /// When it was saved; seconds since the epoch.
    #[serde(default)]
    date: serde_json::Value,
}

/// A token to log in with.
pub(super) struct Token {
    pub(super) secret: Zeroizing<String>,
    /// Email of its account; empty for a token that was given for this run.
    pub(super) email: String,
}

pub(super) struct Login {
    config: ControlConfig,
    session: Option<Session>,
    /// Email of the account that the process is logged in to; with several saved tokens it says which one renews.
    account: Option<String>,
}

impl Login {
    pub(super) fn new(config: ControlConfig) -> Self {
        Self { config, session: None, account: None }
    }

    pub(super) fn has_credentials(&self) -> bool {
        self.config.token.is_some() || self.saved_session().is_some() || !self.saved_tokens().is_empty()
    }

    /// The session that is in use, or that Terminus saved, unless its end is near.
    pub(super) fn current(&mut self) -> Option<Zeroizing<String>> {
        if self.session.as_ref().is_none_or(|session| !session.is_active()) {
            self.session = if self.config.token.is_some() { None } else { self.saved_session() };
        }
        let session = self.session.as_ref()?;
        if !session.email.is_empty() {
            self.account = Some(session.email.clone());
        }
        Some(session.secret.clone())
    }

    /// A session that was refused is not used again.
    pub(super) fn forget(&mut self, secret: &str) {
        let is_it = |session: &Session| session.secret.as_str() == secret;
        if self.session.as_ref().is_some_and(is_it) {
            self.session = None;
        }
    }

    /// Whether several tokens are saved and it is not known which one the session comes from: Terminus does not note it.
    pub(super) fn is_anonymous(&self) -> bool {
        let chosen = self.config.token.is_some() || self.config.user.is_some() || self.account.is_some();
        !chosen && self.session.is_some() && self.saved_tokens().len() > 1
    }

    /// Notes the account of the session.
    pub(super) fn identified(&mut self, email: String) {
        self.account = Some(email);
    }

    /// The token to log in with.
    pub(super) fn token(&self) -> Result<Token, ControlError> {
        if let Some(token) = &self.config.token {
            return Ok(Token { secret: token.clone(), email: String::new() });
        }
        let mut tokens = self.saved_tokens();
        if let Some(user) = self.config.user.as_ref().or(self.account.as_ref()) {
            tokens.retain(|token| token.email.eq_ignore_ascii_case(user));
        }
        match tokens.as_slice() {
            [] => Err(ControlError::NotLoggedIn),
            [one] => Ok(Token { secret: one.token.clone(), email: one.email.clone() }),
            several => Err(ControlError::SeveralAccounts(several.iter().map(|t| t.email.clone()).collect())),
        }
    }

    /// A sentence about saved tokens that were saved so long ago that they end soon, or have ended.
    pub(super) fn token_warning(&self) -> Option<String> {
        if self.config.token.is_some() {
            return None;
        }
        let age = |token: &SavedToken| Some(now() - token.date.as_i64()?);
        let old = self.saved_tokens().into_iter().filter_map(|token| Some((age(&token)?, token.email)));
        let (age, email) = old.filter(|(age, _)| *age >= TOKEN_LIFE - NEAR_END).max()?;
        let days = age / 86_400;
        Some(format!(
            "the token of {email} was saved {days} days ago; Personal Access Tokens expire after 90 days: create a new one and run `pantheonfs login`"
        ))
    }

    /// Adopts the answer to a login, with the platform's time in it, and saves it for Terminus.
    pub(super) fn keep(
        &mut self,
        answer: &serde_json::Value,
        email: &str,
        platform_now: Option<i64>,
    ) -> Result<Zeroizing<String>, ControlError> {
        let mut session = Session::from_json(answer)?;
        if let Some(platform_now) = platform_now {
            session.given_at(platform_now);
        }
        if !email.is_empty() {
            session.email = email.to_owned();
            self.account = Some(email.to_owned());
        }
        if self.config.token.is_none()
            && let Err(error) = self.save(&session)
        {
            log::info!("the API session could not be saved: {error}");
        }
        let secret = session.secret.clone();
        self.session = Some(session);
        Ok(secret)
    }

    /// The id of the account that is logged in.
    pub(super) fn user_id(&mut self) -> Option<String> {
        self.current()?;
        self.session.as_ref().map(|session| session.user_id.clone()).filter(|id| !id.is_empty())
    }

    /// Saves a token as Terminus does.
    pub(super) fn save_token(&mut self, token: &str, email: &str) -> Result<(), ControlError> {
        self.account = Some(email.to_owned());
        let Some(dir) = self.tokens_dir() else { return Ok(()) };
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_@.".contains(c) { c } else { '-' };
        let name: String = email.chars().map(plain).collect();
        let text = Zeroizing::new(json!({ "token": token, "email": email, "date": now() }).to_string());
        write_private(&dir, &name, text.as_bytes()).map_err(|e| ControlError::NotSaved { source: Arc::new(e) })
    }

    fn tokens_dir(&self) -> Option<PathBuf> {
        self.config.tokens_dir.clone().or_else(|| Some(self.config.cache_dir.as_ref()?.join("tokens")))
    }

    fn saved_session(&self) -> Option<Session> {
        let text = Zeroizing::new(fs::read(self.config.cache_dir.as_ref()?.join("session")).ok()?);
        let session = Session::from_json(&serde_json::from_slice(&text).ok()?).ok()?;
        session.is_active().then_some(session)
    }

    fn saved_tokens(&self) -> Vec<SavedToken> {
        let Some(dir) = self.tokens_dir() else { return Vec::new() };
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| serde_json::from_slice(&Zeroizing::new(fs::read(entry.path()).ok()?)).ok()).collect()
    }

    fn save(&self, session: &Session) -> std::io::Result<()> {
        let Some(dir) = &self.config.cache_dir else { return Ok(()) };
        let text = Zeroizing::new(session.to_json().to_string());
        write_private(dir, "session", text.as_bytes())
    }
}

/// Exchanges a token for a session. Only 401 and 403 say that the token is bad: 429 and 5xx pass.
pub(super) fn log_in(http: &Http, token: &str) -> Result<serde_json::Value, ControlError> {
    // The platform is going to refuse clients that do not say that they can renew short sessions.
    let body = json!({ "machine_token": token, "client": "terminus", "is_short_ttl_capable": true });
    http.call("POST", "authorize/machine-token", Some(&body), None).map_err(|error| match error {
        ControlError::Unauthorized { message, .. } | ControlError::Forbidden { message, .. } => {
            ControlError::TokenRefused { message }
        }
        other => other,
    })
}

/// Replaces the file atomically; only its owner may read it.
pub(super) fn write_private(dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    durable::replace(&dir.join(name), |file| file.write_all(bytes)).map(drop)
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
        let text = format!(r#"{{"session":"s","expires_at":{},"user_id":"u"}}"#, now() + 90);
        write_private(dir.path(), "session", text.as_bytes()).expect("written");
        assert!(login(dir.path()).saved_session().is_some());
        let mode = fs::metadata(dir.path().join("session")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let tokens = dir.path().join("tokens");
        write_private(&tokens, "a@x", br#"{"token":"A","email":"a@x","date":1}"#).expect("written");
        assert_eq!(*login(dir.path()).token().expect("the only one").secret, "A");
        write_private(&tokens, "b@x", br#"{"token":"B","email":"b@x","date":1}"#).expect("written");
        assert!(matches!(login(dir.path()).token(), Err(ControlError::SeveralAccounts(_))));
        write_private(&tokens, "c@x", b"nonsense").expect("written");
        let mut chosen = login(dir.path());
        chosen.config.user = Some("b@x".into());
        assert_eq!(*chosen.token().expect("chosen").secret, "B");
    }

    #[test]
    fn the_token_that_logged_in_is_remembered_and_its_end_is_said() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let other = tempfile::tempdir().expect("a temporary directory");
        let tokens = other.path();
        let saved = |email: &str, days: i64| json!({ "token": email, "email": email, "date": now() - days * 86_400 });
        for (email, days) in [("a@x", 1), ("b@x", 80)] {
            write_private(tokens, email, saved(email, days).to_string().as_bytes()).expect("written");
        }
        let config = ControlConfig {
            cache_dir: Some(dir.path().to_owned()),
            tokens_dir: Some(tokens.to_owned()),
            ..ControlConfig::default()
        };
        let mut login = Login::new(config.clone());
        assert!(matches!(login.token(), Err(ControlError::SeveralAccounts(_))));
        login.keep(&json!({ "session": "s", "user_id": "u" }), "b@x", None).expect("kept");
        assert_eq!(*login.token().expect("remembered").secret, "b@x");
        // Another process knows it from the file.
        let mut later = Login::new(config.clone());
        assert!(later.current().is_some() && !later.is_anonymous());
        assert_eq!(*later.token().expect("remembered").secret, "b@x");
        // Terminus' own file names no user.
        write_private(dir.path(), "session", br#"{"session":"t","user_id":"u"}"#).expect("written");
        let mut anonymous = Login::new(config);
        assert!(anonymous.current().is_some() && anonymous.is_anonymous());
        let warning = anonymous.token_warning().expect("near its end");
        assert!(warning.contains("b@x was saved 80 days ago") && warning.contains("90 days"), "{warning}");
    }
}
