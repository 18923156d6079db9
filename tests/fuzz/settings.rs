//! Text: answers of the API, commands written to `.pantheon`, mount options and lines of fstab, `ssh -G` and `known_hosts`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use pantheonfs::cli;
use pantheonfs::control::{Commit, Diffstat, Environment, Profile, Site, Workflow};
use pantheonfs::transport::{KnownHosts, SshConfig};
use pantheonfs::vfiles::{Command, FILES, parse};

use super::driver::Target;
use super::{as_it_is, must, proportional};

#[test]
fn api() {
    Target { name: "api", cases: 4096, seal: as_it_is, check: check_api, budget: proportional }.run();
}

#[test]
fn commands() {
    Target { name: "commands", cases: 4096, seal: as_it_is, check: check_commands, budget: proportional }.run();
}

#[test]
fn options() {
    Target { name: "options", cases: 4096, seal: as_it_is, check: check_options, budget: proportional }.run();
}

#[test]
fn ssh_config() {
    Target { name: "ssh_config", cases: 4096, seal: as_it_is, check: check_ssh_config, budget: proportional }.run();
}

#[test]
fn known_hosts() {
    Target { name: "known_hosts", cases: 4096, seal: as_it_is, check: check_known_hosts, budget: proportional }.run();
}

fn check_api(bytes: &[u8]) -> Result<(), String> {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else { return Ok(()) };
    let parts =
        value.as_array().into_iter().flatten().chain(value.as_object().into_iter().flat_map(|all| all.values()));
    for value in std::iter::once(&value).chain(parts) {
        let (sites, _) = Site::memberships(value);
        must(sites.iter().all(|site| !site.id.is_empty()), "a site without an id")?;
        let named = Site::from_json(value).is_ok_and(|site| site.id.is_empty())
            || Workflow::from_json(value).is_ok_and(|workflow| workflow.id.is_empty())
            || Profile::from_json(value).is_ok_and(|profile| profile.id.is_empty());
        must(!named, "something without an id")?;
        drop(Environment::from_json(value));
        must(Diffstat::from_json(value).len() <= bytes.len(), "more paths than bytes")?;
        drop((Workflow::list(value), Commit::list(value)));
    }
    Ok(())
}

fn check_commands(bytes: &[u8]) -> Result<(), String> {
    for file in FILES {
        match parse(file, bytes) {
            Ok(command) => {
                must(file.takes_commands(), format!("{}: takes no commands", file.name()))?;
                if let Command::Hydrate(path) = command {
                    let inside = path.names().all(|name| !matches!(name.as_bytes(), b"." | b".." | b""));
                    must(inside && !path.as_bytes().starts_with(b"/"), "a path that leads out")?;
                }
            }
            // It is shown to people.
            Err(said) => must(said.len() < 400 && !said.chars().any(char::is_control), format!("said: {said:?}"))?,
        }
    }
    Ok(())
}

/// Lines as mount(8) calls the helper, words between blanks; and the whole as one list.
fn check_options(bytes: &[u8]) -> Result<(), String> {
    let words: Vec<OsString> = bytes.split(|&b| b == b' ').map(|word| OsString::from_vec(word.to_vec())).collect();
    for words in [words, ["s.dev", "/mnt", "-o"].map(OsString::from).into_iter().chain([whole(bytes)]).collect()] {
        if let Err(said) = cli::understand(&words) {
            must(!said.is_empty(), "nothing is said")?;
        }
    }
    Ok(())
}

fn whole(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

fn check_ssh_config(bytes: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(bytes);
    let config = SshConfig::parse(&text);
    let again = SshConfig::parse(&format!("# {}\n{text}", "nonsense"));
    must(config == again, "a line that means nothing changes something")
}

fn check_known_hosts(bytes: &[u8]) -> Result<(), String> {
    let mut known = KnownHosts::default();
    known.add(Path::new("/kh"), &String::from_utf8_lossy(bytes));
    for (host, port) in [("127.0.0.1", 2222), ("appserver.dev.x.drush.in", 2222), ("", 0), ("h", 22)] {
        let _ = (known.verdict(host, port, b"key"), known.key_types(host, port));
    }
    Ok(())
}
