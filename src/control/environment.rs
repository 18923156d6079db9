//! Environments: what they are for, how their code may be changed, and what is uncommitted there.

use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use super::error::ControlError;
use super::json::{optional, truthy};

/// How code may be changed on Dev and multidevs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectionMode {
    Sftp,
    Git,
}

impl ConnectionMode {
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "sftp" => Some(Self::Sftp),
            "git" => Some(Self::Git),
            _ => None,
        }
    }
}

impl fmt::Display for ConnectionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sftp => "sftp",
            Self::Git => "git",
        })
    }
}

/// The role of an environment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvKind {
    Dev,
    Multidev,
    Test,
    Live,
}

impl EnvKind {
    pub fn of(name: &str) -> Self {
        match name {
            "dev" => Self::Dev,
            "test" => Self::Test,
            "live" => Self::Live,
            _ => Self::Multidev,
        }
    }

    /// Whether code can be changed here in any mode.
    pub fn takes_code(self) -> bool {
        matches!(self, Self::Dev | Self::Multidev)
    }
}

/// One environment, as the API sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub mode: ConnectionMode,
    pub target_commit: Option<String>,
    /// The uncommitted paths in the same answer; the list can be stale.
    pub diffstat: Diffstat,
    /// Whether code was deployed to it; `None`: the API does not say.
    pub initialized: Option<bool>,
    /// Domain below which the platform serves it.
    pub dns_zone: Option<String>,
    /// The password that visitors of the web site need; no lock on the code.
    pub lock: Option<Lock>,
}

/// See [`Environment::lock`]. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Lock {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

impl fmt::Debug for Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock(…)")
    }
}

/// One uncommitted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    pub path: String,
    /// Git's letter: M, A, D, …
    pub status: String,
    /// Added lines; text, because binary files have `-`.
    pub additions: String,
    /// Deleted lines, likewise.
    pub deletions: String,
}

/// The uncommitted paths, in the API's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diffstat(pub Vec<FileDiff>);

impl Environment {
    pub fn from_json(value: &Value) -> Result<Self, ControlError> {
        if !value.is_object() {
            return Err(ControlError::malformed("the environment", "not an object"));
        }
        // Missing on Test and Live, which have no mode; they count as Git.
        let sftp = truthy(value.get("on_server_development")).unwrap_or(false);
        Ok(Self {
            mode: if sftp { ConnectionMode::Sftp } else { ConnectionMode::Git },
            target_commit: value.get("target_commit").and_then(Value::as_str).map(str::to_owned),
            diffstat: value.get("diffstat").map(Diffstat::from_json).unwrap_or_default(),
            // The public API names it differently.
            initialized: truthy(value.get("is_initialized").or_else(|| value.get("initialized"))),
            dns_zone: Some(optional(value, "dns_zone")).filter(|zone| !zone.is_empty()),
            lock: Lock::from_json(value.get("lock")),
        })
    }
}

impl Lock {
    fn from_json(value: Option<&Value>) -> Option<Self> {
        let value = value.filter(|lock| truthy(lock.get("locked")).unwrap_or(false))?;
        let password = Zeroizing::new(optional(value, "password"));
        Some(Self { user: optional(value, "username"), password })
    }
}

impl Diffstat {
    /// Decodes an object keyed by path; an empty list or null means no uncommitted path.
    pub fn from_json(value: &Value) -> Self {
        let Some(paths) = value.as_object() else { return Self::default() };
        let count = |entry: &Value, field: &str| match entry.get(field) {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(n)) => n.to_string(),
            _ => "-".into(),
        };
        let files = paths.iter().map(|(path, entry)| FileDiff {
            path: path.clone(),
            status: Some(optional(entry, "status")).filter(|s| !s.is_empty()).unwrap_or_else(|| "M".into()),
            additions: count(entry, "additions"),
            deletions: count(entry, "deletions"),
        });
        Self(files.collect())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{Commit, Workflow};
    use serde_json::json;

    #[test]
    fn environments_of_every_vintage() {
        let dev = json!({"on_server_development": true, "target_commit": "abc",
            "diffstat": {"a.php": {"status": "D", "additions": "0", "deletions": "385"}, "b": {"additions": 3}}});
        let dev = Environment::from_json(&dev).expect("decodes");
        assert_eq!(dev.mode, ConnectionMode::Sftp);
        assert_eq!((dev.diffstat.0[0].status.as_str(), dev.diffstat.0[0].deletions.as_str()), ("D", "385"));
        assert_eq!((dev.diffstat.0[1].status.as_str(), dev.diffstat.0[1].additions.as_str()), ("M", "3"));
        let test = Environment::from_json(&json!({"target_ref": "x", "diffstat": []})).expect("decodes");
        assert_eq!((test.mode, test.diffstat.len(), test.initialized), (ConnectionMode::Git, 0, None));
        assert!(Environment::from_json(&json!("a string")).is_err());
    }

    fn json() -> impl proptest::strategy::Strategy<Value = Value> {
        use proptest::prelude::*;
        let word = prop_oneof![
            Just("id"),
            Just("on_server_development"),
            Just("diffstat"),
            Just("target_commit"),
            Just("type"),
            Just("result"),
            Just("finished_at"),
            Just("hash"),
            Just("deletions"),
            Just("site"),
            Just("x")
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::vec((word.clone(), inner), 0..6)
                    .prop_map(|pairs| pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
            ]
        })
    }

    proptest::proptest! {
        #[test]
        fn any_json_is_an_answer_or_an_error(value in json()) {
            let _ = Environment::from_json(&value);
            let _ = Workflow::from_json(&value);
            let _ = Diffstat::from_json(&value);
            let _ = Commit::list(&value);
        }
    }
}
