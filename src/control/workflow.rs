//! Workflows, the platform's jobs, and how they end.

use serde_json::Value;

use super::error::ControlError;
use super::json::{optional, text};

/// A job of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workflow {
    pub id: String,
    /// The API's name of the kind of job, such as `sync_code`; empty if it is not said.
    pub kind: String,
    pub environment: Option<String>,
    pub description: String,
    /// `None` while it runs.
    pub outcome: Option<Outcome>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Succeeded,
    /// The platform's own text.
    Failed(String),
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
            kind: optional(value, "type"),
            environment: environment.map(str::to_owned),
            description: words(&Value::from(running.unwrap_or("a workflow"))).unwrap_or_default(),
            outcome,
        })
    }

    pub fn list(value: &Value) -> Vec<Self> {
        value.as_array().into_iter().flatten().filter_map(|one| Self::from_json(one).ok()).collect()
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
}
