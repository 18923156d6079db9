//! The control URL: one route for each event that teammates, other programs or failures cause.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::keys::random_hex;
use super::state::{Environment, Shared};
use super::{site, workflows};
use crate::control::ConnectionMode;

type App = State<Arc<Shared>>;
type Answer = Result<Json<Value>, (StatusCode, String)>;

/// Each route with an example of its body and its effect.
const ROUTES: [(&str, &str); 14] = [
    (
        "POST /control/mode",
        r#"{"environment": "dev", "mode": "git"}: a teammate switches the mode; git deletes uncommitted changes"#,
    ),
    ("POST /control/commit", r#"{"environment": "dev", "message": "…"}: a teammate commits all changes"#),
    ("POST /control/job", r#"{"environment": "dev", "kind": "sync_code", "ms": 5000}: a teammate's workflow runs"#),
    ("GET /control/diff", "the uncommitted changes of dev, as git prints them"),
    ("POST /control/habit", r#"{"name": "rename", "value": "refuse"}: sets a quirk"#),
    ("POST /control/rtt", r#"{"ms": 50, "mbit": 0}: latency and bandwidth (0: unlimited) of the link"#),
    ("POST /control/cut", "{}: every SSH connection ends"),
    ("POST /control/stall", r#"{"stalled": true}: the link carries nothing, and no connection ends"#),
    ("POST /control/abandon", "{}: existing connections carry nothing any more and do not end; new connections work"),
    (
        "POST /control/migrate",
        r#"{"environment": "dev", "lose": true, "host_key": true}: the container migrates: the home changes, and every connection ends; lose: uncommitted changes are gone; host_key: the host key changes"#,
    ),
    ("POST /control/expire", "{}: every API session ends"),
    ("POST /control/key", r#"{"key": "ssh-rsa AAAA…"}: accepts another key"#),
    ("POST /control/reset", "{}: the counters start again from zero"),
    (
        "GET /control/counters",
        "SFTP requests, round trips (needs a latency), connections, health checks, SFTP sessions now, most SFTP sessions at once, and calls of the API with the bytes of their answers",
    ),
];

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/control", get(index))
        .route("/control/mode", post(mode))
        .route("/control/commit", post(commit))
        .route("/control/job", post(job))
        .route("/control/habit", post(quirk))
        .route("/control/rtt", post(rtt))
        .route("/control/cut", post(cut))
        .route("/control/stall", post(stall))
        .route("/control/abandon", post(abandon))
        .route("/control/migrate", post(migrate))
        .route("/control/expire", post(expire))
        .route("/control/key", post(key))
        .route("/control/reset", post(reset))
        .route("/control/counters", get(counters))
        .route("/control/diff", get(diff))
        .with_state(shared)
}

fn bad(text: impl Into<String>) -> (StatusCode, String) {
    (StatusCode::BAD_REQUEST, format!("{}\n", text.into()))
}

fn text<'a>(body: &'a Value, field: &str) -> Result<&'a str, (StatusCode, String)> {
    body.get(field).and_then(Value::as_str).ok_or_else(|| bad(format!("\"{field}\" is missing")))
}

fn environment<'a>(shared: &Shared, body: &'a Value) -> Result<&'a str, (StatusCode, String)> {
    let name = text(body, "environment")?;
    let known = shared.lock().environments.contains_key(name);
    if known { Ok(name) } else { Err(bad(format!("no environment '{name}'"))) }
}

async fn index(State(shared): App) -> Json<Value> {
    let routes: serde_json::Map<String, Value> =
        ROUTES.iter().map(|(route, what)| ((*route).to_owned(), json!(what))).collect();
    Json(json!({ "routes": routes, "habits": shared.lock().quirks.describe() }))
}

async fn mode(State(shared): App, Json(body): Json<Value>) -> Answer {
    let env = environment(&shared, &body)?;
    let mode = ConnectionMode::parse(text(&body, "mode")?).ok_or_else(|| bad("a mode is sftp or git"))?;
    workflows::set_mode(&shared, env, mode).map_err(bad)?;
    Ok(Json(json!({ "environment": env, "mode": mode.to_string() })))
}

async fn commit(State(shared): App, Json(body): Json<Value>) -> Answer {
    let env = environment(&shared, &body)?;
    let id = site::commit(&shared, env, text(&body, "message")?, "Team Mate", "mate@sim.example");
    Ok(Json(json!({ "commit": id.map_err(|e| bad(e.to_string()))? })))
}

async fn job(State(shared): App, Json(body): Json<Value>) -> Answer {
    let env = environment(&shared, &body)?;
    let ms = body.get("ms").and_then(Value::as_u64).unwrap_or(1000);
    workflows::pretend(&shared, env, text(&body, "kind")?, Duration::from_millis(ms))
        .map(Json)
        .map_err(|e| bad(e.to_string()))
}

async fn quirk(State(shared): App, Json(body): Json<Value>) -> Answer {
    let (name, value) = (text(&body, "name")?, text(&body, "value")?);
    let mut state = shared.lock();
    state.quirks.set(name, value).map_err(bad)?;
    // The containers sleep again, whatever woke them before.
    if name == "sleep" {
        state.woken = None;
    }
    drop(state);
    Ok(Json(json!({ "name": name, "value": value })))
}

async fn rtt(State(shared): App, Json(body): Json<Value>) -> Answer {
    let ms =
        body.get("ms").and_then(Value::as_u64).filter(|ms| *ms <= 60_000).ok_or_else(|| bad("\"ms\": 0 to 60000"))?;
    let mbit = match body.get("mbit") {
        None => 0,
        Some(mbit) => mbit.as_u64().ok_or_else(|| bad("\"mbit\": a whole number; 0: unlimited"))?,
    };
    shared.link.set_rtt(Duration::from_millis(ms));
    shared.link.set_mbit(mbit);
    Ok(Json(json!({ "ms": ms, "mbit": mbit })))
}

async fn cut(State(shared): App) -> Answer {
    shared.link.cut();
    Ok(Json(json!({})))
}

async fn abandon(State(shared): App) -> Answer {
    shared.link.abandon();
    Ok(Json(json!({})))
}

async fn stall(State(shared): App, Json(body): Json<Value>) -> Answer {
    let stalled = body.get("stalled").and_then(Value::as_bool).ok_or_else(|| bad("\"stalled\": true or false"))?;
    shared.link.set_silent(stalled);
    Ok(Json(json!({ "stalled": stalled })))
}

async fn migrate(State(shared): App, Json(body): Json<Value>) -> Answer {
    let env = environment(&shared, &body)?;
    let binding = random_hex(16).map_err(|e| bad(e.to_string()))?;
    if let Some(environment) = shared.lock().environments.get_mut(env) {
        environment.binding = binding.clone();
    }
    let wants = |field: &str| body.get(field).and_then(Value::as_bool).unwrap_or(false);
    if wants("lose") {
        site::discard(&shared, env).map_err(|e| bad(e.to_string()))?;
    }
    if wants("host_key") {
        shared.renew_host_key().map_err(|e| bad(e.to_string()))?;
    }
    shared.link.cut();
    let line = shared.known_hosts_line().map_err(|e| bad(e.to_string()))?;
    Ok(Json(json!({ "environment": env, "binding": binding, "known_hosts": line })))
}

async fn expire(State(shared): App) -> Answer {
    shared.lock().sessions.clear();
    Ok(Json(json!({})))
}

async fn key(State(shared): App, Json(body): Json<Value>) -> Answer {
    let key = russh::keys::PublicKey::from_openssh(text(&body, "key")?).map_err(|e| bad(e.to_string()))?;
    shared.lock().authorized.push(key);
    Ok(Json(json!({})))
}

async fn reset(State(shared): App) -> Answer {
    shared.round_trips().reset();
    let mut state = shared.lock();
    state.sftp_sessions = 0;
    state.calls.reset();
    drop(state);
    Ok(Json(json!({})))
}

async fn counters(State(shared): App) -> Answer {
    let (connections, visits, sessions, most, api) = {
        let state = shared.lock();
        let of = |count: fn(&Environment) -> u32| state.environments.values().map(count).sum::<u32>();
        (state.sftp_sessions, state.visits, of(|env| env.sessions), of(|env| env.most_sessions), state.calls.describe())
    };
    let rounds = shared.round_trips();
    Ok(Json(json!({
        "requests": rounds.requests(),
        "rounds": rounds.deepest(),
        "connections": connections,
        "visits": visits,
        "sessions": sessions,
        "most_sessions": most,
        "api": api,
    })))
}

async fn diff(State(shared): App) -> Result<String, (StatusCode, String)> {
    site::diff(&shared, "dev").map_err(|e| bad(e.to_string()))
}
