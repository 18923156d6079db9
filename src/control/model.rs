//! What the API's answers mean. Decoding is tolerant where recordings differ and strict where a wrong guess would hurt.

use std::fmt;

use serde_json::Value;
use zeroize::Zeroizing;

use super::ControlError;

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

/// What an environment is for.
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

/// A site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    pub id: String,
    pub name: String,
    pub framework: String,
    pub frozen: bool,
}

/// One environment, as the API sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    pub mode: ConnectionMode,
    pub target_commit: Option<String>,
    /// The list embedded in the answer, which can be stale.
    pub diffstat: Diffstat,
    /// `None`: not told.
    pub initialized: Option<bool>,
    /// Domain below which the platform serves it.
    pub dns_zone: Option<String>,
    /// The password that visitors of the web site need; no lock on the code.
    pub lock: Option<Lock>,
}

/// See [`Environment::lock`]. Shown nowhere.
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

/// What the platform says about one uncommitted path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileDiff {
    pub path: String,
    /// Git's letter: M, A, D, …
    pub status: String,
    /// Lines; text, because binary files have `-`.
    pub additions: String,
    pub deletions: String,
}

/// The uncommitted paths, in the API's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diffstat(pub Vec<FileDiff>);

/// A commit of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    pub hash: String,
    pub author: String,
    pub email: String,
    /// As the API says it: `2016-08-18T23:31:15`, presumably UTC.
    pub time: String,
    pub message: String,
    /// Environments that have it.
    pub labels: Vec<String>,
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    pub id: String,
    pub email: String,
    pub full_name: String,
}

/// A job of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    pub id: String,
    pub environment: Option<String>,
    pub description: String,
    /// `None` while it runs.
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    /// The platform's own words.
    Failed(String),
}

pub(super) fn text(value: &Value, field: &str, what: &str) -> Result<String, ControlError> {
    match value.get(field).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(ControlError::Malformed { what: what.into(), detail: format!("no '{field}'") }),
    }
}

