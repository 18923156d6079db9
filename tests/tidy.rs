//! The shape of the source, held mechanically: which room may use which, which crate is named where, how long files get.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Every room and the rooms that it may use.
const ROOMS: [(&str, &[&str]); 28] = [
    ("path", &[]),
    ("attr", &["path"]),
    ("clock", &[]),
    ("pool", &[]),
    ("transport", &["clock"]),
    ("gate", &["attr"]),
    ("sftp", &["path", "attr", "clock", "transport"]),
    ("mirror", &["path", "attr"]),
    ("control", &["clock"]),
    ("inode", &["path", "attr", "clock"]),
    ("cache", &["path", "attr"]),
    ("remote", &["transport", "sftp", "gate", "path", "attr", "clock"]),
    ("env", &["control", "gate", "path", "attr", "clock"]),
    ("sim", &["control", "path", "attr"]),
    ("content", &["cache", "mirror", "pool", "remote", "path", "attr", "clock"]),
    ("write", &["remote", "gate", "cache", "path", "attr", "clock"]),
    ("pending", &["mirror", "path", "attr"]),
    ("vfiles", &["env", "control", "pending", "path"]),
    ("error", &["clock", "content", "gate", "path", "remote"]),
    ("admit", &["attr", "env", "error", "gate", "path", "remote"]),
    ("view", &["admit", "attr", "cache", "clock", "content", "error", "inode", "path", "pool", "remote"]),
    (
        "upload",
        &[
            "admit", "attr", "cache", "clock", "content", "error", "gate", "inode", "path", "pool", "remote", "view",
            "write",
        ],
    ),
    (
        "reader",
        &[
            "attr", "cache", "clock", "content", "env", "error", "inode", "mirror", "path", "pending", "remote",
            "upload", "vfiles", "view",
        ],
    ),
    (
        "dotdir",
        &[
            "admit", "attr", "cache", "control", "env", "error", "gate", "inode", "mirror", "path", "pending",
            "reader", "remote", "upload", "vfiles", "view", "write",
        ],
    ),
    (
        "fs",
        &[
            "admit", "attr", "clock", "content", "dotdir", "env", "error", "gate", "inode", "mirror", "path", "reader",
            "remote", "upload", "vfiles", "view", "write",
        ],
    ),
    ("fuse", &["fs", "attr", "path", "pool", "inode"]),
    (
        "cli",
        &[
            "attr",
            "clock",
            "control",
            "env",
            "fs",
            "fuse",
            "mirror",
            "gate",
            "path",
            "pending",
            "remote",
            "sim",
            "transport",
            "vfiles",
            "write",
        ],
    ),
    ("main", &["cli"]),
];

/// Crates that only some rooms may name.
const CRATES: [(&str, &[&str]); 8] = [
    ("fuser", &["fuse"]),
    ("ssh2", &["transport"]),
    ("git2", &["sim", "mirror"]),
    ("clap", &["cli"]),
    ("ureq", &["control"]),
    ("axum", &["sim"]),
    ("tokio", &["sim"]),
    ("russh", &["sim"]),
];

/// Rooms that run programs. Never through a shell: words are words, whatever is in them.
const PROGRAMS: [&str; 6] = ["cli", "content", "fuse", "mirror", "sim", "transport"];

/// Lines of a file at most.
const MAX_LINES: usize = 600;

fn sources() -> BTreeMap<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let (mut out, mut dirs) = (BTreeMap::new(), vec![root.clone()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("src can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let text = fs::read_to_string(&path).expect("a source can be read");
                out.insert(path.strip_prefix(&root).expect("below src").to_owned(), text);
            }
        }
    }
    out
}

