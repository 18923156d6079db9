//! `docs/JSON.md` and the program agree: every command that has `--json` is a heading there, and real outputs have the fields and
//! types of its table.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::eventually;
use crate::common::mounted::Mounted;
use crate::common::program::Ran;
use crate::packaging::commands;
use crate::resolve::conflict;

/// The rows of a table: path of a field, and its types.
type Table = BTreeMap<String, Vec<String>>;

/// The tables of the document, by each command in their headings.
fn tables() -> BTreeMap<String, Table> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/JSON.md")).expect("readable");
    let mut out = BTreeMap::new();
    for section in text.split("\n## ").skip(1) {
        let (heading, body) = section.split_once('\n').expect("a body");
        let rows = body.lines().filter(|line| line.starts_with("| `"));
        let table: Table = rows
            .map(|row| {
                let cells: Vec<&str> = row.split(" | ").collect();
                let path = cells[0].trim_start_matches("| ").trim_matches('`').to_owned();
                (path, cells[1].split(", ").map(str::to_owned).collect())
            })
            .collect();
        assert!(!table.is_empty(), "{heading} has no table");
        for command in heading.split('`').skip(1).step_by(2) {
            assert!(out.insert(command.to_owned(), table.clone()).is_none(), "{command} is there twice");
        }
    }
    out
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "text",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// What is wrong with a value at a path of the table.
fn faults(value: &Value, path: &str, table: &Table) -> Vec<String> {
    let mut out = Vec::new();
    let is_inner = path.is_empty() || (path.ends_with("[]") && value.is_object());
    if !is_inner {
        let found = type_of(value);
        match table.get(path) {
            None => return vec![format!("{path} is not in the table")],
            Some(types) => {
                let fits = |one: &String| {
                    let one = one.trim_end_matches('?');
                    one == found || (one == "number" && found == "integer")
                };
                if !types.iter().any(fits) {
                    out.push(format!("{path} is {found}, and not {types:?}"));
                }
            }
        }
    }
    match value {
        Value::Array(all) => all.iter().for_each(|one| out.extend(faults(one, &format!("{path}[]"), table))),
        Value::Object(fields) => out.extend(faults_of_fields(fields, path, table)),
        _ => {}
    }
    out
}

fn faults_of_fields(fields: &serde_json::Map<String, Value>, path: &str, table: &Table) -> Vec<String> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    let any = format!("{prefix}*");
    let mut out = Vec::new();
    for (name, value) in fields {
        let below = if table.contains_key(&any) { any.clone() } else { format!("{prefix}{name}") };
        out.extend(faults(value, &below, table));
    }
    let required = table.iter().filter(|(_, types)| types.iter().all(|one| !one.ends_with('?')));
    let names =
        required.filter_map(|(row, _)| row.strip_prefix(&prefix).filter(|name| !name.contains(['.', '[', '*'])));
    out.extend(names.filter(|name| !fields.contains_key(*name)).map(|name| format!("{prefix}{name} is missing")));
    out
}

/// Outputs that are compared with the document, and which commands they were of.
struct Checked<'a> {
    m: &'a Mounted,
    tables: BTreeMap<String, Table>,
    done: BTreeSet<String>,
}

impl Checked<'_> {
    /// Runs a command in the mount; its output is that of the heading.
    fn run(&mut self, heading: &str, words: &[&str]) {
        let mut command = self.m.environ().command();
        let out = Ran(command.args(words).arg("--json").current_dir(self.m.dir()).output().expect("runs")).out();
        self.check(heading, &out);
    }

    fn check(&mut self, heading: &str, output: &str) {
        let value: Value = serde_json::from_str(output).unwrap_or_else(|e| panic!("{heading}: {e}: {output}"));
        let table = self.tables.get(heading).unwrap_or_else(|| panic!("{heading} is not in docs/JSON.md"));
        let wrong = faults(&value, "", table);
        assert!(wrong.is_empty(), "{heading}: {wrong:?} in {value:#}");
        assert!(value.as_array().is_none_or(|all| !all.is_empty()), "{heading}: an empty list shows nothing");
        self.done.insert(heading.to_owned());
    }

    /// Looks that change nothing.
    fn look(&mut self) {
        eventually("the platform's own list is known", || {
            self.m.status()["pending"].as_array().is_some_and(|all| !all.is_empty())
        });
        for words in
            ["list", "status", "mode", "pending", "diff", "log", "connection", "sites", "rescue list", "local list"]
        {
            self.run(words, &words.split(' ').collect::<Vec<_>>());
        }
        for object in ["dev:index.php", "dev:"] {
            self.run("show", &["show", object]);
        }
        let options = self.m.sim_ref().options();
        let site = format!("{}.dev", self.m.sim_ref().site());
        self.run("doctor", &["doctor", &site, "-o", &options]);
        let report = self.m.environ().path("report.txt").to_string_lossy().into_owned();
        self.run("report", &["report", "-o", &report]);
    }

    /// The other commands in a mount.
    fn work(&mut self) {
        self.run("hydrate", &["hydrate"]);
        self.run("local add", &["local", "add", "made-here/"]);
        self.run("local remove", &["local", "remove", "made-here/"]);
        self.run("mode sftp", &["mode", "sftp"]);
        self.run("revert", &["revert", "index.php"]);
        fs::write(self.m.path("index.php"), "<?php // again\n").expect("written");
        self.run("sync", &["sync"]);
        let to = self.m.environ().path("restored").to_string_lossy().into_owned();
        fs::create_dir(&to).expect("made");
        self.run("rescue restore", &["rescue", "restore", "index.php", "--to", &to]);
        conflict(self.m, "wp-load.php");
        self.run("status", &["status"]);
        self.run("rescue list", &["rescue", "list"]);
        self.run("resolve", &["resolve", "wp-load.php", "--ours"]);
        for (key, value) in [("user.name", "Dev"), ("user.email", "dev@sim.example")] {
            let mut git = Command::new("git");
            self.m.environ().dress(&mut git);
            assert!(git.args(["config", "--global", key, value]).status().expect("git runs").success());
        }
        self.run("commit", &["commit", "-m", "A message"]);
        self.run("status", &["status"]);
    }
}

