//! The shapes of the real API, field by field as clients recorded them, with values of our own: each decodes to what it means.

use pantheonfs::control::{Commit, ConnectionMode, Diffstat, Environment, Outcome, Profile, Site, Workflow};
use serde_json::{Value, json};

const COMMIT: &str = "1b2c3d4e5f60718293a4b5c6d7e8f90112233445";
const SITE: &str = "5a5a5a5a-1111-4222-8333-444444444444";
const USER: &str = "6b6b6b6b-1111-4222-8333-444444444444";
const JOB: &str = "7c7c7c7c-1111-4222-8333-444444444444";

/// A workflow as it was recorded while it ran: with the fields that mean nothing to a mount.
fn workflow(changed: Value) -> Value {
    let mut out = json!({
        "id": JOB, "key": "1471900000", "type": "sync_code", "phase": "started", "result": null, "reason": null,
        "environment": "dev", "environment_id": "dev", "site_id": SITE, "user_id": USER, "user_email": "dev@x.example",
        "description": "Sync code on \"dev\"", "active_description": "Synchronizing code on \"dev\"",
        "step": 2, "number_of_tasks": 4, "created_at": 1_471_900_000.25, "started_at": 1_471_900_001.5,
        "queued_time": 1.25, "run_time": null, "total_time": null, "keep_forever": false, "role": "owner",
        "task_ids": ["8d8d8d8d-1111-4222-8333-444444444444"], "trace_id": JOB, "params": {},
        "final_task": null, "final_task_id": null, "has_operation_log_output": false,
        "waiting_for_task_id": "8d8d8d8d-1111-4222-8333-444444444444",
        "waiting_for_task": { "type": "commit_push_code", "allow_concurrent": false, "messages": {} },
        "user": { "id": USER, "email": "dev@x.example" },
    });
    for (name, value) in changed.as_object().expect("an object") {
        out[name] = value.clone();
    }
    out
}

#[test]
fn workflows_run_succeed_fail_and_abort() {
    let of = |changed| Workflow::from_json(&workflow(changed)).expect("decodes");
    let running = of(json!({}));
    assert_eq!((running.id.as_str(), running.kind.as_str()), (JOB, "sync_code"));
    assert_eq!((running.environment.as_deref(), &running.outcome), (Some("dev"), &None));
    assert_eq!(running.description, "Synchronizing code on \"dev\"");
    // The phase is behind the result in recordings.
    let done = json!({ "result": "succeeded", "phase": "started", "finished_at": 1_471_900_009.0,
        "final_task": { "fn_name": "converge", "result": "succeeded", "reason": null, "messages": {} } });
    assert_eq!(of(done).outcome, Some(Outcome::Succeeded));
    let failed = |text: &str| Some(Outcome::Failed(text.into()));
    let refused = json!({ "result": "failed", "phase": "finished",
        "final_task": { "result": "failed", "reason": "build_status is building", "error_details": null, "messages": {} } });
    assert_eq!(of(refused).outcome, failed("build_status is building"));
    let by_message = json!({ "result": "failed", "final_task": { "reason": null, "messages": {
        "2016-08-19T19:08:26.137489": { "message": "Queued", "level": "INFO" },
        "2016-08-19T19:08:30.000000": { "message": { "message": "No space" }, "level": "ERROR" } } } });
    assert_eq!(of(by_message).outcome, failed("No space"));
    let aborted = json!({ "result": "aborted", "reason": { "message": "another job of the site runs" } });
    assert_eq!(of(aborted).outcome, failed("another job of the site runs"));
    // Jobs of a site have no environment.
    assert_eq!(of(json!({ "environment": null, "environment_id": null })).environment, None);
    let list = json!([workflow(json!({})), workflow(json!({ "id": null })), "nonsense"]);
    assert_eq!(Workflow::list(&list).len(), 1, "what is no workflow is left out");
}

fn environment(changed: Value) -> Environment {
    let mut value = json!({
        "on_server_development": true, "watchers": 1, "environment_created": 1_471_385_341,
        "dns_zone": "pantheonsite.io", "target_ref": "refs/heads/master", "target_commit": COMMIT,
        "diffstat": { "README.txt": { "status": "M", "additions": "2", "deletions": "0" } },
        "lock": { "locked": false, "username": null, "password": null },
        "randseed": "X", "styx_cluster": "styx-02", "php_version": "82", "is_initialized": true,
        "maintenance": { "enabled": false }, "environment_variables": {}, "quicksilver_configuration": [],
    });
    for (name, new) in changed.as_object().expect("an object") {
        value[name] = new.clone();
    }
    Environment::from_json(&value).expect("decodes")
}

