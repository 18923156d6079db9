//! Documents and program agree: every promise of `docs/SEMANTICS.md` cites tests that run, every exit code and option is
//! documented.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Text of every source file that can hold tests, by path.
fn sources() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut out, mut dirs) = (BTreeMap::new(), vec![root.join("src"), root.join("tests")]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).expect("readable").flatten() {
            let path = entry.path();
            if path.is_dir() {
                dirs.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                let name = path.strip_prefix(root).expect("below").display().to_string();
                out.insert(name, fs::read_to_string(&path).expect("readable"));
            }
        }
    }
    out
}

/// Whether `source` defines a test of this name that runs: a `#[test]` among the attributes directly above the function, and
/// no `#[ignore]`. The macro `proptest!` leaves the attribute and the name as they are written, so its tests count. A test
/// whose name is made by a macro is not found, and cannot be cited.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().filter(|(_, line)| line.starts_with(&head)).any(|(at, _)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        let attributes: Vec<&&str> = above.filter(|line| line.starts_with("#[")).collect();
        attributes.iter().any(|line| **line == "#[test]") && !attributes.iter().any(|line| line.starts_with("#[ignore"))
    })
}

/// Whether the test binary that `file` belongs to compiles it. (`tests/tidy.rs` checks the same for `src`.)
fn is_compiled(file: &str, sources: &BTreeMap<String, String>) -> bool {
    let Some((binary, module)) = file.strip_prefix("tests/").and_then(|rest| rest.split_once('/')) else {
        return true;
    };
    let declaration = format!("mod {};", module.trim_end_matches(".rs"));
    sources.get(&format!("tests/{binary}/main.rs")).is_some_and(|main| main.lines().any(|line| line == declaration))
}

/// Panics unless `citation` is `file::test` of a test that runs; `promise` is for the message.
fn check_citation(citation: &str, promise: &str, sources: &BTreeMap<String, String>) {
    let inside = citation.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
    let (file, name) = inside
        .and_then(|inside| inside.split_once("::"))
        .unwrap_or_else(|| panic!("`file::test` expected instead of {citation} ({promise})"));
    let source = sources.get(file).unwrap_or_else(|| panic!("{file} does not exist ({promise})"));
    assert!(is_compiled(file, sources), "{file} is in no test binary ({promise})");
    assert!(has_test(source, name), "{file} has no #[test] {name} ({promise})");
}

#[test]
fn every_promise_is_held_by_a_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SEMANTICS.md")).expect("readable");
    let sources = sources();
    let mut promises = BTreeSet::new();
    for line in text.lines().filter(|line| line.starts_with("- ")) {
        let (promise, tests) = line.split_once(" — ").unwrap_or_else(|| panic!("no test is named: {line}"));
        tests.split(", ").for_each(|citation| check_citation(citation, promise, &sources));
        assert!(promises.insert(promise), "promised twice: {promise}");
    }
    assert!(promises.len() >= 20, "{} promises were found", promises.len());
}

#[test]
fn every_editor_of_the_document_has_a_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/EDITORS.md")).expect("readable");
    let sources = sources();
    let mut editors = 0;
    for row in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| editor")) {
        let Some(cited) = row.split('`').find(|word| word.starts_with("tests/")) else { continue };
        check_citation(&format!("`{cited}`"), row, &sources);
        editors += 1;
    }
    assert!(editors >= 7, "{editors} editors were found");
    for cited in text.split('`').filter(|word| word.starts_with("tests/")) {
        check_citation(&format!("`{cited}`"), "docs/EDITORS.md", &sources);
    }
}

#[test]
fn only_tests_that_run_can_be_cited() {
    let source = "
        #[test]
        /// Documented.
        fn plain() {}
        fn helper() {}
        #[test]
        #[ignore = \"slow\"]
        fn ignored() {}
        // #[test]
        fn disabled() {}
        proptest! {
            #[test]
            fn random(n in 0..9) {}
            fn without_attribute(n in 0..9) {}
        }
    ";
    let names = ["plain", "helper", "ignored", "disabled", "random", "without_attribute", "rand"];
    let found: Vec<&str> = names.into_iter().filter(|name| has_test(source, name)).collect();
    assert_eq!(found, ["plain", "random"]);
    let sources = BTreeMap::from([("tests/it/main.rs".to_owned(), "mod crash;\n// mod steps;\n".to_owned())]);
    let files = ["tests/it/crash.rs", "tests/it/steps.rs", "tests/model.rs", "src/path.rs"];
    let compiled: Vec<&str> = files.into_iter().filter(|file| is_compiled(file, &sources)).collect();
    assert_eq!(compiled, ["tests/it/crash.rs", "tests/model.rs", "src/path.rs"]);
}

#[test]
fn exit_codes_in_the_document_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/EXIT-CODES.md")).expect("readable");
    let remedies = fs::read_to_string(root.join("docs/TROUBLESHOOTING.md")).expect("readable");
    let source = fs::read_to_string(root.join("src/cli/exit.rs")).expect("readable");
    let body = source.split("enum Exit {").nth(1).and_then(|rest| rest.split('}').next()).expect("the enum");
    let codes: Vec<&str> = body.lines().filter_map(|line| line.split_once(" = ")?.1.strip_suffix(',')).collect();
    assert!(codes.len() > 10);
    for code in &codes {
        assert!(document.contains(&format!("| {code} |")), "code {code} is not in docs/EXIT-CODES.md");
        let explained = *code == "0" || remedies.contains(&format!("\n### {code}: "));
        assert!(explained, "code {code} has no section in docs/TROUBLESHOOTING.md");
    }
}

#[test]
fn options_in_the_reference_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let reference = fs::read_to_string(root.join("docs/REFERENCE.md")).expect("readable");
    let source = fs::read_to_string(root.join("src/cli/options.rs")).expect("readable");
    for table in ["const FLAGS", "const VALUES"] {
        let body = source.split(table).nth(1).and_then(|rest| rest.split("= [").nth(1)).expect("a table");
        for name in body.split(']').next().expect("its end").split('"').skip(1).step_by(2) {
            assert!(reference.contains(&format!("`{name}")), "option {name} is not in docs/REFERENCE.md");
        }
    }
}
