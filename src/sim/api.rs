//! The API that Terminus uses, as far as a client of an environment needs it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::body::HttpBody;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use serde_json::{Map, Value, json};

use super::config::ENVIRONMENTS;
use super::keys::random_hex;
use super::state::{EMAIL, LOCK, Shared};
use super::{site, workflows};
use crate::control::{ConnectionMode, EnvKind};

/// An organization of the account.
const ORGANIZATION: &str = "0a0a0a0a-0000-4000-8000-00000000a6e0";
/// Id and name of its site, which has the environments of the simulated one.
const AGENCY_SITE: (&str, &str) = ("0b0b0b0b-0000-4000-8000-00000000517e", "sim-agency");
/// Life of a session.
const SESSION_LIFE: Duration = Duration::from_secs(300);
/// The same with the quirk `login=brief`: only the first seconds are more than a minute before the end.
const BRIEF_LIFE: Duration = Duration::from_secs(65);

/// See the quirk `api-clock`.
const CLOCK_BEHIND: Duration = Duration::from_secs(3600);

type App = State<Arc<Shared>>;
type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    // The API of Terminus, and the public one.
    let both = Router::new().nest("/api", common().merge(terminus())).nest("/v0", common().merge(v0()));
    both.layer(middleware::from_fn_with_state(shared.clone(), behave)).with_state(shared)
}

fn common() -> Router<Arc<Shared>> {
    Router::new()
        .route("/authorize/machine-token", post(log_in))
        .route("/users/{user}", get(user))
        .route("/users/{user}/memberships/sites", get(memberships))
        .route("/users/{user}/memberships/organizations", get(organizations))
        .route("/organizations/{organization}/memberships/sites", get(organization_sites))
        .route("/site-names/{name}", get(site_name))
        .route("/sites/{site}", get(site_info))
        .route("/sites/{site}/environments", get(environments))
        .route("/sites/{site}/environments/{env}/settings", get(settings))
        .route("/sites/{site}/environments/{env}/variables", get(variables))
        .route("/sites/{site}/environments/{env}/domains", get(domains))
        .route("/sites/{site}/environments/{env}/workflows", post(start_workflow))
        .route("/sites/{site}/workflows", get(list_workflows))
        .route("/sites/{site}/workflows/{id}", get(show_workflow))
}

fn terminus() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sites/{site}/environments/{env}", get(environment))
        .route("/sites/{site}/environments/{env}/on-server-development/diffstat", get(diffstat))
        .route("/sites/{site}/environments/{env}/code-log", get(code_log))
        .route("/track", post(|| async { Json(json!({})) }))
}

fn v0() -> Router<Arc<Shared>> {
    Router::new()
        .route("/sites/{site}/environments/{env}/diffstat", get(diffstat))
        .route("/sites/{site}/environments/{env}/commits", get(code_log))
        .route("/sites/{site}/environments/{env}/connection-mode", put(put_mode))
        .route("/sites/{site}/environments/{env}/code/commit", post(post_commit))
}

fn error(status: StatusCode, text: &str) -> (StatusCode, Json<Value>) {
    (status, Json(Value::String(text.to_owned())))
}

/// Applies the quirk `api` to every answer, then checks the session.
async fn behave(State(shared): App, headers: HeaderMap, request: Request, next: Next) -> Response {
    tokio::time::sleep(shared.link.rtt()).await;
    let (quirk, call, refusal) = {
        let mut guard = shared.lock();
        let state = &mut *guard;
        let number = state.calls.note(request.method().as_str(), request.uri().path());
        (state.quirks.get("api"), number, state.calls.refusal(&mut state.quirks))
    };
    if let Some(refusal) = refusal {
        return refusal;
    }
    match quirk {
        "burst" if call % 3 != 0 => {
            return error(StatusCode::SERVICE_UNAVAILABLE, "too many requests").into_response();
        }
        "error" => return error(StatusCode::SERVICE_UNAVAILABLE, "the service is unavailable").into_response(),
        "malformed" => return "{\"id\": \"cut off in the mid".into_response(),
        "error-page" => {
            let page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
            return (StatusCode::BAD_GATEWAY, [(header::CONTENT_TYPE, "text/html")], page).into_response();
        }
        "html" => return ([(header::CONTENT_TYPE, "text/html")], "<html>please log in</html>").into_response(),
        "slow" => tokio::time::sleep(Duration::from_secs(60)).await,
        _ => {}
    }
    let open = request.uri().path().ends_with("machine-token") || request.uri().path().ends_with("track");
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let lives = |(known, until): &(String, Instant)| bearer == Some(known.as_str()) && Instant::now() < *until;
    let known = shared.lock().sessions.iter().any(lives);
    if !open && !known {
        return match shared.quirk_is("ended-session", "403") {
            true => error(StatusCode::FORBIDDEN, "Invalid or expired session.").into_response(),
            false => error(StatusCode::UNAUTHORIZED, "Unauthorized: the session has expired.").into_response(),
        };
    }
    let mut answer = next.run(request).await;
    if shared.quirk_is("api-clock", "behind")
        && let Ok(date) = HeaderValue::from_str(&httpdate::fmt_http_date(SystemTime::now() - CLOCK_BEHIND))
    {
        answer.headers_mut().insert(header::DATE, date);
    }
    shared.lock().calls.answered(answer.body().size_hint().exact().unwrap_or(0));
    answer
}