#[test]
fn environments_of_all_times_say_mode_commit_and_changes() {
    let dev = environment(json!({}));
    assert_eq!((dev.mode, dev.target_commit.as_deref()), (ConnectionMode::Sftp, Some(COMMIT)));
    assert_eq!((dev.initialized, dev.dns_zone.as_deref()), (Some(true), Some("pantheonsite.io")));
    assert!(dev.lock.is_none(), "an open site has no lock");
    let file = &dev.diffstat.0[0];
    assert_eq!((&*file.path, &*file.status, &*file.additions, &*file.deletions), ("README.txt", "M", "2", "0"));
    // Truth values come as PHP writes them.
    for (value, mode) in [
        (json!(false), ConnectionMode::Git),
        (json!(1), ConnectionMode::Sftp),
        (json!("0"), ConnectionMode::Git),
        (json!(null), ConnectionMode::Git),
    ] {
        assert_eq!(environment(json!({ "on_server_development": value })).mode, mode, "{value}");
    }
    // Test and Live have neither mode nor changes.
    let live =
        json!({ "target_ref": "refs/tags/pantheon_live_2", "target_commit": COMMIT, "dns_zone": "pantheonsite.io" });
    let live = Environment::from_json(&live).expect("decodes");
    assert!(live.mode == ConnectionMode::Git && live.diffstat.is_empty() && live.initialized.is_none());
    let locked = json!({ "lock": { "locked": true, "username": "u", "password": "hidden" } });
    assert!(!format!("{:?}", environment(locked)).contains("hidden"), "the password is never printed");
    assert!(Environment::from_json(&json!("Not found.")).is_err());
}

#[test]
fn lists_of_changes_are_objects_or_empty_in_php_s_way() {
    for nothing in [json!({}), json!([]), json!(null)] {
        assert!(Diffstat::from_json(&nothing).is_empty(), "{nothing}");
    }
    let some = json!({
        "license.txt": { "status": "D", "additions": "0", "deletions": "385" },
        "logo.png": { "status": "A", "additions": "-", "deletions": "-" },
        "n.php": { "status": "M", "additions": 3, "deletions": 1 },
    });
    let all = Diffstat::from_json(&some);
    let lines: Vec<_> =
        all.0.iter().map(|f| format!("{} {} +{} -{}", f.status, f.path, f.additions, f.deletions)).collect();
    assert_eq!(lines, ["D license.txt +0 -385", "A logo.png +- --", "M n.php +3 -1"]);
}

#[test]
fn sites_people_and_commits_are_understood() {
    let site = json!({
        "id": SITE, "name": "my-site", "label": "My Site", "framework": "drupal8", "php_version": "82", "frozen": false,
        "created": 1_471_385_341, "owner": USER, "holder_id": USER, "holder_type": "user", "service_level": "free",
        "plan_name": "Sandbox", "settings": { "max_num_cdes": 10 }, "last_code_push": { "timestamp": "2016-08-18T23:31:15" },
        "upstream": { "url": "https://x.example/drupal", "product_id": "p", "branch": "master" },
    });
    let found = Site::from_json(&site).expect("decodes");
    assert_eq!((&*found.id, &*found.name, &*found.framework, found.frozen), (SITE, "my-site", "drupal8", false));
    let member = json!([{ "id": SITE, "site_id": SITE, "role": "developer", "archived": false, "site": site }]);
    let (sites, ids) = Site::memberships(&member);
    assert_eq!((sites.len(), &*sites[0].name, ids.as_slice()), (1, "my-site", &[SITE.to_owned()][..]));
    let person = json!({ "id": USER, "email": "dev@x.example", "created_at": 1_400_000_000, "feature_flags": [],
        "profile": { "firstname": "Dev", "lastname": "X", "full_name": "Dev X" } });
    let person = Profile::from_json(&person).expect("decodes");
    assert_eq!((&*person.email, &*person.full_name), ("dev@x.example", "Dev X"));
    let log = json!([{ "hash": COMMIT, "author": "Dev X", "email": "dev@x.example", "datetime": "2016-08-18T23:31:15",
        "message": "Change\n", "labels": ["test", "dev"], "parents": [], "gravitar_url": "https://x.example/a" }]);
    let log = Commit::list(&log).expect("decodes");
    assert_eq!((&*log[0].hash, log[0].message.trim(), log[0].labels.len()), (COMMIT, "Change", 2));
}
