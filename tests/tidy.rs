//! The shape of the source, held mechanically: which room may use which, which crate is named where, how long files get.

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use graph::{Crate, circles, named_by};
use source::{Source, Token, paths, sources};

/// Every room and the rooms that it may use.
const ROOMS: [(&str, &[&str]); 32] = [
    ("path", &[]),
    ("attr", &["path"]),
    ("call", &[]),
    ("clock", &[]),
    ("durable", &[]),
    ("pool", &[]),
    ("text", &[]),
    ("transport", &["clock", "durable"]),
    ("gate", &["attr"]),
    ("sftp", &["attr", "clock", "transport"]),
    ("mirror", &["durable", "path", "attr"]),
    ("control", &["durable", "clock"]),
    ("inode", &["durable", "path", "attr"]),
    ("cache", &["durable", "path", "attr"]),
    ("remote", &["transport", "sftp", "gate", "path", "attr", "clock"]),
    ("env", &["durable", "control", "gate", "attr", "clock"]),
    ("sim", &["control"]),
    ("content", &["cache", "mirror", "pool", "remote", "path", "attr", "clock"]),
    ("write", &["durable", "path", "attr"]),
    ("pending", &["mirror", "path", "attr"]),
    ("vfiles", &["env", "control", "pending", "path", "text"]),
    ("error", &["clock", "content", "gate", "path", "remote"]),
    ("admit", &["attr", "env", "error", "gate", "path", "remote"]),
    ("view", &["admit", "attr", "cache", "clock", "content", "error", "inode", "path", "pool", "remote"]),
    (
        "upload",
        &[
            "admit", "attr", "cache", "call", "clock", "content", "durable", "error", "gate", "inode", "path", "pool",
            "remote", "view", "write",
        ],
    ),
    (
        "reader",
        &[
            "durable", "attr", "cache", "clock", "content", "env", "error", "inode", "mirror", "path", "pending",
            "remote", "upload", "vfiles", "view",
        ],
    ),
    (
        "dotdir",
        &[
            "durable", "admit", "attr", "control", "env", "error", "gate", "inode", "mirror", "path", "pending",
            "pool", "reader", "remote", "upload", "vfiles", "view", "write",
        ],
    ),
    (
        "fs",
        &[
            "admit", "attr", "clock", "content", "dotdir", "env", "error", "gate", "inode", "mirror", "path", "reader",
            "remote", "upload", "vfiles", "view", "write",
        ],
    ),
    ("notify", &["clock", "control", "env", "fs", "gate", "remote", "text", "write"]),
    ("fuse", &["fs", "attr", "call", "inode", "pool"]),
    (
        "cli",
        &[
            "durable",
            "attr",
            "clock",
            "control",
            "env",
            "fs",
            "fuse",
            "mirror",
            "notify",
            "gate",
            "path",
            "pending",
            "remote",
            "sim",
            "text",
            "transport",
            "vfiles",
            "write",
        ],
    ),
    ("main", &["cli"]),
];

/// Crates that only some rooms may name.
const CRATES: [(&str, &[&str]); 13] = [
    ("fuser", &["fuse"]),
    ("ssh2", &["transport"]),
    ("git2", &["sim", "mirror"]),
    ("clap", &["cli"]),
    ("ratatui", &["cli"]),
    ("ureq", &["control"]),
    ("zbus", &["notify"]),
    ("axum", &["sim"]),
    ("tokio", &["sim"]),
    ("russh", &["sim"]),
    ("rcgen", &["sim"]),
    ("tokio_rustls", &["sim"]),
    ("yaml_rust2", &["cli"]),
];

/// Rooms that run programs. Never through a shell: words are words, whatever is in them.
const PROGRAMS: [&str; 6] = ["cli", "content", "fuse", "mirror", "sim", "transport"];

/// Lines of a file at most, and of nine files in ten.
const MAX_LINES: usize = 600;
const MOST_LINES: usize = 400;

/// Lines of nine functions in ten, as rustfmt lays them out.
const MOST_FUNCTION_LINES: usize = 35;

/// Fields of a type at most. Configuration and its parsed arguments may have more.
const MAX_FIELDS: usize = 12;
const CONFIGURATION: [&str; 4] = ["Endpoint", "FsConfig", "Options", "Plan"];

/// Calls `check` for each item that is not for tests.
fn each(mut check: impl FnMut(&Source, &[Token])) {
    sources().iter().for_each(|source| source.tokens_without_tests().for_each(|tokens| check(source, tokens)));
}