async fn log_in(State(shared): App, Json(body): Json<Value>) -> Answer {
    let quirk = shared.lock().quirks.get("login");
    let failed = |status, text: &str| Err(error(status, text));
    match quirk {
        "error" if shared.lock().calls.login() % 3 != 0 => {
            return failed(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred.");
        }
        "busy" => return failed(StatusCode::TOO_MANY_REQUESTS, "Too Many Requests"),
        _ => {}
    }
    if body.get("machine_token").and_then(Value::as_str) != Some(shared.token.as_str()) {
        return failed(StatusCode::UNAUTHORIZED, "Authorization failed. Please check that your token is valid.");
    }
    // The platform will refuse clients that do not say so.
    if body.get("is_short_ttl_capable") != Some(&json!(true)) {
        log::info!("a client logs in that does not say that it can renew short sessions");
    }
    let random = random_hex(16).map_err(|e| error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string()))?;
    let session = format!("{}:{}", shared.user_id, random);
    let life = if quirk == "brief" { BRIEF_LIFE } else { SESSION_LIFE };
    shared.lock().sessions.push((session.clone(), Instant::now() + life));
    let mut end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() + life;
    if shared.quirk_is("api-clock", "behind") {
        end -= CLOCK_BEHIND;
    }
    let name = if quirk == "access-token" { "access_token" } else { "session" };
    let mut answer = json!({ "user_id": shared.user_id });
    answer[name] = json!(session);
    match quirk {
        "missing" => {}
        "null" => answer["expires_at"] = Value::Null,
        "float" => answer["expires_at"] = json!(end.as_secs_f64()),
        "text" => answer["expires_at"] = json!(end.as_secs().to_string()),
        "date" => answer["expires_at"] = json!(humantime::format_rfc3339_seconds(UNIX_EPOCH + end).to_string()),
        _ => answer["expires_at"] = json!(end.as_secs()),
    }
    Ok(Json(answer))
}

async fn user(State(shared): App) -> Answer {
    Ok(Json(json!({
        "id": shared.user_id,
        "email": EMAIL,
        "profile": { "firstname": "Dev", "lastname": "Sim", "full_name": "Dev Sim" },
    })))
}

#[derive(serde::Deserialize)]
struct Page {
    start: Option<String>,
}

/// Sites of a member in pages of one, which are short, as the platform's may be; the last one is empty.
fn page(of: &[(&str, &str)], role: &str, page: &Page) -> Json<Value> {
    let first = match &page.start {
        None => 0,
        Some(start) => of.iter().position(|(id, _)| id == start).map_or(of.len(), |last| last + 1),
    };
    let member = |(id, name): &(&str, &str)| {
        let site = json!({ "id": id, "name": name, "framework": "wordpress" });
        json!({ "id": id, "site_id": id, "role": role, "site": site })
    };
    Json(of[first..].iter().take(1).map(member).collect())
}

async fn memberships(State(shared): App, Query(start): Query<Page>) -> Answer {
    Ok(page(&[(&shared.site_id, &shared.site_name)], "developer", &start))
}

async fn organizations(State(shared): App) -> Answer {
    let organization = json!({ "id": ORGANIZATION, "profile": { "name": "Sim Agency" } });
    let id = format!("{}:{ORGANIZATION}", shared.user_id);
    Ok(Json(json!([{ "id": id, "organization_id": ORGANIZATION, "organization": organization, "role": "developer" }])))
}

