//! The two APIs of the platform. They answer the same questions under different paths: the one that Terminus uses, and the
//! public one ("v0"), whose description is still unofficial.

use serde_json::{Value, json};

use super::environment::ConnectionMode;
use super::http::segment;

/// One request.
pub(super) struct Call {
    pub(super) method: &'static str,
    pub(super) path: String,
    pub(super) body: Option<Value>,
    /// Whether it may be sent twice.
    pub(super) repeatable: bool,
}

fn get(path: String) -> Call {
    Call { method: "GET", path, body: None, repeatable: true }
}

/// The requests of one API. The defaults are what both have in common.
pub(super) trait Routes: Send + Sync {
    fn host(&self) -> &'static str;

    /// The prefix of every path.
    fn base(&self) -> &'static str;

    /// `None`: the API only lists all environments.
    fn environment(&self, site: &str, env: &str) -> Option<Call>;

    fn diffstat(&self, site: &str, env: &str) -> Call;

    fn set_mode(&self, site: &str, env: &str, mode: ConnectionMode) -> Call;

    fn commit(&self, site: &str, env: &str, params: Value) -> Call;

    fn log(&self, site: &str, env: &str) -> Call;

    fn environments(&self, site: &str) -> Call {
        get(format!("sites/{}/environments", segment(site)))
    }

    fn workflow(&self, site: &str, id: &str) -> Call {
        get(format!("sites/{}/workflows/{}", segment(site), segment(id)))
    }

    fn workflows(&self, site: &str) -> Call {
        get(format!("sites/{}/workflows", segment(site)))
    }
}

fn at(site: &str, env: &str) -> String {
    format!("sites/{}/environments/{}", segment(site), segment(env))
}

/// The API of Terminus.
pub(super) struct Terminus;

impl Routes for Terminus {
    fn host(&self) -> &'static str {
        "terminus.pantheon.io"
    }

    fn base(&self) -> &'static str {
        "api/"
    }

    fn environment(&self, site: &str, env: &str) -> Option<Call> {
        Some(get(at(site, env)))
    }

    fn diffstat(&self, site: &str, env: &str) -> Call {
        get(format!("{}/on-server-development/diffstat", at(site, env)))
    }

    fn set_mode(&self, site: &str, env: &str, mode: ConnectionMode) -> Call {
        let kind = match mode {
            ConnectionMode::Sftp => "enable_on_server_development",
            ConnectionMode::Git => "enable_git_mode",
        };
        Call { repeatable: true, ..start(site, env, kind, json!({})) }
    }

    fn commit(&self, site: &str, env: &str, params: Value) -> Call {
        start(site, env, "commit_and_push_on_server_changes", params)
    }

    fn log(&self, site: &str, env: &str) -> Call {
        get(format!("{}/code-log", at(site, env)))
    }
}

fn start(site: &str, env: &str, kind: &str, params: Value) -> Call {
    let path = format!("{}/workflows", at(site, env));
    Call { method: "POST", path, body: Some(json!({ "type": kind, "params": params })), repeatable: false }
}

/// The public API.
pub(super) struct V0;

impl Routes for V0 {
    fn host(&self) -> &'static str {
        "api.pantheon.io"
    }

    fn base(&self) -> &'static str {
        "v0/"
    }

    fn environment(&self, _: &str, _: &str) -> Option<Call> {
        None
    }

    fn diffstat(&self, site: &str, env: &str) -> Call {
        get(format!("{}/diffstat", at(site, env)))
    }

    fn set_mode(&self, site: &str, env: &str, mode: ConnectionMode) -> Call {
        let path = format!("{}/connection-mode", at(site, env));
        Call { method: "PUT", path, body: Some(json!({ "mode": mode.to_string() })), repeatable: true }
    }

    fn commit(&self, site: &str, env: &str, params: Value) -> Call {
        let path = format!("{}/code/commit", at(site, env));
        Call { method: "POST", path, body: Some(params), repeatable: false }
    }

    fn log(&self, site: &str, env: &str) -> Call {
        get(format!("{}/commits", at(site, env)))
    }
}

/// The API with this name; without a name that of Terminus. `None`: no such API.
pub(super) fn named(name: Option<&str>) -> Option<Box<dyn Routes>> {
    match name {
        None | Some("terminus") => Some(Box::new(Terminus)),
        Some("v0") => Some(Box::new(V0)),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_apis_differ_where_the_contract_says() {
        let line = |call: Call| format!("{} {}", call.method, call.path);
        let (a, b) = (named(None).expect("known"), named(Some("v0")).expect("known"));
        assert_eq!(line(a.diffstat("s", "dev")), "GET sites/s/environments/dev/on-server-development/diffstat");
        assert_eq!(line(b.diffstat("s", "dev")), "GET sites/s/environments/dev/diffstat");
        assert_eq!(line(b.set_mode("s", "dev", ConnectionMode::Git)), "PUT sites/s/environments/dev/connection-mode");
        assert_eq!(b.set_mode("s", "dev", ConnectionMode::Git).body, Some(json!({ "mode": "git" })));
        assert_eq!(line(a.commit("s", "dev", json!({}))), "POST sites/s/environments/dev/workflows");
        assert_eq!(line(b.commit("s", "../x", json!({}))), "POST sites/s/environments/..%2Fx/code/commit");
        assert!(b.environment("s", "dev").is_none() && named(Some("v9")).is_none());
    }
}
