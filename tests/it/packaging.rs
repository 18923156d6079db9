//! What packages are made of: manual pages, completions, and the lists of files. `scripts/package-test` installs a package.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::program::{Environ, Ran};

const STAGE: &str = "target/dist/";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Manual pages and completions as `scripts/package` makes them, with the program of this test.
fn staged(around: &Environ) -> PathBuf {
    let dir = around.path("stage");
    let mut command = Command::new(root().join("scripts/package"));
    around.dress(&mut command);
    command.arg("--stage").arg(&dir).env("PANTHEONFS", env!("CARGO_BIN_EXE_pantheonfs"));
    Ran(command.output().expect("runs")).ok();
    dir
}

/// The names of all commands that help lists, with `prefix` before them.
pub fn commands(around: &Environ, prefix: &[&str]) -> Vec<String> {
    let help = around.run(&[prefix, &["--help"]].concat()).ok().out();
    let Some(section) = help.split("\nCommands:\n").nth(1) else { return Vec::new() };
    let lines = section.lines().take_while(|line| !line.is_empty());
    let indented = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut out = Vec::new();
    for name in indented.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        let words = [prefix, &[name]].concat();
        out.push(words.join("-"));
        out.extend(commands(around, &words));
    }
    out
}

/// The rows of `assets` in Cargo.toml: source, destination and mode.
fn assets() -> Vec<[String; 3]> {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("readable");
    let body = manifest.split("\nassets = [\n").nth(1).and_then(|rest| rest.split("\n]").next()).expect("assets");
    let cells = |line: &str| line.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    body.lines().map(|line| cells(line).try_into().unwrap_or_else(|_| panic!("three cells: {line}"))).collect()
}

/// The files that a pattern with at most one `*`, in its last part, stands for.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(|name| name.to_str()).expect("a name");
    let (head, tail) = name.split_once('*').unwrap_or((name, ""));
    let is_meant =
        |found: &str| if name.contains('*') { found.starts_with(head) && found.ends_with(tail) } else { found == name };
    let entries = fs::read_dir(pattern.parent().expect("a directory")).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(is_meant))
        .collect()
}

#[test]
fn every_command_has_its_manual_page_in_the_package() {
    let around = Environ::new();
    let pages = staged(&around).join("man");
    let expected = commands(&around, &[]).into_iter().map(|name| format!("pantheonfs-{name}.1"));
    let expected: BTreeSet<String> = expected.chain(["pantheonfs.1".into(), "mount.pantheonfs.8".into()]).collect();
    assert!(expected.contains("pantheonfs-rescue-list.1") && expected.len() > 30, "{expected:?}");
    let made =
        fs::read_dir(&pages).expect("listed").flatten().map(|entry| entry.file_name().into_string().expect("text"));
    assert_eq!(made.collect::<BTreeSet<String>>(), expected);
    for name in expected.iter().filter(|name| name.ends_with(".1")) {
        let page = fs::read_to_string(pages.join(name)).expect("read");
        let title = format!(".TH {} 1", name.trim_end_matches(".1"));
        assert!(page.contains(&title) && page.contains(".SH SYNOPSIS"), "{name}: {page}");
    }
    let helper = fs::read_to_string(pages.join("mount.pantheonfs.8")).expect("read");
    assert_eq!(helper, ".so man1/pantheonfs-mount.1\n");
}

#[test]
fn the_package_has_a_source_for_each_of_its_files() {
    let around = Environ::new();
    let stage = staged(&around);
    let mut destinations = BTreeSet::new();
    for [source, destination, mode] in assets() {
        let is_program = source == "target/release/pantheonfs";
        let pattern = source.strip_prefix(STAGE).map_or_else(|| root().join(&source), |made| stage.join(made));
        let found = matching(&pattern);
        assert!(is_program || !found.is_empty(), "{source} is not made");
        for file in found {
            let meta = file.symlink_metadata().expect("there");
            assert!(meta.is_symlink() || meta.len() > 0, "{} is empty", file.display());
        }
        let expected = if destination.ends_with("bin/") {
            "755"
        } else if destination.contains("sbin/") {
            "777"
        } else {
            "644"
        };
        assert_eq!(mode, expected, "{destination}");
        destinations.insert(destination);
    }
    for place in
        ["usr/bin/", "usr/sbin/mount.pantheonfs", "usr/share/man/man1/", "usr/share/man/man8/", "usr/lib/systemd/user/"]
    {
        assert!(destinations.contains(place), "{place} is not in the package");
    }
    assert_eq!(fs::read_link(stage.join("mount.pantheonfs")).expect("a link"), Path::new("../bin/pantheonfs"));
}

#[test]
fn completions_are_scripts_of_their_shells() {
    let around = Environ::new();
    let dir = staged(&around).join("completions");
    for (shell, file) in [("bash", "pantheonfs"), ("zsh", "_pantheonfs"), ("fish", "pantheonfs.fish")] {
        let script = fs::read_to_string(dir.join(file)).expect("read");
        assert!(script.contains("umount") && script.contains("rescue"), "{file}");
        if !crate::common::has_program(shell) {
            crate::common::skip(&format!("{shell} is missing: its completion script is not parsed"));
            continue;
        }
        let parsed = Command::new(shell).arg("-n").arg(dir.join(file)).output().expect("runs");
        Ran(parsed).ok();
    }
}

#[test]
fn readme_names_the_files_of_this_version() {
    let readme = fs::read_to_string(root().join("README.md")).expect("readable");
    for name in ["pantheonfs_{}-1_amd64.deb", "pantheonfs-{}-x86_64-linux.tar.gz"] {
        let name = name.replace("{}", env!("CARGO_PKG_VERSION"));
        assert!(readme.contains(&name), "README does not name {name}");
    }
}