/// The site of the user again, and one that is listed here only.
async fn organization_sites(State(shared): App, Query(start): Query<Page>) -> Answer {
    Ok(page(&[(&shared.site_id, &shared.site_name), (AGENCY_SITE.0, AGENCY_SITE.1)], "team_member", &start))
}

async fn site_name(State(shared): App, Path(name): Path<String>) -> Answer {
    if name != shared.site_name {
        return Err(error(StatusCode::NOT_FOUND, "Not found."));
    }
    Ok(Json(json!({ "id": shared.site_id, "name": shared.site_name })))
}

fn check_site(shared: &Shared, id: &str) -> Result<(), (StatusCode, Json<Value>)> {
    if id == shared.site_id || id == AGENCY_SITE.0 { Ok(()) } else { Err(error(StatusCode::NOT_FOUND, "Not found.")) }
}

async fn site_info(State(shared): App, Path(id): Path<String>) -> Answer {
    check_site(&shared, &id)?;
    Ok(Json(json!({
        "id": shared.site_id,
        "name": shared.site_name,
        "label": shared.site_name,
        "framework": "wordpress",
        "php_version": "82",
        "frozen": shared.quirk_is("site", "frozen"),
        "created": 1_700_000_000,
        "owner": shared.user_id,
        "service_level": "free",
        "settings": { "max_num_cdes": 10 },
        "upstream": { "url": "https://sim.example/wordpress", "product_id": "sim", "branch": "master" },
    })))
}

fn failed(e: std::io::Error) -> (StatusCode, Json<Value>) {
    error(StatusCode::INTERNAL_SERVER_ERROR, &e.to_string())
}

/// The list in the description of an environment: with the quirk `stale` that of the last direct request.
fn embedded_diffstat(shared: &Shared, env: &str) -> std::io::Result<Value> {
    if shared.quirk_is("diffstat", "stale") {
        let state = shared.lock();
        let stale = state.environments.get(env).and_then(|e| e.stale_diffstat.clone());
        return Ok(stale.unwrap_or_else(|| json!([])));
    }
    site::diffstat(shared, env)
}

fn is_initialized(shared: &Shared, env: &str) -> bool {
    EnvKind::of(env).takes_code() || !shared.quirk_is("test-env", "missing")
}

fn lock(shared: &Shared) -> Value {
    match shared.quirk_is("lock", "locked") {
        true => json!({ "locked": true, "username": LOCK.0, "password": LOCK.1 }),
        false => json!({ "locked": false, "username": null, "password": null }),
    }
}

fn environment_json(shared: &Shared, env: &str) -> std::io::Result<Value> {
    let mode = shared.lock().environments.get(env).map(|e| e.mode);
    let mut out = json!({
        "watchers": 0,
        "environment_created": 1_700_000_000,
        "dns_zone": "pantheonsite.io",
        "target_ref": site::target_ref(env),
        "target_commit": site::deployed(shared, env)?,
        "lock": lock(shared),
        "php_version": "82",
        "randseed": "sim",
        "styx_cluster": "sim",
    });
    if EnvKind::of(env).takes_code() {
        out["on_server_development"] = json!(mode == Some(ConnectionMode::Sftp));
        out["diffstat"] = embedded_diffstat(shared, env)?;
    }
    Ok(out)
}

async fn environments(State(shared): App, Path(id): Path<String>) -> Answer {
    check_site(&shared, &id)?;
    let all: std::io::Result<Map<String, Value>> =
        ENVIRONMENTS.iter().map(|env| Ok(((*env).to_owned(), environment_json(&shared, env)?))).collect();
    all.map(|all| Json(Value::Object(all))).map_err(failed)
}

fn check_env(shared: &Shared, (id, env): &(String, String)) -> Result<(), (StatusCode, Json<Value>)> {
    check_site(shared, id)?;
    if ENVIRONMENTS.contains(&env.as_str()) { Ok(()) } else { Err(error(StatusCode::NOT_FOUND, "Not found.")) }
}

async fn environment(State(shared): App, Path(at): Path<(String, String)>) -> Answer {
    check_env(&shared, &at)?;
    if shared.quirk_is("single-environment", "404") {
        return Err(error(StatusCode::NOT_FOUND, "Not found."));
    }
    environment_json(&shared, &at.1).map(Json).map_err(failed)
}

