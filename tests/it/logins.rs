//! Logging in to the platform as it is: sessions that live minutes, in several forms; tokens that end; an API that is busy.

use std::time::{Duration, Instant};

use pantheonfs::control::{Control, ControlConfig, ControlError};
use pantheonfs::sim::{Sim, SimConfig};
use serde_json::json;

use crate::common::mounted::{get, post};

/// A simulated platform, and where a client keeps what it shares with others.
struct Desk {
    sim: Sim,
    dir: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
        Self { sim, dir: tempfile::tempdir().expect("a temporary directory") }
    }

    fn config(&self) -> ControlConfig {
        let env = self.sim.env();
        ControlConfig {
            protocol: Some("http".into()),
            host: Some(env["TERMINUS_HOST"].clone()),
            port: env["TERMINUS_PORT"].parse().ok(),
            token: Some(env["TERMINUS_MACHINE_TOKEN"].clone().into()),
            shared_dir: Some(self.dir.path().join("api")),
            ..ControlConfig::default()
        }
    }

    fn client(&self) -> Control {
        Control::new(self.config()).expect("a client")
    }

    fn tell(&self, route: &str, body: &serde_json::Value) {
        post(&format!("{}/{route}", self.sim.control()), &body.to_string());
    }

    fn habit(&self, name: &str, value: &str) {
        self.tell("habit", &json!({ "name": name, "value": value }));
    }

    /// Calls since the last reset: all, and logins.
    fn calls(&self) -> (u64, u64) {
        let api = get(&format!("{}/counters", self.sim.control()))["api"].take();
        let logins = api["by_kind"]["POST /api/authorize/machine-token"].as_u64();
        (api["calls"].as_u64().expect("a number"), logins.unwrap_or(0))
    }
}

#[test]
fn every_form_of_session_is_accepted_and_renewed() {
    let desk = Desk::new();
    for form in ["session", "access-token", "float", "text", "date", "null", "missing"] {
        desk.habit("login", form);
        desk.tell("reset", &json!({}));
        let client = desk.client();
        assert_eq!(client.profile().expect(form).email, "dev@sim.example");
        client.profile().expect(form);
        assert_eq!(desk.calls().1, 1, "{form}: one session serves both calls");
        for status in ["401", "403"] {
            desk.habit("ended-session", status);
            desk.tell("expire", &json!({}));
            client.profile().unwrap_or_else(|error| panic!("{form}, {status}: {error}"));
        }
        assert_eq!(desk.calls().1, 3, "{form}: one login for each session that ended");
    }
}

#[test]
fn a_session_with_less_than_a_minute_left_is_renewed_before_it_is_refused() {
    let desk = Desk::new();
    desk.habit("login", "brief");
    let client = desk.client();
    client.profile().expect("logged in");
    std::thread::sleep(Duration::from_secs(6));
    client.profile().expect("renewed");
    assert_eq!(desk.calls(), (4, 2), "two logins, two profiles, and nothing that was refused");
}

#[test]
fn only_a_refusal_says_that_the_token_is_bad() {
    let desk = Desk::new();
    let bad = ControlConfig { token: Some("bad".to_owned().into()), ..desk.config() };
    let error = Control::new(bad).expect("a client").profile().expect_err("refused");
    assert!(matches!(error, ControlError::TokenRefused { .. }), "{error}");
    assert!(error.to_string().contains("Personal Access Token") && error.to_string().contains("90 days"), "{error}");
    assert_eq!(desk.calls(), (1, 1), "a refusal is not repeated");
    desk.habit("login", "error");
    desk.client().profile().expect("logged in after two errors");
    desk.habit("login", "session");
    desk.habit("api", "error-page");
    let error = desk.client().profile().expect_err("an error page");
    assert!(matches!(error, ControlError::Status { status: 502, .. }), "{error}");
    assert!(error.to_string().contains("502 Bad Gateway;") && !error.to_string().contains('<'), "{error}");
}

#[test]
fn all_clients_wait_as_long_as_a_busy_api_asks() {
    let desk = Desk::new();
    let (one, other) = (desk.client(), desk.client());
    one.profile().expect("logged in");
    for (habit, pause) in [("strict-retry-after", 2), ("strict", 10)] {
        desk.habit("limit", habit);
        desk.tell("reset", &json!({}));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| one.profile());
            std::thread::sleep(Duration::from_millis(700));
            let left = other.throttled().expect("the other client knows");
            assert!(left <= Duration::from_secs(pause), "{left:?}");
            asking.join().expect("no panic").expect("answered in the end");
        });
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(pause) && took < Duration::from_secs(pause + 5), "{habit}: {took:?}");
        assert_eq!(desk.calls().0, 2, "one refusal, one answer");
    }
}
