//! The history of an environment.

use serde_json::Value;

use super::error::ControlError;
use super::json::{optional, text};

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

impl Commit {
    pub fn list(value: &Value) -> Result<Vec<Self>, ControlError> {
        let Some(all) = value.as_array() else {
            return Err(ControlError::malformed("the log", "not a list"));
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
