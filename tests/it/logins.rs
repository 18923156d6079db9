//! Logging in to the platform as it is: sessions that live minutes, in several forms; tokens that end; an API that is busy.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use pantheonfs::control::{Control, ControlConfig, ControlError};
use pantheonfs::sim::{Sim, SimConfig};
use serde_json::json;

use crate::common::mounted::{get, post};
use crate::common::program::{Environ, Ran};

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
fn a_wrong_clock_of_this_machine_costs_no_logins() {
    let desk = Desk::new();
    desk.habit("api-clock", "behind");
    let client = desk.client();
    for _ in 0..4 {
        client.profile().expect("answered");
    }
    assert_eq!(desk.calls(), (5, 1), "one session, although its end is past by this machine's clock");
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

/// Home and current directory of somebody who uses Terminus, with a saved token.
fn terminus_user(sim: &Sim, config: &str, env: &str) -> (Environ, std::path::PathBuf) {
    let around = Environ::new();
    let (here, tokens) = (around.path("checkout"), around.path("tokens"));
    for dir in [&here, &tokens, &around.home().join(".terminus")] {
        fs::create_dir(dir).expect("made");
    }
    let token = json!({ "token": sim.env()["TERMINUS_MACHINE_TOKEN"], "email": "dev@sim.example", "date": 0 });
    fs::write(tokens.join("dev@sim.example"), token.to_string()).expect("written");
    fs::write(around.home().join(".terminus/config.yml"), config).expect("written");
    fs::write(here.join(".env"), env).expect("written");
    (around, here)
}

fn sites(around: &Environ, here: &Path, variables: &[(&str, &str)]) -> Ran {
    Ran(around.command().arg("sites").current_dir(here).envs(variables.iter().copied()).output().expect("runs"))
}

#[test]
fn settings_are_read_where_terminus_reads_them() {
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let (host, port) = (&sim.env()["TERMINUS_HOST"], &sim.env()["TERMINUS_PORT"]);
    let at = format!("TERMINUS_HOST: {host}\nport: {port}\nTERMINUS_PROTOCOL: 'http' # a simulator\n");
    let config = format!("---\n{at}TERMINUS_TOKENS_DIR: '[[ TERMINUS_USER_HOME ]]/../tokens'\n");
    let (around, here) = terminus_user(&sim, &config, "");
    assert!(sites(&around, &here, &[]).ok().out().contains("sim-wordpress.dev"));
    sites(&around, &here, &[("TERMINUS_TOKENS_DIR", "/nowhere"), ("TERMINUS_CACHE_DIR", "/nowhere")])
        .fails(4, &["not logged in"]);
    fs::write(around.home().join(".terminus/config.yml"), "TERMINUS_PORT: high\n").expect("written");
    sites(&around, &here, &[]).fails(2, &["TERMINUS_PORT in", "config.yml: high is not a port number"]);
    fs::write(around.home().join(".terminus/config.yml"), "a: [").expect("written");
    sites(&around, &here, &[]).fails(2, &["config.yml: Terminus' settings cannot be read"]);
}

/// A checkout of somebody else must not learn the token of the person who works in it.
#[test]
fn env_of_a_checkout_does_not_say_where_the_token_goes() {
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let trap = TcpListener::bind("127.0.0.1:0").expect("bound");
    let evil = trap.local_addr().expect("bound").port();
    let (host, port) = (&sim.env()["TERMINUS_HOST"], &sim.env()["TERMINUS_PORT"]);
    let config = format!(
        "TERMINUS_HOST: {host}\nTERMINUS_PORT: {port}\nTERMINUS_PROTOCOL: http\nTERMINUS_TOKENS_DIR: '[[ TERMINUS_USER_HOME ]]/../tokens'\n"
    );
    let env = format!(
        "TERMINUS_HOST=127.0.0.1\nTERMINUS_PORT={evil}\nTERMINUS_PROTOCOL=http\nTERMINUS_SSH_HOST=127.0.0.1\n\
         TERMINUS_MACHINE_TOKEN=theirs\nPANTHEONFS_API=v0\nTERMINUS_CACHE_DIR=.\nSSL_CERT_FILE=theirs.pem\n"
    );
    let (around, here) = terminus_user(&sim, &config, &env);
    assert!(sites(&around, &here, &[]).ok().out().contains("sim-wordpress.dev"));
    trap.set_nonblocking(true).expect("set");
    assert!(trap.accept().is_err(), "somebody asked where .env says");
    assert_eq!(fs::read_dir(&here).expect("listed").count(), 1, "no session is saved in the checkout");
    let said = around.command().args(["doctor", "sim-nosuch.dev"]).current_dir(&here).output().expect("runs");
    let said = Ran(said).out();
    for name in ["TERMINUS_HOST", "TERMINUS_PORT", "TERMINUS_PROTOCOL", "only TERMINUS_USER counts there"] {
        assert!(said.contains(name), "'{name}' is not said in: {said}");
    }
    fs::write(here.join(".env"), "TERMINUS_USER=another@sim.example\n").expect("written");
    fs::remove_dir_all(around.home().join(".terminus/cache")).expect("removed");
    sites(&around, &here, &[]).fails(4, &["not logged in"]);
}
