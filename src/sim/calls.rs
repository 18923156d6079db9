//! The calls of the API: how many of which kind and how long their answers were, and when they become too many.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::quirks::Quirks;

/// Calls a minute that are answered.
const MOST_A_MINUTE: usize = 600;
const MINUTE: Duration = Duration::from_secs(60);
/// What a client is told to wait, with the quirk `strict-retry-after`.
const RETRY_AFTER: &str = "2";

/// See the module header.
#[derive(Default)]
pub(super) struct Calls {
    count: u64,
    bytes: u64,
    by_kind: BTreeMap<String, u64>,
    logins: u64,
    /// When the calls of the last minute came.
    recent: Vec<Instant>,
}

impl Calls {
    /// Notes a call; returns its number.
    pub(super) fn note(&mut self, method: &str, path: &str) -> u64 {
        self.count += 1;
        *self.by_kind.entry(format!("{method} {}", kind(path))).or_default() += 1;
        self.recent.retain(|at| at.elapsed() < MINUTE);
        self.recent.push(Instant::now());
        self.count
    }

    /// Notes a login; returns its number.
    pub(super) fn login(&mut self) -> u64 {
        self.logins += 1;
        self.logins
    }

    pub(super) fn answered(&mut self, bytes: u64) {
        self.bytes += bytes;
    }

    /// The answer to one call too many.
    pub(super) fn refusal(&self, quirks: &mut Quirks) -> Option<Response> {
        let strict = quirks.get("limit");
        if strict == "lenient" && self.recent.len() <= MOST_A_MINUTE {
            return None;
        }
        // The next call is answered again.
        let _ = quirks.set("limit", "lenient");
        let text = "Too Many Requests";
        Some(match strict {
            "strict-retry-after" => {
                (StatusCode::TOO_MANY_REQUESTS, [(header::RETRY_AFTER, RETRY_AFTER)], text).into_response()
            }
            _ => (StatusCode::TOO_MANY_REQUESTS, text).into_response(),
        })
    }

    pub(super) fn describe(&self) -> Value {
        json!({ "calls": self.count, "bytes": self.bytes, "by_kind": self.by_kind })
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// The path without the ids in it, so that calls of one kind are counted together.
fn kind(path: &str) -> String {
    let is_id = |part: &&str| part.len() >= 32 && part.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    path.split('/').map(|part| if is_id(&part) { "ID" } else { part }).collect::<Vec<_>>().join("/")
}
