//! The health check of the web sites, which wakes their containers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::config::ENVIRONMENTS;
use super::state::{LOCK, Shared};

pub(super) fn routes(shared: Arc<Shared>) -> Router {
    Router::new().route("/pantheon_healthcheck", get(health_check)).with_state(shared)
}

/// Answered under the name of the web site, `dev-sim-….pantheonsite.io`.
async fn health_check(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let first = named("host").split('.').next().unwrap_or_default();
    // Terminus uses the domain that the API names, which is an address here.
    let ours = ENVIRONMENTS.iter().any(|env| first == format!("{env}-{}", shared.site_name)) || first == "127";
    if !ours {
        return (StatusCode::NOT_FOUND, "no such site").into_response();
    }
    if shared.quirk_is("site", "frozen") {
        let frozen = StatusCode::from_u16(530).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
        return (frozen, "530 Site Frozen").into_response();
    }
    let proof = STANDARD.encode(format!("{}:{}", LOCK.0, LOCK.1));
    if shared.quirk_is("lock", "locked") && named("authorization") != format!("Basic {proof}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    // The answer comes a little before SFTP works, as on the platform.
    tokio::time::sleep(shared.visit() / 2).await;
    match shared.quirk_is("styx-header", "on") {
        true => ([("X-Pantheon-Styx-Hostname", "sim")], "OK").into_response(),
        false => "OK".into_response(),
    }
}
