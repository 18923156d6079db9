//! The simulator's API against the recorded call order of Terminus (contract A.9), and our client against both APIs.

use std::fs;
use std::process::Command;
use std::time::Duration;

use pantheonfs::sim::{Sim, SimConfig};
use serde_json::{Value, json};

use crate::common::mounted::{Mounted, get, post};
use crate::common::program::Environ;
use crate::common::{eventually, has_fuse, within};

/// Calls as Terminus makes them: header, JSON, status looked at.
struct Terminus {
    base: String,
    session: String,
}

impl Terminus {
    fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("{}/{path}", self.base))
            .header("Accept", "application/json")
            .header("Authorization", format!("Bearer {}", self.session))
            .header("Content-Type", "application/json");
        let body = body.map_or(String::new(), |body| body.to_string());
        let mut answer = agent.run(request.body(body).expect("a request")).expect("an answer");
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    #[track_caller]
    fn get(&self, path: &str) -> Value {
        let (status, value) = self.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {value}");
        value
    }

    #[track_caller]
    fn workflow(&self, site: &str, kind: &str, params: Value) -> Value {
        let body = json!({ "type": kind, "params": params });
        let (status, started) = self.call("POST", &format!("sites/{site}/environments/dev/workflows"), Some(body));
        assert_eq!(status, 202, "{started}");
        let id = started["id"].as_str().expect("an id").to_owned();
        let mut last = started;
        eventually("the workflow ends", || {
            last = self.get(&format!("sites/{site}/workflows/{id}"));
            !last["result"].is_null()
        });
        last
    }
}

fn api(sim: &Sim) -> (String, String) {
    let env = sim.env();
    (format!("http://{}:{}/api", env["TERMINUS_HOST"], env["TERMINUS_PORT"]), env["TERMINUS_MACHINE_TOKEN"].clone())
}

#[test]
fn the_calls_of_terminus_are_answered_in_its_order() {
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let (base, token) = api(&sim);
    // auth:login
    let login = json!({ "machine_token": token, "client": "terminus" }).to_string();
    let answer = post(&format!("{base}/authorize/machine-token"), &login);
    assert!(answer["expires_at"].is_i64() || answer["expires_at"].is_u64());
    let user = answer["user_id"].as_str().expect("a user").to_owned();
    let terminus = Terminus { base, session: answer["session"].as_str().expect("a session").to_owned() };
    let profile = terminus.get(&format!("users/{user}"));
    assert!(profile["id"].is_string() && profile["email"].is_string() && profile["profile"].is_object());
    // Every site command.
    let site = terminus.get(&format!("site-names/{}", sim.site()))["id"].as_str().expect("an id").to_owned();
    let info = terminus.get(&format!("sites/{site}?site_state=true"));
    for field in ["id", "name", "framework", "php_version", "created", "owner", "service_level"] {
        assert!(!info[field].is_null(), "site: {field}");
    }
    assert!(info["settings"]["max_num_cdes"].is_number() && info["upstream"]["url"].is_string());
    let all = terminus.get(&format!("sites/{site}/environments"));
    let fields = ["environment_created", "dns_zone", "target_ref", "target_commit", "lock"];
    for env in ["dev", "test", "live"] {
        fields.iter().for_each(|field| assert!(!all[env][*field].is_null(), "{env}: {field}"));
    }
    assert_eq!((&all["dev"]["on_server_development"], all["live"].get("on_server_development")), (&json!(true), None));
    assert!(all["dev"]["diffstat"].is_object());
    // env:list, connection:info, env:wake
    for env in ["test", "live"] {
        assert_eq!(terminus.get(&format!("sites/{site}/environments/{env}/settings"))["is_initialized"], true);
    }
    for _ in 0..2 {
        assert!(terminus.get(&format!("sites/{site}/environments/dev/variables"))["DB_PORT"].is_string());
    }
    let domains = terminus.get(&format!("sites/{site}/environments/dev/domains"));
    let domain = domains[0]["id"].as_str().expect("a domain").to_owned();
    assert_eq!(domains[0]["type"], "platform");
    let mut awake = ureq::get(format!("http://{domain}/pantheon_healthcheck")).call().expect("awake");
    assert_eq!(awake.body_mut().read_to_string().expect("text"), "OK");
    // env:diffstat and env:commit, with the line end that Terminus leaves in names.
    fs::write(sim.home("dev").join("code/index.php"), "<?php // changed\n").expect("written");
    let diffstat = terminus.get(&format!("sites/{site}/environments/dev/on-server-development/diffstat"));
    assert_eq!(diffstat["index.php"]["status"], "M");
    assert!(diffstat["index.php"]["additions"].is_string(), "counts are text");
    let params = json!({ "message": "Change", "committer_name": "Dev\n", "committer_email": "dev@x\n" });
    assert_eq!(terminus.workflow(&site, "commit_and_push_on_server_changes", params)["result"], "succeeded");
    // env:code-log
    let log = terminus.get(&format!("sites/{site}/environments/dev/code-log"));
    assert_eq!((&log[0]["message"], &log[0]["author"]), (&json!("Change"), &json!("Dev")));
    let hash = log[0]["hash"].as_str().expect("a hash");
    // The environment shows the commit after the code is synchronized.
    let target = || terminus.get(&format!("sites/{site}/environments"))["dev"]["target_commit"].clone();
    assert_ne!(target(), hash);
    let jobs = terminus.get(&format!("sites/{site}/workflows"));
    let sync = jobs.as_array().expect("a list").iter().find(|job| job["type"] == "sync_code").expect("it runs");
    assert_eq!((&sync["environment"], &sync["result"]), (&json!("dev"), &Value::Null));
    eventually("it is shown", || target() == hash);
    // connection:set there and back; the same mode again is not asked.
    assert_eq!(terminus.workflow(&site, "enable_git_mode", json!({}))["result"], "succeeded");
    assert_eq!(terminus.get(&format!("sites/{site}/environments"))["dev"]["on_server_development"], false);
    assert_eq!(terminus.workflow(&site, "enable_on_server_development", json!({}))["result"], "succeeded");
    // Refusals are final for Terminus only below 500.
    let (status, text) = terminus.call("GET", "site-names/nosuch", None);
    assert!(status == 404 && text.is_string());
    let (status, _) = terminus.call("POST", "track", Some(json!({})));
    assert_eq!(status, 200);
}