fn room(path: &Path) -> String {
    let first = path.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// The code without comments and without what is inside quotes, as far as a test needs that.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Words after `crate::`, groups included.
fn crate_uses(code: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (at, _) in code.match_indices("crate::").filter(|(at, _)| !code[..*at].ends_with('$')) {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                let ends = depth == 0 || (depth == 1 && c == ',');
                if ends {
                    out.insert(first_word(word.trim()));
                    word.clear();
                } else {
                    word.push(c);
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            out.insert(first_word(rest));
        }
    }
    out.remove("");
    out
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

#[test]
fn rooms_use_only_what_the_table_allows() {
    let table: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
    for (path, text) in sources() {
        let here = room(&path);
        if here == "lib" {
            continue;
        }
        let allowed = table.get(here.as_str()).unwrap_or_else(|| panic!("{here} is not in the table of rooms"));
        for used in crate_uses(&code(&text)) {
            assert!(used == here || allowed.contains(&used.as_str()), "{}: {here} must not use {used}", path.display());
        }
    }
}

#[test]
fn the_table_has_no_cycle_and_no_ghosts() {
    let files: BTreeSet<String> = sources().keys().map(|path| room(path)).collect();
    for (index, (name, uses)) in ROOMS.iter().enumerate() {
        assert!(files.contains(*name), "{name} is in the table and not in src");
        for used in *uses {
            let above = ROOMS[..index].iter().any(|(other, _)| other == used);
            assert!(above, "{name} uses {used}, which does not come before it");
        }
    }
}

#[test]
fn crates_stay_in_their_rooms() {
    for (path, text) in sources() {
        let (here, code) = (room(&path), code(&text));
        for (name, rooms) in CRATES {
            let named = code.contains(&format!("{name}::")) || code.contains(&format!("use {name}"));
            // `russh_sftp` is not `russh`, and so on.
            let named = named && !code.split(&format!("{name}::")).all(|before| before.ends_with(['_', '"']));
            assert!(!named || rooms.contains(&here.as_str()), "{}: {name} is named outside {rooms:?}", path.display());
        }
        let talks = ["std::env::", "println!", "process::exit"]
            .iter()
            .any(|word| code.match_indices(word).any(|(at, _)| !code[..at].ends_with('e')));
        assert!(!talks || here == "cli", "{}: only cli reads the environment, prints or exits", path.display());
    }
}

/// The part of a source that is not its unit tests.
fn without_tests(code: &str) -> &str {
    code.split("#[cfg(test)]\nmod tests").next().unwrap_or_default()
}

#[test]
fn programs_are_run_in_few_rooms_and_never_through_a_shell() {
    for (path, text) in sources() {
        let code = code(&text);
        let code = without_tests(&code);
        if code.contains("Command::new") {
            let here = room(&path);
            assert!(PROGRAMS.contains(&here.as_str()), "{}: runs a program", path.display());
        }
        for shell in ["\"sh\"", "\"bash\"", "/bin/sh", "/bin/bash", "\"-c\"", "libc::system", "popen"] {
            // `git -c` is no shell, and the simulator's repository has a hook.
            let git = room(&path) == "sim" || shell == "\"-c\"" && code.contains("Command::new(\"git\")");
            assert!(git || !code.contains(shell), "{}: {shell} smells of a shell", path.display());
        }
    }
}

/// Whoever knows the name of a file before it is made can put another one there: names come from `tempfile` or from the
/// kernel's randomness, never from the clock or the process number.
#[test]
fn nothing_is_made_in_places_of_everybody_under_names_that_can_be_guessed() {
    for (path, text) in sources() {
        let code = code(&text);
        let code = without_tests(&code);
        let guessable = ["temp_dir()", "\"/tmp", "\"/var/tmp", "\"/dev/shm"].iter().any(|place| code.contains(place));
        assert!(!guessable, "{}: a place of everybody", path.display());
    }
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    for (path, text) in sources() {
        assert!(text.starts_with("//!"), "{} does not say what it is for", path.display());
        let lines = text.lines().count();
        assert!(lines <= MAX_LINES, "{} has {lines} lines; split it", path.display());
    }
}

#[test]
fn no_file_is_an_orphan() {
    let all = sources();
    for path in all.keys() {
        let stem = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let (parent, name) = match (stem.as_str(), path.parent().filter(|p| !p.as_os_str().is_empty())) {
            ("lib" | "main", None) => continue,
            ("mod", Some(dir)) => (PathBuf::from("lib.rs"), room(dir)),
            (_, Some(dir)) => (dir.join("mod.rs"), stem.clone()),
            (_, None) => (PathBuf::from("lib.rs"), stem.clone()),
        };
        let declared = all.get(&parent).is_some_and(|text| text.contains(&format!("mod {name};")));
        assert!(declared, "{} is not declared in {}", path.display(), parent.display());
    }
}

/// There is one block, where the token leaves the environment: what else needs it comes from `rustix`, `fuser`, `ssh2` and
/// `git2`. (The tests count memory with an allocator of their own. Clippy demands a SAFETY note.)
#[test]
fn unsafe_code_is_forbidden() {
    let sources = sources();
    for root in ["lib.rs", "main.rs"] {
        let text = &sources[Path::new(root)];
        let denied = ["forbid", "deny"].iter().any(|word| text.contains(&format!("#![{word}(unsafe_code)]")));
        assert!(denied, "{root} permits unsafe code");
    }
    let excused: Vec<_> = sources.iter().filter(|(_, text)| code(text).contains("(unsafe_code, ")).collect();
    assert_eq!(excused.len(), 1, "{:?}", excused.iter().map(|(path, _)| path).collect::<Vec<_>>());
}
