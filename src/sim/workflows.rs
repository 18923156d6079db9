//! Workflows of the platform: each runs for a while, then takes effect or fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::job::{ABORTED, HISTORY, Workflow};
use super::keys::random_uuid;
use super::site;
use super::state::{EMAIL, Shared};
use crate::control::ConnectionMode;

/// How long a workflow takes here; on the platform it takes seconds to tens of seconds.
const DURATION: Duration = Duration::from_millis(300);
/// How long it takes with the quirk `slow`.
const SLOW: Duration = Duration::from_secs(4);

/// How long the code is synchronized after a commit; recorded on the platform: 7 s.
const SYNC: Duration = Duration::from_secs(2);
/// The same with the quirk `sync=long`.
const LONG_SYNC: Duration = Duration::from_secs(8);

/// Starts a workflow and returns the answer of the API.
pub(super) fn start(shared: &Arc<Shared>, environment: &str, kind: &str, params: Value) -> std::io::Result<Value> {
    let (at, of) = (environment.to_owned(), kind.to_owned());
    let lasting = if shared.quirk_is("workflow", "slow") { SLOW } else { DURATION };
    run(shared, environment, kind, lasting, move |shared| carry_out(shared, &at, &of, &params))
}

/// Starts a workflow that takes `lasting` and changes nothing.
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
    work: impl FnOnce(&Arc<Shared>) -> Result<(), String> + Send + 'static,
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

/// Commits. The environment goes on showing the commit before it until its code is synchronized.
fn commit(shared: &Arc<Shared>, environment: &str, [message, name, email]: [&str; 3]) -> std::io::Result<()> {
    let sync = shared.lock().quirks.get("sync");
    let show = |commit: Option<String>| {
        if let Some(env) = shared.lock().environments.get_mut(environment) {
            env.deployed = commit;
        }
    };
    if sync != "none" {
        show(Some(site::deployed(shared, environment)?));
    }
    site::commit(shared, environment, message, name, email)?;
    let lasting = match sync {
        "short" => SYNC,
        "long" => LONG_SYNC,
        _ => return Ok(()),
    };
    let at = environment.to_owned();
    run(shared, environment, "sync_code", lasting, move |shared| {
        if let Some(env) = shared.lock().environments.get_mut(&at) {
            env.deployed = None;
        }
        Ok(())
    })
    .map(drop)
}

fn carry_out(shared: &Arc<Shared>, environment: &str, kind: &str, params: &Value) -> Result<(), String> {
    if shared.quirk_is("workflow", "fail") {
        return Err("the code could not be converged: build_status is building".into());
    }
    if shared.quirk_is("workflow", "abort") {
        return Err(format!("{ABORTED}another job of the site has precedence"));
    }
    if shared.quirk_is("build", "composer") && kind == "enable_on_server_development" {
        return Err("build_status is building; try again when the build is done".into());
    }
    let text = |field: &str| params.get(field).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    match kind {
        "enable_on_server_development" => set_mode(shared, environment, ConnectionMode::Sftp),
        "enable_git_mode" => set_mode(shared, environment, ConnectionMode::Git),
        "commit_and_push_on_server_changes" => {
            let (message, name, email) = (text("message"), text("committer_name"), text("committer_email"));
            commit(shared, environment, [&message, &name, &email]).map_err(|e| e.to_string())
        }
        other => Err(format!("unknown workflow type {other}")),
    }
}

/// Switches the mode at once. A switch to Git mode deletes uncommitted changes.
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
    let past = (0..HISTORY).map(|number| describe(shared, &Workflow::past(number)));
    Value::Array(state.workflows.iter().rev().map(|workflow| describe(shared, workflow)).chain(past).collect())
}

fn describe(shared: &Shared, workflow: &Workflow) -> Value {
    workflow.describe([&shared.site_id, &shared.user_id, EMAIL])
}
