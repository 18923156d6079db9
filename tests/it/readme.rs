//! What README and docs/REFERENCE.md show, run as a new user runs it, on a simulated site.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::mounted::Mounted;
use crate::common::program::{Environ, Ran};
use crate::common::{has_fuse, has_program};

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).expect(name)
}

/// First cells of the table below a heading, without their backticks.
fn first_column(document: &str, heading: &str) -> Vec<String> {
    let section = document.split(&format!("\n{heading}\n")).nth(1).expect("the heading is there");
    let rows = section.lines().skip_while(|line| !line.starts_with("| ---")).skip(1);
    let cells = rows.take_while(|line| line.starts_with("| ")).filter_map(|row| row.split(" | ").next());
    cells.flat_map(|cell| cell.trim_start_matches("| ").split(", ")).map(|name| name.replace('`', "")).collect()
}

#[test]
fn every_file_of_pantheon_is_in_the_table() {
    let Some(m) = Mounted::sim() else { return };
    let table = first_column(&document("docs/REFERENCE.md"), "## `.pantheon/`");
    for name in &table {
        let path = m.path(".pantheon").join(name);
        match name.strip_suffix('/') {
            Some(_) => drop(fs::read_dir(&path).unwrap_or_else(|e| panic!("{name}: {e}"))),
            None => drop(fs::read(&path).unwrap_or_else(|e| panic!("{name}: {e}"))),
        }
    }
    let known: BTreeSet<&str> = table.iter().map(|name| name.trim_end_matches('/')).collect();
    for entry in fs::read_dir(m.path(".pantheon")).expect("listed").flatten() {
        let name = entry.file_name().into_string().expect("text");
        assert!(known.contains(&*name), "{name} is not in the table of docs/REFERENCE.md");
    }
}

#[test]
fn every_command_speaks_json() {
    let Some(m) = Mounted::sim() else { return };
    let (site, dir) = (format!("{}.dev", m.sim_ref().site()), m.dir().to_string_lossy().into_owned());
    let in_mount = |words: &[&str]| {
        let mut command = m.environ().command();
        let ran = Ran(command.args(words).arg("--json").current_dir(m.dir()).output().expect("runs")).ok();
        serde_json::from_str::<serde_json::Value>(&ran.out())
            .unwrap_or_else(|e| panic!("{words:?}: {e}: {}", ran.out()));
    };
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    let looks: [&[&str]; 9] = [
        &["sync"],
        &["status"],
        &["mode"],
        &["mode", "sftp"],
        &["pending"],
        &["diff"],
        &["diff", "index.php"],
        &["log"],
        &["connection"],
    ];
    looks.into_iter().for_each(in_mount);
    in_mount(&["revert", "index.php"]);
    fs::write(m.path("index.php"), "<?php // changed again\n").expect("written");
    for name in ["user.name", "user.email"] {
        let mut git = Command::new("git");
        m.environ().dress(&mut git);
        assert!(git.args(["config", "--global", name, "dev@sim.example"]).status().expect("git runs").success());
    }
    in_mount(&["commit", "-m", "A message"]);
    in_mount(&["sites"]);
    in_mount(&["doctor", &site, "-o", &m.sim_ref().options()]);
    in_mount(&["rescue", "list"]);
    let ran = m.environ().run(&["umount", &dir, "--json"]).ok();
    serde_json::from_str::<serde_json::Value>(&ran.out()).expect("JSON");
}

#[test]
fn completions_and_manual_can_be_cut_off() {
    let around = Environ::new();
    let all = ["completions bash", "completions zsh", "completions fish", "man"];
    for words in all {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        // As with `| true`.
        drop(reader);
        let mut command = around.command();
        let ran = Ran(command.args(words.split(' ')).stdout(writer).output().expect("runs"));
        assert_eq!((ran.code(), ran.err()), (0, String::new()), "{words}");
        let whole = around.run(&words.split(' ').collect::<Vec<_>>()).ok();
        assert!(whole.out().contains("umount"), "{words}");
    }
}

/// The texts of the picture, with every figure as 0.
fn texts(svg: &str) -> Vec<String> {
    let lines = svg.lines().filter(|line| line.starts_with("<text"));
    let bare =
        |line: &str| line.split('<').filter_map(|part| part.split_once('>')).map(|(_, text)| text).collect::<String>();
    lines.map(|line| bare(line).chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect()).collect()
}

#[test]
fn the_picture_is_what_the_program_prints() {
    if !has_fuse() || !has_program("python3") {
        return;
    }
    let around = Environ::new();
    let drawn = around.path("session.svg");
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/picture"));
    around.dress(&mut command);
    command.arg(&drawn).env("PANTHEONFS", env!("CARGO_BIN_EXE_pantheonfs"));
    Ran(command.output().expect("runs")).ok();
    let drawn = texts(&fs::read_to_string(drawn).expect("drawn"));
    assert!(drawn.iter().any(|line| line.contains("Read-only file system")), "{drawn:?}");
    assert_eq!(texts(&document("docs/session.svg")), drawn, "scripts/picture draws it again");
}

#[test]
fn readme_is_short_and_its_links_lead_somewhere() {
    assert!(document("README.md").lines().count() < 150);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = vec!["README.md".to_owned(), "CONTRIBUTING.md".to_owned()];
    let docs = fs::read_dir(root.join("docs")).expect("listed").flatten().map(|entry| entry.file_name());
    names.extend(docs.filter_map(|name| Some(format!("docs/{}", name.to_str().filter(|name| name.ends_with(".md"))?))));
    for name in names {
        let dir = root.join(&name).parent().expect("a directory").to_owned();
        let text = document(&name);
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let file = link.split('#').next().expect("a part");
            assert!(file.is_empty() || dir.join(file).exists(), "{name}: {link} leads nowhere");
        }
    }
}
