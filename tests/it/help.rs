//! What the program says to somebody who does not know it yet, or has a fault to report.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use crate::common::mounted::Mounted;
use crate::common::program::{Environ, Ran};

const USAGE: i32 = 2;
const NO_SUCH_SITE: i32 = 3;

#[test]
fn without_arguments_it_says_what_to_do_first() {
    let around = Environ::new();
    let first = around.run(&[]).ok().out();
    for words in ["pantheonfs login", "to do: no credentials are saved", "to do: no SSH key", "pantheonfs mount SITE"] {
        assert!(first.contains(words), "'{words}' is not in: {first}");
    }
    fs::create_dir(around.home().join(".ssh")).expect("made");
    fs::write(around.home().join(".ssh/id_rsa"), "").expect("written");
    let with = Environ::new().with([("TERMINUS_MACHINE_TOKEN".to_owned(), "a-token".to_owned())]);
    assert!(!around.run(&[]).ok().out().contains("no SSH key"));
    assert!(!with.run(&[]).ok().out().contains("no credentials"));
}

#[test]
fn the_doctor_without_a_source_checks_the_machine_and_says_the_truth() {
    let around = Environ::new();
    let at_home =
        |around: &Environ| Ran(around.command().arg("doctor").current_dir(around.home()).output().expect("runs"));
    let ran = at_home(&around);
    assert_ne!(ran.code(), 0, "there is nothing to log in with");
    for words in ["login: FAILED: no credentials are saved", "keys: FAILED", "git: ok: git version", "mount(8): "] {
        assert!(ran.out().contains(words), "'{words}' is not in: {}", ran.out());
    }
    let token = Environ::new().with([("TERMINUS_MACHINE_TOKEN".to_owned(), "a-token".to_owned())]);
    assert!(at_home(&token).out().contains("login: ok: credentials from a variable with a token"));
    // With a source, the first lines do not name files that are not there.
    let ran = Ran(around.command().args(["doctor", "sim-nosuch.dev"]).output().expect("runs"));
    assert!(ran.out().contains("no credentials are saved") && !ran.out().contains("from Terminus"), "{}", ran.out());
}

#[test]
fn a_slip_of_the_fingers_is_answered_with_the_name_that_was_meant() {
    let Some(m) = Mounted::sim() else { return };
    let site = m.sim_ref().site();
    let mount = |source: &str| m.environ().run(&["mount", source, "-o", &m.sim_ref().options()]);
    let slip = site.replace("word", "wrod");
    mount(&format!("{slip}.live")).fails(NO_SUCH_SITE, &["no such site", &format!("did you mean '{site}.live'?")]);
    mount(&format!("{site}.liev"))
        .fails(NO_SUCH_SITE, &["no such environment", &format!("did you mean '{site}.live'?")]);
    let nothing_similar = mount("completely-different.dev");
    nothing_similar.fails(NO_SUCH_SITE, &["no such site"]);
    assert!(!nothing_similar.err().contains("did you mean"), "{}", nothing_similar.err());
    for (words, meant) in [(vec!["statsu"], "'status'"), (vec!["status", "--jsno"], "'--json'")] {
        let ran = m.environ().run(&words);
        assert_eq!(ran.code(), USAGE);
        assert!(ran.err().contains(meant), "{}", ran.err());
    }
}

#[test]
fn every_command_has_a_manual_page_and_help_with_an_example() {
    let around = Environ::new();
    for command in ["mount", "rescue restore", "list", "report"] {
        let words: Vec<&str> = command.split(' ').collect();
        let page = around.run(&[&["man"], words.as_slice()].concat()).ok().out();
        assert!(page.contains(&format!("pantheonfs-{}", command.replace(' ', "-")).replace('-', "\\-")), "{page}");
        let help = around.run(&[words.as_slice(), &["--help"]].concat()).ok().out();
        assert!(help.contains("Example") && help.contains(&format!("pantheonfs {command}")), "{help}");
    }
    around.run(&["man", "nonsense"]).fails(USAGE, &["no such command"]);
}

#[test]
fn a_mount_whose_output_nobody_reads_is_a_mount() {
    let Some(m) = Mounted::sim() else { return };
    m.umount().ok();
    let source = format!("{}.dev", m.sim_ref().site());
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = m.environ().command();
    command.args(["mount", &source, &m.dir().to_string_lossy(), "-o", &m.sim_ref().options()]);
    let ran = Ran(command.stdout(writer).stderr(Stdio::piped()).output().expect("runs"));
    assert_eq!((ran.code(), ran.err()), (0, String::new()));
    assert!(m.path("index.php").exists());
}

#[test]
fn a_report_has_versions_states_and_logs_and_no_secrets() {
    let Some(m) = Mounted::sim() else { return };
    let token = m.sim_ref().env().into_iter().find(|(name, _)| name == "TERMINUS_MACHINE_TOKEN").expect("a token").1;
    let state = m.environ().state().join(format!("{}.dev", m.sim_ref().site()));
    let mut log = fs::read_to_string(state.join("log")).expect("a log");
    log.push_str(&format!(
        "the API said {token}\npassword=hunter22\nhttps://user:opensesame@host.example/\na line that stays\n"
    ));
    fs::write(state.join("log"), log).expect("written");
    let file = m.environ().path("fault.txt");
    let words = ["report", "-o", &file.to_string_lossy()].map(str::to_owned);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    m.environ().run(&words).ok();
    let text = fs::read_to_string(&file).expect("written");
    for said in ["pantheonfs 0.", "kernel: ", "started as: ", "\"mode\": \"sftp\"", "a line that stays", "fuse: "] {
        assert!(text.contains(said), "'{said}' is not in: {text}");
    }
    for secret in [token.as_str(), "hunter22", "opensesame", &*m.environ().home().to_string_lossy()] {
        assert!(!text.contains(secret), "'{secret}' is in: {text}");
    }
    assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    m.environ().run(&words).fails(1, &["fault.txt", "cannot be written", "-o"]);
    // A program that is stopped does not stop the report.
    let stopped = Command::new("kill").args(["-STOP", &pid(&m)]).status().expect("kill runs");
    assert!(stopped.success());
    let second = m.environ().path("second.txt");
    let ran = m.environ().run(&["report", "-o", &second.to_string_lossy()]);
    assert!(Command::new("kill").args(["-CONT", &pid(&m)]).status().expect("kill runs").success());
    assert!(fs::read_to_string(second).expect("written").contains("does not answer"), "{}", ran.err());
}

/// The driver's process, from its record: a stopped mount must not be asked.
fn pid(m: &Mounted) -> String {
    let record = m.environ().state().join(format!("{}.dev/mount.json", m.sim_ref().site()));
    let record: serde_json::Value = serde_json::from_slice(&fs::read(record).expect("there")).expect("JSON");
    record["pid"].to_string()
}
