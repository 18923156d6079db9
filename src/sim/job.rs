//! One workflow of the simulated platform, as the API describes it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Prefix of the reason of an aborted workflow, whose reason the API wraps in an object.
pub(super) const ABORTED: &str = "aborted: ";
/// Tasks of a workflow.
const TASKS: u128 = 4;

/// Ids of tasks in a description: with them it is as long as the platform's, about 4 kB.
const TASK_IDS: u32 = 75;
/// Finished workflows that a list has besides those of this run, as on the platform.
pub(super) const HISTORY: usize = 100;
/// Their types in turn.
const HISTORY_KINDS: [&str; 9] = [
    "do_export",
    "clone_database",
    "clone_files",
    "clear_cache",
    "deploy",
    "sync_code",
    "commit_and_push_on_server_changes",
    "restore_database",
    "scale_environment",
];

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
    /// A workflow of the past.
    pub(super) fn past(number: usize) -> Self {
        Self {
            id: format!("{number:08x}-1111-4111-8111-111111111111"),
            kind: HISTORY_KINDS[number % HISTORY_KINDS.len()].to_owned(),
            environment: "dev".into(),
            started: Instant::now(),
            lasting: Duration::ZERO,
            result: Some(Ok(())),
        }
    }

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
            "task_ids": (0..TASK_IDS).map(|n| format!("{n:08x}-0000-4000-8000-{}", &self.id[..12])).collect::<Vec<_>>(),
            "trace_id": self.id,
            "role": "owner",
            "has_operation_log_output": false,
            "run_time": self.started.elapsed().as_secs_f64(),
        })
    }
}
