//! `pantheonfs list`: the mounts of the user, with their state.

use serde_json::{Value, json};

use super::ask::status_of;
use super::environ::Environ;
use super::exit::CliResult;
use super::record::{self, UserMount};
use super::report;
use super::unit::{self, AtLogin};
use crate::text::{self, visible};

/// See the module header.
pub(super) fn run(as_json: bool) -> CliResult<()> {
    let around = Environ::look()?;
    let mounts = record::mounts(&around)?;
    let at_login = unit::enabled(&around.units()?);
    let is_at_login = |mount: &UserMount| at_login.iter().any(|unit| unit.source == mount.record.source);
    let is_mounted = |unit: &&AtLogin| mounts.iter().any(|mount| mount.record.source == unit.source);
    let absent: Vec<&AtLogin> = at_login.iter().filter(|unit| !is_mounted(unit)).collect();
    let statuses = ask_all(&mounts);
    let all = mounts.iter().zip(&statuses);
    if as_json {
        let list = all.map(|(mount, status)| to_json(mount, status.as_ref(), is_at_login(mount)));
        let list: Vec<Value> = list.chain(absent.iter().map(|unit| absent_to_json(unit))).collect();
        return report::print(text::json(&list.into()).as_bytes());
    }
    if mounts.is_empty() && absent.is_empty() {
        eprintln!("pantheonfs: nothing is mounted; `pantheonfs mount SITE` mounts Dev of a site");
    }
    let rows: Vec<[String; 3]> = all
        .map(|(mount, status)| {
            let place = visible(mount.record.mountpoint.as_os_str().as_encoded_bytes());
            let login = if is_at_login(mount) { ", at login" } else { "" };
            [visible(&mount.record.source), place, describe(mount, status.as_ref()) + login]
        })
        .chain(absent.iter().map(|unit| absent_row(unit)))
        .collect();
    report::print(table(&rows).as_bytes())
}

/// Asks all at a time, so that those that hang are waited for only once.
fn ask_all(mounts: &[UserMount]) -> Vec<Option<Value>> {
    std::thread::scope(|scope| {
        let ask = |mount: &UserMount| {
            let asked = mount.alive.then(|| mount.record.mountpoint.clone());
            scope.spawn(move || asked.and_then(|place| status_of(&place)))
        };
        let asking: Vec<_> = mounts.iter().map(ask).collect();
        asking.into_iter().map(|asked| asked.join().ok().flatten()).collect()
    })
}

fn place(unit: &AtLogin) -> Option<String> {
    unit.mountpoint.as_ref().map(|place| place.to_string_lossy().into_owned())
}

/// What is mounted at login and is not mounted now, for people.
fn absent_row(unit: &AtLogin) -> [String; 3] {
    let place = place(unit).unwrap_or_else(|| format!("~/pantheon/{}", unit.source));
    let text = format!("not mounted, at login; `systemctl --user status {}` says why", unit.unit());
    [visible(&unit.source), visible(place), text]
}

/// The same, for programs.
fn absent_to_json(unit: &AtLogin) -> Value {
    json!({
        "source": unit.source, "mountpoint": place(unit), "pid": null, "state": "unmounted", "at_login": true, "mode": null,
        "code_writable": null, "link_up": null, "waiting": null, "uncommitted": null, "conflicts": null, "stranded": null,
    })
}

fn to_json(mount: &UserMount, status: Option<&Value>, at_login: bool) -> Value {
    let of = |key: &str| status.map_or(Value::Null, |status| status[key].clone());
    let count = |key: &str| status.and_then(|status| status[key].as_array()).map(Vec::len);
    json!({
        "source": mount.record.source,
        "mountpoint": mount.record.mountpoint.to_string_lossy(),
        "pid": mount.alive.then_some(mount.record.pid),
        "state": state(mount, status),
        "at_login": at_login,
        "mode": of("mode"),
        "code_writable": status.map_or(Value::Null, |status| status["code"]["writable"].clone()),
        "link_up": status.map_or(Value::Null, |status| status["link"]["up"].clone()),
        "waiting": of("waiting"),
        "uncommitted": count("uncommitted"),
        "conflicts": count("conflicts"),
        "stranded": count("stranded"),
    })
}

/// One word for programs.
fn state(mount: &UserMount, status: Option<&Value>) -> &'static str {
    match (mount.alive, status) {
        (false, _) => "dead",
        (true, None) => "hanging",
        (true, Some(_)) => "ok",
    }
}

/// The state of a mount as a line for people.
pub(super) fn describe(mount: &UserMount, status: Option<&Value>) -> String {
    let Some(status) = status else {
        let text = if mount.alive {
            "does not answer; `pantheonfs umount --force` removes it"
        } else {
            "its driver has ended; mount again, or `pantheonfs umount`"
        };
        return text.to_owned();
    };
    let mut parts = Vec::new();
    if status["environment"].is_string() {
        parts.push(format!("{} mode", visible(status["mode"].as_str().unwrap_or_default())));
    }
    let writable = status["code"]["writable"].as_bool() == Some(true);
    parts.push(if writable { "code writable" } else { "code read-only" }.to_owned());
    parts.push(if status["link"]["up"].as_bool() == Some(true) { "link up" } else { "link down" }.to_owned());
    let count = |key: &str| status[key].as_array().map_or(0, |list| list.len() as u64);
    let numbers = [
        (status["waiting"].as_u64().unwrap_or_default(), "to send"),
        (count("uncommitted"), "uncommitted"),
        (count("conflicts"), "in conflict"),
        (count("stranded"), "stranded"),
    ];
    parts.extend(numbers.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")));
    parts.join(", ")
}

/// Rows with aligned columns.
fn table(rows: &[[String; 3]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let (first, second) = (width(0), width(1));
    rows.iter().map(|[a, b, c]| format!("{a:first$}  {b:second$}  {c}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::record::Record;

    fn mount(alive: bool) -> UserMount {
        let record = Record { source: "mysite.dev".into(), mountpoint: "/home/me/m".into(), pid: 7, made: Vec::new() };
        UserMount { record, alive }
    }

    #[test]
    fn the_state_of_a_mount_is_said_in_a_line() {
        let status = json!({
            "environment": "dev", "mode": "sftp", "code": { "writable": true }, "link": { "up": false }, "waiting": 2,
            "uncommitted": [1, 2, 3], "conflicts": [], "stranded": ["x"],
        });
        let text = describe(&mount(true), Some(&status));
        assert_eq!(text, "sftp mode, code writable, link down, 2 to send, 3 uncommitted, 1 stranded");
        assert!(describe(&mount(true), None).contains("does not answer"));
        assert!(describe(&mount(false), None).contains("has ended"));
        let answer = to_json(&mount(true), Some(&status), true);
        assert_eq!((&answer["state"], &answer["stranded"]), (&json!("ok"), &json!(1)));
        assert_eq!(to_json(&mount(false), None, false)["state"], json!("dead"));
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [["a".into(), "bb".into(), "c".into()], ["aaa".into(), "b".into(), "c".into()]];
        assert_eq!(table(&rows), "a    bb  c\naaa  b   c\n");
    }
}