/// The other rooms that each room uses, tests included.
fn used_rooms(sources: &[Source]) -> BTreeMap<String, BTreeMap<String, PathBuf>> {
    let names: BTreeSet<&str> = sources.iter().map(Source::room).collect();
    let tree = Crate::new(sources);
    let mut out: BTreeMap<String, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for source in sources.iter().filter(|source| source.room() != "lib") {
        let uses = out.entry(source.room().to_owned()).or_default();
        for item in &source.items {
            let absolute = named_by(item).into_iter().filter_map(|named| tree.absolute(&item.module, &named.segments));
            for used in absolute.filter_map(|path| path.into_iter().next()) {
                if used != source.room() && names.contains(used.as_str()) {
                    uses.entry(used).or_insert_with(|| source.path.clone());
                }
            }
        }
    }
    out
}

#[test]
fn rooms_use_what_the_table_grants_and_all_of_it() {
    let table: BTreeMap<&str, &[&str]> = ROOMS.into_iter().collect();
    let mut wrong = Vec::new();
    for (room, used) in used_rooms(sources()) {
        let granted = table.get(room.as_str()).unwrap_or_else(|| panic!("{room} is not in the table of rooms"));
        for (other, file) in used.iter().filter(|(other, _)| !granted.contains(&other.as_str())) {
            wrong.push(format!("{}: {room} must not use {other}", file.display()));
        }
        for other in granted.iter().filter(|other| !used.contains_key(**other)) {
            wrong.push(format!("{room} does not use {other}: take it out of the table"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_cycle_and_no_ghosts() {
    let sources = sources();
    let files: BTreeSet<&str> = sources.iter().map(Source::room).collect();
    for (index, (name, uses)) in ROOMS.iter().enumerate() {
        assert!(files.contains(*name), "{name} is in the table and not in src");
        for used in *uses {
            let above = ROOMS[..index].iter().any(|(other, _)| other == used);
            assert!(above, "{name} uses {used}, which does not come before it");
        }
    }
}

/// The map in the documentation of the crate, made from the table: a room is one layer above the highest that it uses.
fn map() -> String {
    let mut layers: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, uses) in ROOMS {
        let layer = uses.iter().map(|used| layers[used] + 1).max().unwrap_or_default();
        layers.insert(name, layer);
    }
    let mut rooms: Vec<_> = ROOMS.iter().filter(|(name, _)| *name != "main").collect();
    rooms.sort_by_key(|(name, _)| (layers[name], *name));
    let mut out = "//! | layer | room | uses |\n//! | --- | --- | --- |\n".to_owned();
    for (name, uses) in rooms {
        let link =
            if ["env", "write"].contains(name) { format!("[`{name}`](mod@{name})") } else { format!("[`{name}`]") };
        let mut uses = uses.to_vec();
        uses.sort_unstable();
        writeln!(out, "//! | {} | {link} | {} |", layers[name], uses.join(", ")).expect("a string takes everything");
    }
    out
}

#[test]
fn the_map_in_the_documentation_is_the_table() {
    let lib = sources().iter().find(|source| source.path == Path::new("lib.rs")).expect("there");
    let map = map();
    assert!(lib.text.contains(&map), "src/lib.rs should have this map:\n{map}");
}

#[test]
fn files_of_a_room_use_each_other_in_one_direction() {
    let sources = sources();
    let edges = Crate::new(sources).edges(sources);
    let mut wrong = Vec::new();
    for (file, used, by) in edges.values().flat_map(circles) {
        wrong.push(format!("{} uses {} ({by})", file.display(), used.display()));
    }
    assert!(wrong.is_empty(), "files that use each other in circles:\n{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_their_rooms() {
    for source in sources() {
        let here = source.room().to_owned();
        for named in source.items.iter().flat_map(named_by) {
            for (name, rooms) in CRATES.iter().filter(|(name, _)| named.segments[0] == *name) {
                assert!(rooms.contains(&here.as_str()), "{}: {name} is named outside {rooms:?}", source.path.display());
            }
        }
    }
}

#[test]
fn only_cli_reads_the_environment_prints_and_exits() {
    let printers = ["print", "println", "eprint", "eprintln", "dbg"];
    for source in sources().iter().filter(|source| source.room() != "cli") {
        for tokens in source.tokens() {
            let prints = tokens
                .windows(2)
                .any(|two| two[1].is("!") && two[0].ident().is_some_and(|name| printers.contains(&name)));
            let talks = paths(tokens).iter().any(|named| {
                let words: Vec<&str> = named.segments.iter().map(String::as_str).collect();
                matches!(words[..], ["std", "env", ..] | [.., "process", "exit" | "abort"])
            });
            assert!(!prints && !talks, "{}: only cli reads the environment, prints or exits", source.path.display());
        }
    }
}

#[test]
fn programs_are_run_in_few_rooms_and_never_through_a_shell() {
    each(|source, tokens| {
        let named = paths(tokens);
        let runs = named.iter().any(|named| named.segments.ends_with(&["Command".into(), "new".into()]));
        assert!(!runs || PROGRAMS.contains(&source.room()), "{}: runs a program", source.path.display());
        let git = tokens.contains(&Token::Text("git".into()));
        let shell = tokens.iter().any(|token| match token {
            Token::Text(text) if text == "-c" => !git,
            Token::Text(text) => {
                ["sh", "bash"].contains(&text.as_str()) || text.contains("/bin/sh") || text.contains("/bin/bash")
            }
            Token::Ident(name) => name == "popen",
            Token::Other(_) => false,
        });
        let shell = shell || named.iter().any(|named| named.segments == ["libc", "system"]);
        // The simulator's repository has a hook.
        assert!(!shell || source.room() == "sim", "{}: smells of a shell", source.path.display());
    });
}

/// Whoever knows the name of a file before it is made can put another one there: names come from `tempfile` or from the
/// kernel's randomness, never from the clock or the process number.
#[test]
fn nothing_is_made_in_places_of_everybody_under_names_that_can_be_guessed() {
    each(|source, tokens| {
        let guessable = tokens.iter().any(|token| match token {
            Token::Text(text) => ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|place| text.starts_with(place)),
            Token::Ident(_) | Token::Other(_) => false,
        });
        let place =
            paths(tokens).iter().any(|named| matches!(named.segments.as_slice(), [_, .., last] if last == "temp_dir"));
        let guessable = guessable || place;
        assert!(!guessable, "{}: a place of everybody", source.path.display());
    });
}

/// A file that is replaced by a rename is synced, or says that it need not be.
#[test]
fn files_are_replaced_in_one_place() {
    each(|source, tokens| {
        let persists =
            tokens.windows(3).any(|three| three[0].is(".") && three[1].ident() == Some("persist") && three[2].is("("));
        assert!(!persists || source.room() == "durable", "{}: use crate::durable", source.path.display());
    });
}

/// What the kernel is told is chosen in one file; of an operation that failed, `fs` chose it.
#[test]
fn the_edge_chooses_errnos_in_one_file() {
    each(|source, tokens| {
        let chooses = paths(tokens).iter().any(|named| {
            let words: Vec<&str> = named.segments.iter().map(String::as_str).collect();
            matches!(words[..], ["Errno" | "libc", name] if name.starts_with('E'))
        });
        let elsewhere = source.room() == "fuse" && source.path != Path::new("fuse/errno.rs");
        assert!(!chooses || !elsewhere, "{}: say it by a Refusal", source.path.display());
    });
}

/// What nine of ten are at most.
fn most(mut lengths: Vec<usize>) -> usize {
    lengths.sort_unstable();
    lengths[(lengths.len() * 9).div_ceil(10) - 1]
}

#[test]
fn files_and_functions_are_short_and_files_say_what_they_are_for() {
    let sources = sources();
    for source in sources {
        let path = source.path.display();
        assert!(source.text.starts_with("//!"), "{path} does not say what it is for");
        let lines = source.text.lines().count();
        assert!(lines <= MAX_LINES, "{path} has {lines} lines; split it");
    }
    let files = most(sources.iter().map(|source| source.text.lines().count()).collect());
    assert!(files <= MOST_LINES, "one file in ten has {files} lines or more");
    let functions = most(sources.iter().flat_map(|source| source.functions.iter().map(|(_, lines)| *lines)).collect());
    assert!(functions <= MOST_FUNCTION_LINES, "one function in ten has {functions} lines or more");
}

#[test]
fn types_have_few_fields() {
    let types = || sources().iter().flat_map(|source| source.structs.iter().map(move |of| (source, of)));
    for (source, (name, fields)) in types().filter(|(_, (_, fields))| *fields > MAX_FIELDS) {
        let path = source.path.display();
        assert!(CONFIGURATION.contains(&name.as_str()), "{path}: {name} has {fields} fields; split it");
    }
    let large = |name: &&str| types().any(|(_, (of, fields))| of == name && *fields > MAX_FIELDS);
    let small: Vec<_> = CONFIGURATION.iter().filter(|name| !large(name)).collect();
    assert!(small.is_empty(), "{small:?} have few fields: take them out of CONFIGURATION");
}

#[test]
fn no_file_is_an_orphan() {
    let all = sources();
    for source in all {
        let Some((name, parent)) = source.module.split_last() else { continue };
        let declares = |tokens: &[Token]| {
            tokens
                .windows(3)
                .any(|three| three[0].ident() == Some("mod") && three[1].ident() == Some(name) && three[2].is(";"))
        };
        let mut parents = all.iter().filter(|other| other.module == parent && other.path != Path::new("main.rs"));
        assert!(parents.any(|other| other.tokens().any(declares)), "{} is declared nowhere", source.path.display());
    }
}

/// There is one block, where the token leaves the environment: what else needs it comes from `rustix`, `fuser`, `ssh2` and
/// `git2`. (The tests count memory with an allocator of their own. Clippy demands a SAFETY note.)
#[test]
fn unsafe_code_is_forbidden() {
    let sources = sources();
    let says = |source: &Source, words: &[&str]| {
        source.tokens().any(|tokens| {
            tokens.windows(3).any(|three| {
                three[0].ident().is_some_and(|word| words.contains(&word))
                    && three[1].is("(")
                    && three[2].ident() == Some("unsafe_code")
            })
        })
    };
    for root in ["lib.rs", "main.rs"] {
        let source = sources.iter().find(|source| source.path == Path::new(root)).expect("there");
        assert!(says(source, &["forbid", "deny"]), "{root} permits unsafe code");
    }
    let excused: Vec<_> = sources.iter().filter(|source| says(source, &["allow", "expect", "warn"])).collect();
    assert_eq!(excused.len(), 1, "{:?}", excused.iter().map(|source| &source.path).collect::<Vec<_>>());
}

/// A crate of two rooms: in `a`, `mod.rs` and `one.rs` use each other by a method, and `two.rs` uses `one.rs` by a re-export.
fn sample() -> Vec<Source> {
    let files = [
        ("lib.rs", "pub mod a; pub mod b;"),
        (
            "a/mod.rs",
            "mod one; mod two; pub use one::One; pub struct Top; impl Top { fn top(&self) { self.from_one(); } }",
        ),
        (
            "a/one.rs",
            "use super::Top; pub struct One; impl Top { pub(super) fn from_one(&self) { let _ = crate::b::B; } }",
        ),
        ("a/two.rs", "use super::{One as Other}; fn two() { let _: Other = todo(); }"),
        (
            "b.rs",
            r##"//! `crate::a` uses nothing.
pub struct B; const URL: &str = "https://crate::a::One"; /* crate::a */ const RAW: &str = r#"// "crate::a"#;
#[cfg(test)] mod tests { fn shell() { let _ = ("sh", std::env::temp_dir()); } }"##,
        ),
    ];
    files.into_iter().map(|(path, text)| source::parse(PathBuf::from(path), text.to_owned())).collect()
}

#[test]
fn uses_are_followed_through_reexports_and_methods_and_not_found_in_comments() {
    let sources = sample();
    let used = used_rooms(&sources);
    assert_eq!(used["a"].keys().collect::<Vec<_>>(), ["b"]);
    assert!(used["b"].is_empty(), "{:?}", used["b"]);
    let edges = &Crate::new(&sources).edges(&sources)["a"];
    let of =
        |file: &str| edges[Path::new(file)].iter().map(|(to, by)| format!("{} {by}", to.display())).collect::<Vec<_>>();
    assert_eq!(of("a/mod.rs"), ["a/one.rs self.from_one()"]);
    assert_eq!(of("a/one.rs"), ["a/mod.rs super::Top"]);
    assert_eq!(of("a/two.rs"), ["a/one.rs super::One"]);
    let circles: Vec<_> = circles(edges).into_iter().map(|(file, used, _)| (file.to_str(), used.to_str())).collect();
    let (top, one) = (Some("a/mod.rs"), Some("a/one.rs"));
    assert_eq!(circles, [(top, one), (one, top)]);
}

#[test]
fn tests_are_told_from_the_rest_and_strings_from_code() {
    let sources = sample();
    let b = sources.iter().find(|source| source.path == Path::new("b.rs")).expect("there");
    let texts = |tokens: &[Token]| tokens.iter().filter(|token| matches!(token, Token::Text(_))).count();
    assert_eq!(b.tokens_without_tests().map(texts).sum::<usize>(), 2, "URL and RAW");
    assert_eq!(b.tokens().map(texts).sum::<usize>(), 3, "with the shell of the test");
    assert!(b.functions.is_empty(), "{:?}", b.functions);
}