/// Every command that has `--json`.
fn with_json(m: &Mounted) -> Vec<String> {
    let all = commands(m.environ(), &[]).into_iter().map(|name| name.replace('-', " "));
    let has = |name: &String| {
        let words: Vec<&str> = name.split(' ').chain(["--help"]).collect();
        m.environ().run(&words).ok().out().contains("--json")
    };
    all.filter(has).collect()
}

#[test]
fn outputs_are_as_documented() {
    let Some(m) = Mounted::sim() else { return };
    let mut checked = Checked { m: &m, tables: tables(), done: BTreeSet::new() };
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    checked.run("sync", &["sync"]);
    checked.look();
    checked.work();
    checked.look_at_login_and_end();
    let documented: BTreeSet<String> = checked.tables.keys().cloned().collect();
    // `mode git` is `mode sftp` with the other word.
    let missing: Vec<_> = documented.difference(&checked.done).filter(|name| *name != "mode git").collect();
    assert!(missing.is_empty(), "documented and not compared with an output: {missing:?}");
    for command in with_json(&m) {
        assert!(documented.contains(&command), "{command} --json is not in docs/JSON.md");
    }
}

impl Checked<'_> {
    fn look_at_login_and_end(&mut self) {
        let source = format!("{}.dev", self.m.sim_ref().site());
        let bin = self.m.environ().path("bin");
        fs::create_dir(&bin).expect("made");
        std::os::unix::fs::symlink("/bin/true", bin.join("systemctl")).expect("linked");
        for words in ["enable", "disable"] {
            let mut command = self.m.environ().command();
            let ran = command.args([words, &source, "--json"]).env("PATH", &bin).output().expect("runs");
            self.check(words, &Ran(ran).ok().out());
        }
        let token =
            self.m.sim_ref().env().into_iter().find(|(name, _)| name == "TERMINUS_MACHINE_TOKEN").expect("one").1;
        let file = self.m.environ().path("token");
        fs::write(&file, token).expect("written");
        let mut command = self.m.environ().command();
        command.args(["login", "--json"]).stdin(fs::File::open(file).expect("opened"));
        self.check("login", &Ran(command.output().expect("runs")).ok().out());
        let sim = serde_json::to_string(&self.m.sim_ref().describe()).expect("JSON");
        self.check("sim", &sim);
        let dir = self.m.dir().to_string_lossy().into_owned();
        self.check("umount", &self.m.environ().run(&["umount", &dir, "--json"]).ok().out());
        self.m.mount(&source, &self.m.sim_ref().options()).ok();
        self.check("umount --all", &self.m.environ().run(&["umount", "--all", "--json"]).ok().out());
    }
}

#[test]
fn the_status_of_another_server_is_as_documented() {
    let Some(m) = Mounted::openssh("") else { return };
    let wrong = faults(&m.status(), "", &tables()["status"]);
    assert!(wrong.is_empty(), "{wrong:?}");
    assert_eq!(m.status()["schema"], 1);
}

#[test]
fn a_difference_is_noticed() {
    let table = Table::from([
        ("[].name".into(), vec!["text".into(), "null".into()]),
        ("[].count".into(), vec!["integer".into()]),
        ("[].more".into(), vec!["object?".into()]),
        ("[].more.*".into(), vec!["number".into()]),
    ]);
    let of = |value: Value| faults(&value, "", &table);
    let fine =
        serde_json::json!([{ "name": null, "count": 1 }, { "name": "x", "count": 2, "more": { "a": 1, "b": 2.5 } }]);
    assert_eq!(of(fine), Vec::<String>::new());
    assert_eq!(of(serde_json::json!([{ "name": "x" }])), ["[].count is missing"]);
    assert_eq!(of(serde_json::json!([{ "name": "x", "count": 1, "new": 1 }])), ["[].new is not in the table"]);
    assert_eq!(of(serde_json::json!([{ "name": "x", "count": 1.5 }])).len(), 1);
    assert_eq!(of(serde_json::json!([{ "name": "x", "count": 1, "more": { "a": "text" } }])).len(), 1);
}