#[test]
fn workflows_fail_and_abort_as_the_platforms_do() {
    let Some(m) = Mounted::sim() else { return };
    let place = m.dir().to_string_lossy().into_owned();
    let switch = |mode: &str| m.environ().run(&["mode", mode, "--at", &place]);
    switch("git").ok();
    m.control("habit", r#"{"name": "build", "value": "composer"}"#);
    switch("sftp").fails(1, &["build_status is building"]);
    m.control("habit", r#"{"name": "build", "value": "none"}"#);
    m.control("habit", r#"{"name": "workflow", "value": "abort"}"#);
    switch("sftp").fails(1, &["another job of the site has precedence"]);
    m.control("habit", r#"{"name": "workflow", "value": "succeed"}"#);
    // Two calls of three fail, and still it is done.
    m.control("habit", r#"{"name": "api", "value": "burst"}"#);
    within(Duration::from_secs(120), "the switch gets through", || {
        let ran = switch("sftp");
        eprint!("{}", ran.err());
        ran.code() == 0
    });
}

#[test]
fn frozen_sites_and_missing_environments_are_said_so() {
    if !has_fuse() {
        return;
    }
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let around = Environ::new().with(sim.env());
    let dir = around.path("mnt");
    fs::create_dir(&dir).expect("made");
    let mount = |env: &str| {
        around.run(&["mount", &format!("{}.{env}", sim.site()), &dir.to_string_lossy(), "-o", &sim.options()])
    };
    let habit = |name: &str, value: &str| {
        post(&format!("{}/habit", sim.control()), &json!({ "name": name, "value": value }).to_string());
    };
    habit("test-env", "missing");
    mount("test").fails(3, &["has not been created yet", "deploy to it first"]);
    let ran = around.run(&["doctor", &format!("{}.test", sim.site()), "-o", &sim.options()]);
    assert_eq!(ran.code(), 3);
    assert!(
        ran.out().contains("platform: FAILED: ") && ran.out().contains("has not been created yet"),
        "{}",
        ran.out()
    );
    habit("site", "frozen");
    mount("dev").fails(3, &["frozen", "Unfreeze"]);
    let ran = around.run(&["doctor", &format!("{}.dev", sim.site()), "-o", &sim.options()]);
    assert_eq!(ran.code(), 3);
    assert!(ran.out().contains("platform: FAILED: sim-wordpress: the platform has frozen the site"), "{}", ran.out());
}

#[test]
fn the_public_api_serves_as_well() {
    if !has_fuse() {
        return;
    }
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let around = Environ::new().with(sim.env()).with([("PANTHEONFS_API".to_owned(), "v0".to_owned())]);
    let dir = around.path("mnt");
    fs::create_dir(&dir).expect("made");
    let place = dir.to_string_lossy().into_owned();
    around.run(&["mount", &format!("{}.dev", sim.site()), &place, "-o", &sim.options()]).ok();
    fs::write(dir.join("index.php"), "<?php // by v0\n").expect("written");
    assert_eq!(around.run(&["mode", "git", "--at", &place]).code(), 13);
    let said = around.run(&["commit", "-m", "By the public API", "--at", &place]).ok().out();
    assert!(said.contains("M index.php"), "{said}");
    assert_eq!(around.run(&["mode", "git", "--at", &place]).ok().out(), "git\n");
    eventually("the log has it", || around.run(&["log", &place]).ok().out().contains("By the public API"));
    around.run(&["sites"]).ok();
    around.run(&["umount", "--force", &place]).ok();
    let around = around.with([("PANTHEONFS_API".to_owned(), "v9".to_owned())]);
    around.run(&["sites"]).fails(2, &["PANTHEONFS_API=v9", "terminus or v0"]);
}

#[test]
fn a_known_site_mounts_without_the_api_and_a_checkout_says_which_site() {
    let Some(m) = Mounted::sim() else { return };
    let site = format!("{}.dev", m.sim_ref().site());
    m.umount().ok();
    let around = m.environ();
    let place = m.dir().to_string_lossy().into_owned();
    m.control("habit", r#"{"name": "api", "value": "error"}"#);
    around.run(&["mount", &site, &place, "-o", &m.sim_ref().options()]).ok();
    assert!(fs::read(m.path("index.php")).is_ok());
    m.umount().ok();
    around.run(&["mount", "sim-other.dev", &place, "-o", &m.sim_ref().options()]).fails(5, &["503"]);
    m.control("habit", r#"{"name": "api", "value": "ok"}"#);
    // In a checkout of the site the name can be left out.
    let checkout = around.path("checkout");
    let id = m.sim_ref().site_id();
    let url = format!("ssh://codeserver.dev.{id}@codeserver.dev.{id}.drush.in:2222/~/repository.git");
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    git(&["init", "-q", "-b", "feature-x", &checkout.to_string_lossy()]);
    around.run(&["mount", &place]).fails(2, &["the site is not given", "checkout"]);
    git(&["-C", &checkout.to_string_lossy(), "remote", "add", "origin", &url]);
    let mut command = around.command();
    command.current_dir(&checkout).args(["mount", &place, "-o", &m.sim_ref().options()]);
    let ran = crate::common::program::Ran(command.output().expect("runs")).ok();
    assert!(ran.out().starts_with("sim-wordpress.feature-x is mounted on"), "{}", ran.out());
}

/// What clients of today meet, and those of the recordings of 2016 did not.
#[test]
fn an_environment_is_found_alone_or_in_the_list_and_what_is_not_supported_is_final() {
    let Some(m) = Mounted::sim() else { return };
    let place = m.dir().to_string_lossy().into_owned();
    let by_kind = || get(&format!("{}/counters", m.sim_ref().control()))["api"]["by_kind"].take();
    let single = by_kind()["GET /api/sites/ID/environments/dev"].as_u64();
    assert!(single.is_some_and(|calls| calls <= 2), "one look by the command, one by the mount: {single:?}");
    assert_eq!(m.status()["mode_source"], "api");
    let around = m.environ();
    let other = around.path("other");
    fs::create_dir(&other).expect("made");
    let nosuch = format!("{}.nosuch", m.sim_ref().site());
    around
        .run(&["mount", &nosuch, &other.to_string_lossy(), "-o", &m.sim_ref().options()])
        .fails(3, &["no such environment"]);
    m.control("habit", r#"{"name": "single-environment", "value": "served"}"#);
    let feature = format!("{}.feature-x", m.sim_ref().site());
    around.run(&["mount", &feature, &other.to_string_lossy(), "-o", &m.sim_ref().options()]).ok();
    around.run(&["umount", &other.to_string_lossy()]).ok();
    m.control("habit", r#"{"name": "changes", "value": "409"}"#);
    around.run(&["mode", "git", "--at", &place]).fails(1, &["does not support this", "trying again does not help"]);
}

#[test]
fn sites_of_organizations_are_listed_and_each_once() {
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let around = Environ::new().with(sim.env());
    let json: Value = serde_json::from_str(&around.run(&["sites", "--json"]).ok().out()).expect("JSON");
    let names: Vec<&Value> = json.as_array().expect("a list").iter().map(|site| &site["name"]).collect();
    assert_eq!(names, ["sim-agency", "sim-wordpress"]);
}
