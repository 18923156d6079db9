//! `docs/SEMANTICS.md` promises nothing that no test holds: every promise names its tests, and they exist.

use std::collections::BTreeMap;
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

#[test]
fn every_promise_is_held_by_a_test() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/SEMANTICS.md")).expect("readable");
    let sources = sources();
    let mut promises = 0;
    for line in text.lines().filter(|line| line.starts_with("- ")) {
        promises += 1;
        let (promise, tests) = line.split_once(" — ").unwrap_or_else(|| panic!("no test is named: {line}"));
        for test in tests.split(", ") {
            let test = test.trim_matches('`');
            let (file, name) = test.split_once("::").unwrap_or_else(|| panic!("file::test expected: {test}"));
            let source = sources.get(file).unwrap_or_else(|| panic!("{file} does not exist ({promise})"));
            let defined =
                source.contains(&format!("#[test]\nfn {name}()")) || source.contains(&format!("    fn {name}("));
            assert!(defined, "{file} has no test {name} ({promise})");
        }
    }
    assert!(promises >= 20, "{promises} promises were found");
}

#[test]
fn exit_codes_in_the_document_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let document = fs::read_to_string(root.join("docs/EXIT-CODES.md")).expect("readable");
    let source = fs::read_to_string(root.join("src/cli/exit.rs")).expect("readable");
    let body = source.split("enum Exit {").nth(1).and_then(|rest| rest.split('}').next()).expect("the enum");
    let codes: Vec<&str> = body.lines().filter_map(|line| line.split_once(" = ")?.1.strip_suffix(',')).collect();
    assert!(codes.len() > 10);
    for code in codes {
        assert!(document.contains(&format!("| {code} |")), "code {code} is not in docs/EXIT-CODES.md");
    }
}

#[test]
fn options_in_the_readme_are_those_of_the_program() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let readme = fs::read_to_string(root.join("README.md")).expect("readable");
    let source = fs::read_to_string(root.join("src/cli/options.rs")).expect("readable");
    for table in ["const FLAGS", "const VALUES"] {
        let body = source.split(table).nth(1).and_then(|rest| rest.split("= [").nth(1)).expect("a table");
        for name in body.split(']').next().expect("its end").split('"').skip(1).step_by(2) {
            assert!(readme.contains(&format!("`{name}")), "option {name} is not in README.md");
        }
    }
}