fn optional(value: &Value, field: &str) -> String {
    value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// PHP and JSON disagree about what is true.
pub(super) fn truthy(value: Option<&Value>) -> Option<bool> {
    match value? {
        Value::Bool(b) => Some(*b),
        Value::Number(n) => Some(n.as_f64() != Some(0.0)),
        Value::String(s) => Some(!matches!(s.as_str(), "" | "0" | "false")),
        Value::Null => None,
        Value::Array(_) | Value::Object(_) => Some(true),
    }
}

impl Site {
    pub fn from_json(value: &Value) -> Result<Self, ControlError> {
        Ok(Self {
            id: text(value, "id", "the site")?,
            name: optional(value, "name"),
            framework: optional(value, "framework"),
            frozen: truthy(value.get("frozen")).unwrap_or(false),
        })
    }
}

impl Site {
    /// The sites of a page of memberships, and the id that the next page starts after.
    pub fn memberships(page: &Value) -> (Vec<Self>, Option<String>) {
        let members = || page.as_array().into_iter().flatten();
        let site = |member: &Value| {
            let site = member.get("site")?;
            let id = optional(member, "site_id");
            let id = if id.is_empty() { optional(site, "id") } else { id };
            let frozen = truthy(site.get("frozen")).unwrap_or(false);
            let archived = truthy(member.get("archived")).unwrap_or(false);
            let (name, framework) = (optional(site, "name"), optional(site, "framework"));
            (!archived && !id.is_empty()).then_some(Self { id, name, framework, frozen })
        };
        (members().filter_map(site).collect(), members().last().map(|member| optional(member, "id")))
    }
}

impl Environment {
    pub fn from_json(value: &Value) -> Result<Self, ControlError> {
        if !value.is_object() {
            return Err(ControlError::Malformed { what: "the environment".into(), detail: "not an object".into() });
        }
        // Missing on Test and Live, which have no mode; they count as Git.
        let sftp = truthy(value.get("on_server_development")).unwrap_or(false);
        Ok(Self {
            mode: if sftp { ConnectionMode::Sftp } else { ConnectionMode::Git },
            target_commit: value.get("target_commit").and_then(Value::as_str).map(str::to_owned),
            diffstat: value.get("diffstat").map(Diffstat::from_json).unwrap_or_default(),
            // The public API has its own word for it.
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
    /// An object keyed by path; nothing pending may also come as an empty list or null.
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

impl Workflow {
    pub fn from_json(value: &Value) -> Result<Self, ControlError> {
        let outcome = match value.get("result").and_then(Value::as_str) {
            None => None,
            Some("succeeded") => Some(Outcome::Succeeded),
            Some(_) => Some(Outcome::Failed(failure(value))),
        };
        let environment = ["environment", "environment_id"].iter().find_map(|field| value.get(field)?.as_str());
        let running = ["active_description", "description", "type"].iter().find_map(|field| value.get(field)?.as_str());
        Ok(Self {
            id: text(value, "id", "the workflow")?,
            environment: environment.map(str::to_owned),
            description: words(&Value::from(running.unwrap_or("a workflow"))).unwrap_or_default(),
            outcome,
        })
    }

    pub fn list(value: &Value) -> Vec<Self> {
        value.as_array().into_iter().flatten().filter_map(|one| Self::from_json(one).ok()).collect()
    }
}

impl Commit {
    pub fn list(value: &Value) -> Result<Vec<Self>, ControlError> {
        let Some(all) = value.as_array() else {
            return Err(ControlError::Malformed { what: "the log".into(), detail: "not a list".into() });
        };
        let commit = |one: &Value| {
            let labels = one.get("labels").and_then(Value::as_array);
            Ok(Self {
                hash: text(one, "hash", "a commit")?,
                author: optional(one, "author"),
                email: optional(one, "email"),
                time: optional(one, "datetime"),
                message: optional(one, "message").trim_end().to_owned(),
                labels: labels.into_iter().flatten().filter_map(|l| l.as_str().map(str::to_owned)).collect(),
            })
        };
        all.iter().map(commit).collect()
    }
}

impl Profile {
    pub fn from_json(value: &Value) -> Result<Self, ControlError> {
        Ok(Self {
            id: text(value, "id", "the account")?,
            email: optional(value, "email"),
            full_name: value
                .pointer("/profile/full_name")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .trim()
                .to_owned(),
        })
    }
}

/// The last task's reason, else its last message, else the workflow's own reason. Each may be text or an object.
fn failure(workflow: &Value) -> String {
    let task = workflow.get("final_task").unwrap_or(&Value::Null);
    let last_message = || {
        let messages = task.get("messages")?.as_object()?;
        messages.values().next_back()?.get("message").and_then(words)
    };
    let reason = task.get("reason").and_then(words).or_else(last_message);
    reason.or_else(|| workflow.get("reason").and_then(words)).unwrap_or_else(|| "the workflow failed".into())
}

fn words(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Object(object) => match object.get("message").or_else(|| object.get("reason")) {
            Some(inner) => return words(inner),
            None => value.to_string(),
        },
        _ => return None,
    };
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(500).collect();
    Some(text).filter(|t| !t.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
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

    #[test]
    fn a_workflow_fails_in_the_platforms_own_words() {
        let of = |value| Workflow::from_json(&value).expect("decodes").outcome;
        assert_eq!(of(json!({"id": "1", "result": null})), None);
        assert_eq!(of(json!({"id": "1", "result": "succeeded"})), Some(Outcome::Succeeded));
        let failed = |text: &str| Some(Outcome::Failed(text.into()));
        let task = json!({"id": "1", "result": "failed", "final_task": {"reason": "build_status is building"}});
        assert_eq!(of(task), failed("build_status is building"));
        let object = json!({"id": "1", "result": "aborted", "reason": {"message": "another one runs"}});
        assert_eq!(of(object), failed("another one runs"));
        let messages = json!({"id": "1", "result": "failed", "final_task": {"reason": null,
            "messages": {"t1": {"message": "first"}, "t2": {"message": "last"}}}});
        assert_eq!(of(messages), failed("last"));
        assert_eq!(of(json!({"id": "1", "result": "failed"})), failed("the workflow failed"));
        assert!(Workflow::from_json(&json!({})).is_err());
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
