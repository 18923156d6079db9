//! From the words of the command line to the command, under the name of the program or that of the helper of mount(8).

use std::ffi::OsString;
use std::process::ExitCode;

use clap::FromArgMatches;

use super::args::{self, Args, Command};
use super::exit::{self, CliResult, Exit};
use super::{
    account, bug_report, commands, commit, doctor, enable, environ, git_hook, grammar, hydrate, list, local_names,
    manual, mount, options, replay, report, rescue, resolve, revert, source, start, umount, versions, watch,
};
#[cfg(feature = "sim")]
use super::{demo, link, simulate};

/// The name under which mount(8) calls the program.
const HELPER_NAME: &str = "mount.pantheonfs";

/// Runs the program. Called once, by a process that has no other thread yet.
pub fn main() -> ExitCode {
    environ::hide_token();
    let words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().map(std::path::Path::new).and_then(|path| path.file_name());
    if called.is_some_and(|name| name == HELPER_NAME) {
        return exit::finish_helper(args::helper(&words[1..]).and_then(|m| m.map_or(Ok(()), |m| mount::run(&m))));
    }
    if let Some((git_dir, hook)) = words.first().and_then(|program| git_hook::called_as(program)) {
        return exit::finish(git_hook::run(&git_dir, &hook, &words[1..]));
    }
    if words.len() == 1 {
        return exit::finish(start::run());
    }
    let parsed = grammar::command().try_get_matches_from(&words);
    let args = match parsed.and_then(|matches| Args::from_arg_matches(&matches)) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are reported as errors, too.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return code.into();
        }
    };
    exit::finish(dispatch(args.command))
}

/// Parses what mount(8) passes to its helper (source, mount point, `-o` lists), without mounting.
///
/// # Errors
///
/// The explanation that a user would read.
pub fn understand(words: &[OsString]) -> Result<(), String> {
    let understood = args::helper(words).and_then(|mount| {
        let Some(mount) = mount else { return Ok(()) };
        let here = std::path::Path::new("/");
        options::Options::parse(&mount.options, here, Some(here))?;
        source::Source::parse(&mount.source).map(|source| drop(source::dir_name(&source.to_string())))
    });
    understood.map_err(|failure| failure.explain())
}

fn dispatch(command: Command) -> CliResult<()> {
    match command {
        Command::Mount(mount) => mount::run(&mount),
        Command::Umount(umount) => umount::command(&umount),
        Command::Enable(what) => enable::enable(&what),
        Command::Disable(what) => enable::disable(&what),
        Command::List(output) => list::run(output.json),
        Command::Watch { mount } => watch::run(mount.as_deref()),
        Command::Feed { mountpoint } => watch::feed(&mountpoint),
        Command::Status(status) => report::status(status.path.as_deref(), status.output.json),
        Command::Sync(at) => commands::sync(&at.path, at.output.json),
        Command::Hydrate(what) => hydrate::run(&what.path, what.output.json),
        Command::Mode(mode) => commands::mode(&mode),
        Command::Local(local) => local_names::run(&local.what),
        Command::Pending(at) => report::file(&at, "pending", "pending"),
        Command::Diff(diff) => versions::diff(&diff),
        Command::Show(show) => versions::show(&show),
        Command::Revert(revert) => revert::run(&revert.paths, revert.output.json),
        Command::Resolve(resolve) => resolve::run(&resolve),
        Command::Rescue(rescue) => rescue::run(&rescue),
        Command::Commit(commit) => commit::run(&commit),
        Command::Log(at) => report::file(&at, "log", "log"),
        Command::Fsmonitor { protocol, token } => git_hook::fsmonitor(protocol, &token),
        Command::Replay { mountpoint } => replay::run(&mountpoint),
        Command::Connection(at) => report::file(&at, "connection", "connection"),
        Command::Login(output) => account::login(output.json),
        Command::Sites { site, output } => account::sites(site.as_deref(), output.json),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Report { file, output } => bug_report::run(file.as_deref(), output.json),
        #[cfg(feature = "sim")]
        Command::Sim(sim) => simulate::run(&sim),
        #[cfg(feature = "sim")]
        Command::Demo(demo) => demo::run(&demo),
        #[cfg(feature = "sim")]
        Command::Link(link) => link::run(&link),
        Command::Completions { shell } => manual::completions(shell),
        Command::Man { command, all: None } => manual::page(&command),
        Command::Man { all: Some(dir), .. } => manual::pages(&dir),
    }
}