async fn settings(State(shared): App, Path(at): Path<(String, String)>) -> Answer {
    check_env(&shared, &at)?;
    Ok(Json(json!({ "is_initialized": is_initialized(&shared, &at.1), "ssl_enabled": false, "drush_version": 10 })))
}

async fn variables(State(shared): App, Path(at): Path<(String, String)>) -> Answer {
    check_env(&shared, &at)?;
    let mut out = json!({ "DB_PORT": "3306", "DB_USER": "pantheon", "DB_PASSWORD": "sim", "DB_NAME": "pantheon" });
    if shared.quirk_is("build", "composer") {
        out["BUILD_STEP"] = json!("true");
    }
    Ok(Json(out))
}

async fn domains(State(shared): App, Path(at): Path<(String, String)>, headers: HeaderMap) -> Answer {
    check_env(&shared, &at)?;
    // The address that the client used: the health check is answered here, too.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1");
    Ok(Json(json!([{ "id": host, "type": "platform", "environment": at.1, "deletable": false }])))
}

fn started(
    shared: &Arc<Shared>,
    env: &str,
    kind: &str,
    params: Value,
) -> Result<(StatusCode, Json<Value>), (StatusCode, Json<Value>)> {
    if shared.quirk_is("changes", "409") {
        return Err(error(StatusCode::CONFLICT, "This operation is not supported for this site."));
    }
    if !EnvKind::of(env).takes_code() {
        return Err(error(StatusCode::FORBIDDEN, "This environment takes no code changes."));
    }
    let lost = || error(StatusCode::BAD_GATEWAY, "Bad Gateway");
    if shared.quirk_is("changes", "refused") {
        return Err(lost());
    }
    let started = workflows::start(shared, env, kind, params).map_err(failed)?;
    if shared.quirk_is("changes", "answer-lost") {
        return Err(lost());
    }
    Ok((StatusCode::ACCEPTED, Json(started)))
}

async fn put_mode(
    State(shared): App,
    Path(at): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Result<(StatusCode, Json<Value>), (StatusCode, Json<Value>)> {
    check_env(&shared, &at)?;
    let kind = match body.get("mode").and_then(Value::as_str) {
        Some("sftp") => "enable_on_server_development",
        Some("git") => "enable_git_mode",
        _ => return Err((StatusCode::BAD_REQUEST, Json(json!({ "errors": [{ "message": "mode: sftp or git" }] })))),
    };
    started(&shared, &at.1, kind, json!({}))
}

async fn post_commit(
    State(shared): App,
    Path(at): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Result<(StatusCode, Json<Value>), (StatusCode, Json<Value>)> {
    check_env(&shared, &at)?;
    started(&shared, &at.1, "commit_and_push_on_server_changes", body)
}

/// The direct request for the list: always fresh, and remembered for the quirk `stale`.
async fn diffstat(State(shared): App, Path(at): Path<(String, String)>) -> Answer {
    check_env(&shared, &at)?;
    let fresh = site::diffstat(&shared, &at.1).map_err(failed)?;
    if let Some(env) = shared.lock().environments.get_mut(&at.1) {
        env.stale_diffstat = Some(fresh.clone());
    }
    Ok(Json(fresh))
}

async fn code_log(State(shared): App, Path(at): Path<(String, String)>) -> Answer {
    check_env(&shared, &at)?;
    site::log(&shared, &at.1).map(Json).map_err(failed)
}

async fn start_workflow(
    State(shared): App,
    Path(at): Path<(String, String)>,
    Json(body): Json<Value>,
) -> Result<(StatusCode, Json<Value>), (StatusCode, Json<Value>)> {
    check_env(&shared, &at)?;
    let kind = body.get("type").and_then(Value::as_str).unwrap_or_default();
    let params = body.get("params").cloned().unwrap_or_default();
    if !params.is_object() {
        return Err(error(StatusCode::BAD_REQUEST, "params must be an object"));
    }
    started(&shared, &at.1, kind, params)
}

async fn list_workflows(State(shared): App, Path(id): Path<String>) -> Answer {
    check_site(&shared, &id)?;
    Ok(Json(workflows::list(&shared)))
}

async fn show_workflow(State(shared): App, Path((site, id)): Path<(String, String)>) -> Answer {
    check_site(&shared, &site)?;
    workflows::find(&shared, &id).map(Json).ok_or_else(|| error(StatusCode::NOT_FOUND, "Not found."))
}
