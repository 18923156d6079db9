//! The answer to a login, in every form in which the platform gives it, and Terminus' file of it.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::error::ControlError;
use super::json::optional;

/// A session with less life left is renewed, as Terminus does it (seconds).
const MIN_LIFE: i64 = 60;

/// A session of the API.
pub(super) struct Session {
    pub(super) secret: Zeroizing<String>,
    /// Seconds since the epoch; `None`: the platform does not say, so that only a refusal tells.
    pub(super) expires_at: Option<i64>,
    pub(super) user_id: String,
    /// Email of the account; empty: not known, as Terminus does not note it.
    pub(super) email: String,
    /// When it has to be renewed, where the platform's own time is known, whatever the clock of this machine says.
    renew: Option<Instant>,
}

impl Session {
    /// Short-lived sessions may be named `access_token`.
    pub(super) fn from_json(value: &Value) -> Result<Self, ControlError> {
        let named = |name: &str| Some(optional(value, name)).filter(|text| !text.is_empty());
        let secret = named("session").or_else(|| named("access_token"));
        let missing = || ControlError::malformed("the login's answer", "neither 'session' nor 'access_token'");
        Ok(Self {
            secret: Zeroizing::new(secret.ok_or_else(missing)?),
            expires_at: value.get("expires_at").and_then(time),
            user_id: optional(value, "user_id"),
            email: optional(value, "email"),
            renew: None,
        })
    }

    /// Takes note that the session was given just now. `platform_now`: the platform's time (seconds since the epoch).
    pub(super) fn given_at(&mut self, platform_now: i64) {
        let life = self.expires_at.map(|at| u64::try_from(at.saturating_sub(platform_now)).unwrap_or(0));
        // One that lives for a minute at most serves for half of its life.
        let serves = |life: u64| life.checked_sub(MIN_LIFE.unsigned_abs()).filter(|left| *left > 0).unwrap_or(life / 2);
        self.renew = life.and_then(|life| Instant::now().checked_add(Duration::from_secs(serves(life))));
    }

    /// As Terminus reads it.
    pub(super) fn to_json(&self) -> Value {
        let mut out = json!({ "session": self.secret.as_str(), "user_id": self.user_id, "email": self.email });
        if let Some(at) = self.expires_at {
            out["expires_at"] = json!(at);
        }
        out
    }

    pub(super) fn is_active(&self) -> bool {
        if let Some(renew) = self.renew {
            return Instant::now() < renew;
        }
        self.expires_at.is_none_or(|at| at.saturating_sub(now()) >= MIN_LIFE)
    }
}

/// A time as a number, or as a number or a date in a text.
fn time(value: &Value) -> Option<i64> {
    let whole = |secs: f64| (0.0..1e15).contains(&secs).then_some(secs as i64);
    match value {
        Value::Number(n) => n.as_i64().or_else(|| whole(n.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            let date = || humantime::parse_rfc3339_weak(text).ok()?.duration_since(UNIX_EPOCH).ok();
            text.parse::<f64>().ok().and_then(whole).or_else(|| i64::try_from(date()?.as_secs()).ok())
        }
        _ => None,
    }
}

pub(super) fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_a_sessions_end_is_understood() {
        for (end, expected) in [
            (json!(1_700_000_000), Some(1_700_000_000)),
            (json!(1_700_000_000.75), Some(1_700_000_000)),
            (json!("1700000000"), Some(1_700_000_000)),
            (json!("2023-11-14T22:13:20Z"), Some(1_700_000_000)),
            (json!("soon"), None),
            (json!(null), None),
            (json!([]), None),
        ] {
            let session = Session::from_json(&json!({ "session": "s", "expires_at": end })).expect("decodes");
            assert_eq!(session.expires_at, expected, "{end}");
        }
        let without = Session::from_json(&json!({ "session": "", "access_token": "t" })).expect("decodes");
        assert_eq!((without.secret.as_str(), without.expires_at, without.is_active()), ("t", None, true));
        assert!(Session::from_json(&json!({ "session": null })).is_err());
    }

    #[test]
    fn the_platforms_clock_counts_where_it_is_known() {
        let of = |left: i64, ahead: i64| {
            let platform = now() + ahead;
            let json = json!({ "session": "s", "expires_at": platform + left });
            let mut session = Session::from_json(&json).expect("decodes");
            session.given_at(platform);
            session.is_active()
        };
        for ahead in [-86_400, 0, 86_400] {
            assert!(of(300, ahead) && of(30, ahead), "a session that was just given is used");
            assert!(!of(0, ahead) && !of(-5, ahead) && of(61, ahead));
        }
    }

    #[test]
    fn a_session_is_renewed_before_its_last_minute() {
        let of =
            |left: i64| Session::from_json(&json!({ "session": "s", "expires_at": now() + left })).expect("decodes");
        assert!(of(65).is_active() && !of(55).is_active());
        let again = Session::from_json(&of(65).to_json()).expect("decodes");
        assert!(again.is_active() && again.secret.as_str() == "s");
    }
}
