//! One workflow of the simulated platform, as the API describes it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Prefix of the reason of an aborted workflow, whose reason the API wraps in an object.
pub(super) const ABORTED: &str = "aborted: ";
/// Tasks of a workflow.
const TASKS: u128 = 4;

/// A workflow, running or done.
pub(super) struct Workflow {
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) environment: String,
    pub(super) started: Instant,
    /// How long it takes.
    pub(super) lasting: Duration,
    /// `None` while it runs.
    pub(super) result: Option<Result<(), String>>,
}

impl Workflow {
    /// The API's description; `account`: the ids of site and user, and the user's email.
    pub(super) fn describe(&self, [site_id, user_id, email]: [&str; 3]) -> Value {
        let (result, reason) = match &self.result {
            None => (Value::Null, Value::Null),
            Some(Ok(())) => (json!("succeeded"), Value::Null),
            Some(Err(reason)) => match reason.strip_prefix(ABORTED) {
                Some(reason) => (json!("aborted"), json!({ "message": reason })),
                None => (json!("failed"), json!(reason)),
            },
        };
        let done = self.result.is_some();
        let share = TASKS * self.started.elapsed().as_millis() / self.lasting.as_millis().max(1);
        let step = if done { TASKS } else { (share + 1).min(TASKS) };
        json!({
            "id": self.id,
            "type": self.kind,
            "environment": self.environment,
            "environment_id": self.environment,
            "site_id": site_id,
            "user_id": user_id,
            "user_email": email,
            "description": format!("{} on \"{}\"", self.kind, self.environment),
            "active_description": format!("Running {} on \"{}\"", self.kind, self.environment),
            "phase": if done { "finished" } else { "started" },
            "step": u64::try_from(step).unwrap_or(1),
            "number_of_tasks": u64::try_from(TASKS).unwrap_or(1),
            "result": result,
            "reason": reason,
            "final_task": if done { json!({ "result": result, "reason": reason, "messages": {} }) } else { Value::Null },
            "run_time": self.started.elapsed().as_secs_f64(),
        })
    }
}
