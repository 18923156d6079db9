//! `scripts/bench`: the page and the chart are what it makes of the results that are in the repository, and what it says of two
//! runs is so. What it measures needs a quiet machine and is not measured here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::common::has_program;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn document(name: &str) -> String {
    fs::read_to_string(root().join(name)).expect(name)
}

/// What `scripts/bench --no-run` prints; `None` without Python.
fn bench(args: &[&Path]) -> Option<String> {
    if !has_program("python3") {
        return None;
    }
    let mut command = Command::new("python3");
    let output = command.arg(root().join("scripts/bench")).arg("--no-run").args(args).output().expect("runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/bench: {errors}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn the_page_and_the_chart_are_made_of_the_results() {
    let dir = tempfile::tempdir().expect("a directory");
    let (page, chart) = (dir.path().join("page.md"), dir.path().join("chart.svg"));
    let args =
        [Path::new("--add"), &root().join("docs/bench.json"), Path::new("--page"), &page, Path::new("--svg"), &chart];
    if bench(&args).is_none() {
        return;
    }
    for (made, kept) in [(page, "docs/PERFORMANCE.md"), (chart, "docs/bench.svg")] {
        let made = fs::read_to_string(made).expect("written");
        assert!(made == document(kept), "{kept} is not of docs/bench.json; see `scripts/bench --help`");
    }
}

#[test]
fn other_documents_link_to_figures_instead_of_repeating_them() {
    for name in ["README.md", "docs/COMPARISON.md"] {
        let text = document(name);
        assert!(text.contains("PERFORMANCE.md)"), "{name} does not link to the figures");
        let cells = text.lines().filter(|line| line.starts_with("| ")).flat_map(|line| line.split(" | "));
        for cell in cells {
            let bare = cell.trim_matches(['|', '>', ' ']);
            assert!(bare.is_empty() || bare.parse::<f64>().is_err(), "{name} has a figure of its own: {cell}");
        }
    }
}

fn results(dir: &Path, name: &str, seconds: &Value) -> PathBuf {
    let path = dir.join(name);
    let source = json!({"date": "2026-01-01", "limit_secs": 300, "quick": false});
    let entry = json!({"tree": "drupal", "rtt_ms": 50, "mbit": 100, "loss_percent": 0, "client": "pantheonfs", "values": {"0": seconds}});
    let document = json!({"sources": [source], "trees": {}, "results": [entry]});
    fs::write(&path, document.to_string()).expect("written");
    path
}

#[test]
fn a_comparison_marks_what_became_slower_by_a_tenth() {
    let dir = tempfile::tempdir().expect("a directory");
    let old = json!({"find": 2.0, "grep": 1.0, "grep-again": 1.0, "save": 0.010, "untar": 5.0, "memory-1": 100.0});
    let new = json!({"find": 1.0, "grep": 1.1, "grep-again": 1.09, "save": 0.015, "untar": null, "memory-1": 130.0});
    let (old, new) = (results(dir.path(), "old.json", &old), results(dir.path(), "new.json", &new));
    let Some(said) = bench(&[Path::new("--add"), &new, Path::new("--compare"), &old]) else { return };
    let row = |name: &str| {
        let start = format!("| `{name}`:");
        said.lines().find(|line| line.starts_with(&start)).unwrap_or_else(|| panic!("{name}: {said}")).to_owned()
    };
    for (name, end) in [
        ("find", "| 0.50 |"),
        ("grep", "| 1.10 SLOWER |"),
        ("grep-again", "| 1.09 |"),
        // Half as much again, and still only five milliseconds.
        ("save", "| 1.50 |"),
        ("untar", "| 5.0 → limit SLOWER |"),
        ("memory-1", "| 1.30 SLOWER |"),
    ] {
        assert!(row(name).ends_with(end), "{}", row(name));
    }
    assert!(said.contains("3 row(s) slower by 10 % or more:"), "{said}");
}

#[test]
fn a_later_run_takes_the_place_of_the_rows_that_it_measured() {
    let dir = tempfile::tempdir().expect("a directory");
    let first = results(dir.path(), "first.json", &json!({"find": 2.0, "grep": 7.0}));
    let second = results(dir.path(), "second.json", &json!({"find": 1.0}));
    let both = dir.path().join("both.json");
    let args = [Path::new("--add"), &first, Path::new("--add"), &second, Path::new("--json"), &both];
    if bench(&args).is_none() {
        return;
    }
    let both: Value = serde_json::from_slice(&fs::read(both).expect("written")).expect("JSON");
    assert_eq!(both["results"][0]["values"], json!({"0": {"grep": 7.0}, "1": {"find": 1.0}}));
    assert_eq!(both["sources"].as_array().expect("a list").len(), 2);
}
