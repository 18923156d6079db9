//! Jobs of the platform: they take a while, then they have done something or say why not.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::site;
use super::state::{EMAIL, Shared, random_uuid};
use crate::control::ConnectionMode;

/// How long a job takes here; the platform's take seconds to tens of seconds.
const DURATION: Duration = Duration::from_millis(300);
/// And how long with the quirk `slow`.
const SLOW: Duration = Duration::from_secs(4);
/// What the reason of an aborted job begins with: the platform sends an object then.
const ABORTED: &str = "aborted: ";

/// Tasks of a job.
const TASKS: u128 = 4;

/// A job, running or done.
pub(super) struct Workflow {
    id: String,
    kind: String,
    environment: String,
    started: Instant,
    lasting: Duration,
    result: Option<Result<(), String>>,
}

/// Starts a job and returns what the platform answers.
pub(super) fn start(shared: &Arc<Shared>, environment: &str, kind: &str, params: Value) -> std::io::Result<Value> {
    let (at, of) = (environment.to_owned(), kind.to_owned());
    let lasting = if shared.habit_is("workflow", "slow") { SLOW } else { DURATION };
    run(shared, environment, kind, lasting, move |shared| carry_out(shared, &at, &of, &params))
}

/// A job that takes its time and does nothing.
pub(super) fn pretend(
    shared: &Arc<Shared>,
    environment: &str,
    kind: &str,
    lasting: Duration,
) -> std::io::Result<Value> {
    run(shared, environment, kind, lasting, |_| Ok(()))
}

fn run(
    shared: &Arc<Shared>,
    environment: &str,
    kind: &str,
    lasting: Duration,
    work: impl FnOnce(&Shared) -> Result<(), String> + Send + 'static,
) -> std::io::Result<Value> {
    let workflow = Workflow {
        id: random_uuid()?,
        kind: kind.to_owned(),
        environment: environment.to_owned(),
        started: Instant::now(),
        lasting,
        result: None,
    };
    let (answer, id) = (describe(shared, &workflow), workflow.id.clone());
    shared.lock().workflows.push(workflow);
    let shared = shared.clone();
    std::thread::Builder::new().name("sim-workflow".into()).spawn(move || {
        std::thread::sleep(lasting);
        let result = work(&shared);
        let mut state = shared.lock();
        if let Some(workflow) = state.workflows.iter_mut().find(|workflow| workflow.id == id) {
            workflow.result = Some(result);
        }
    })?;
    Ok(answer)
}

fn carry_out(shared: &Shared, environment: &str, kind: &str, params: &Value) -> Result<(), String> {
    if shared.habit_is("workflow", "fail") {
        return Err("the code could not be converged: build_status is building".into());
    }
    if shared.habit_is("workflow", "abort") {
        return Err(format!("{ABORTED}another job of the site has precedence"));
    }
    if shared.habit_is("build", "composer") && kind == "enable_on_server_development" {
        return Err("build_status is building; try again when the build is done".into());
    }
    let text = |field: &str| params.get(field).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    match kind {
        "enable_on_server_development" => set_mode(shared, environment, ConnectionMode::Sftp),
        "enable_git_mode" => set_mode(shared, environment, ConnectionMode::Git),
        "commit_and_push_on_server_changes" => {
            let (message, name, email) = (text("message"), text("committer_name"), text("committer_email"));
            site::commit(shared, environment, &message, &name, &email).map(drop).map_err(|e| e.to_string())
        }
        other => Err(format!("unknown workflow type {other}")),
    }
}

/// Switches at once, as a teammate's job does when it ends. Git mode deletes what is uncommitted.
pub(super) fn set_mode(shared: &Shared, environment: &str, mode: ConnectionMode) -> Result<(), String> {
    {
        let mut state = shared.lock();
        let env = state.environments.get_mut(environment).ok_or("no such environment")?;
        if env.mode == mode {
            return Ok(());
        }
        env.mode = mode;
    }
    if mode == ConnectionMode::Git {
        site::discard(shared, environment).map_err(|e| e.to_string())?;
    }
    Ok(())
}

pub(super) fn find(shared: &Shared, id: &str) -> Option<Value> {
    let state = shared.lock();
    state.workflows.iter().find(|workflow| workflow.id == id).map(|workflow| describe(shared, workflow))
}

/// Newest first.
pub(super) fn list(shared: &Shared) -> Value {
    let state = shared.lock();
    Value::Array(state.workflows.iter().rev().map(|workflow| describe(shared, workflow)).collect())
}

fn describe(shared: &Shared, workflow: &Workflow) -> Value {
    let (result, reason) = match &workflow.result {
        None => (Value::Null, Value::Null),
        Some(Ok(())) => (json!("succeeded"), Value::Null),
        Some(Err(reason)) => match reason.strip_prefix(ABORTED) {
            Some(reason) => (json!("aborted"), json!({ "message": reason })),
            None => (json!("failed"), json!(reason)),
        },
    };
    let done = workflow.result.is_some();
    let share = TASKS * workflow.started.elapsed().as_millis() / workflow.lasting.as_millis().max(1);
    let step = if done { TASKS } else { (share + 1).min(TASKS) };
    json!({
        "id": workflow.id,
        "type": workflow.kind,
        "environment": workflow.environment,
        "environment_id": workflow.environment,
        "site_id": shared.site_id,
        "user_id": shared.user_id,
        "user_email": EMAIL,
        "description": format!("{} on \"{}\"", workflow.kind, workflow.environment),
        "active_description": format!("Running {} on \"{}\"", workflow.kind, workflow.environment),
        "phase": if done { "finished" } else { "started" },
        "step": u64::try_from(step).unwrap_or(1),
        "number_of_tasks": u64::try_from(TASKS).unwrap_or(1),
        "result": result,
        "reason": reason,
        "final_task": if done { json!({ "result": result, "reason": reason, "messages": {} }) } else { Value::Null },
        "run_time": workflow.started.elapsed().as_secs_f64(),
    })
}
