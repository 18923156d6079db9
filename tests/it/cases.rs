//! Faults that were seen once, as scripts: `tests/cases/NN-name.py` mounts with the real program in front of a real
//! `sftp-server` behind a filter of packets (`fakessh.py`), or of the simulated site, provokes one fault, and prints a
//! line that begins with `ok:` or `FAULT:`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{has_fuse, has_program, needs_root, skip};

fn dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

/// The script whose name begins with this number.
fn script(number: &str) -> PathBuf {
    let entries = fs::read_dir(dir()).expect("the cases are there").flatten().map(|entry| entry.path());
    let named = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(&format!("{number}-")))
    };
    entries.into_iter().find(named).unwrap_or_else(|| panic!("there is no case {number}"))
}

fn holds(number: &str) {
    for program in ["python3", "strace", "sshfs"] {
        if !has_program(program) {
            return skip(&format!("{program} is not installed (scripts/setup installs it)"));
        }
    }
    if !has_fuse() || (AS_ROOT.contains(&number) && !needs_root("the case gives files away, or mounts a disk")) {
        return;
    }
    let ran = Command::new("python3")
        .arg(script(number))
        .env("PANTHEONFS", env!("CARGO_BIN_EXE_pantheonfs"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&ran.stdout);
    let verdicts: Vec<&str> =
        said.lines().filter(|line| line.starts_with("ok:") || line.starts_with("FAULT:")).collect();
    let trouble = String::from_utf8_lossy(&ran.stderr);
    assert!(!verdicts.is_empty(), "case {number} gave no verdict: {said}{trouble}");
    assert!(verdicts.iter().all(|line| line.starts_with("ok:")), "case {number}:\n{}\n{trouble}", verdicts.join("\n"));
}

macro_rules! cases {
    ($($name:ident: $number:literal,)*) => {
        $(#[test]
        fn $name() {
            holds($number);
        })*

        const NUMBERS: &[&str] = &[$($number),*];
    };
}

cases! {
    fsync_of_a_directory: "01",
    power_loss_after_a_second_save: "02",
    damaged_journal_destroys_contents: "03",
    remove_is_repeated_unseen: "04",
    move_is_repeated_unseen: "05",
    save_in_place_after_an_outage: "07",
    same_second_and_larger_than_a_block: "09",
    own_save_hides_theirs_of_the_same_second: "10",
    large_file_of_equal_size_and_time: "12",
    new_file_is_there_by_halves: "13",
    conflict_below_a_conflict_blocks_everything: "14",
    saved_between_the_look_and_the_switch: "15",
    clock_ahead_by_3_s: "18",
    touch_adopts_theirs: "19",
    own_temporary_file_as_a_conflict: "20",
    changed_since_it_was_read_here: "22",
    environment_away_for_a_moment: "23",
    resolve_in_somebody_elses_mount: "24",
    pending_is_not_what_git_says: "25",
    servers_disk_full_for_20_s: "26",
    temporary_files_left_on_the_server: "29",
    uuid_today_name_tomorrow: "31",
    interrupted_open_empties_the_file: "32",
    names_speak_to_the_terminal: "35",
    theirs_chmod_is_undone: "37",
    conflict_of_a_save_by_rename: "38",
    restore_of_a_damaged_copy: "39",
    many_wait_and_nobody_can_save: "40",
    one_failure_and_never_again_atomic: "41",
    pending_takes_all_in_memory: "43",
    close_during_a_job_is_forgotten: "47",
}

/// A directory that another user prepared, and a server whose disk is small.
const AS_ROOT: &[&str] = &["24", "26"];

/// Two machines for 40 s, whose outcome depends on chance: run by `scripts/reliability`.
const LONG: &str = "27";

/// Written out, because the documents cite it.
#[test]
fn changed_in_the_last_round_trip() {
    holds("60");
}

#[test]
fn no_case_is_forgotten() {
    let files = fs::read_dir(dir()).expect("the cases are there").flatten();
    let names: Vec<String> = files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    for name in names.iter().filter(|name| name.starts_with(|c: char| c.is_ascii_digit())) {
        assert!(
            NUMBERS.iter().chain(&["60", LONG]).any(|number| name.starts_with(&format!("{number}-"))),
            "{name} is run by no test"
        );
    }
}
