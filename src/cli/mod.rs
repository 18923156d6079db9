//! The command line: arguments in, exit code out. The only room that reads environment variables, prints, and knows how
//! the others are put together.

mod account;
mod args;
mod commands;
mod daemon;
#[cfg(feature = "sim")]
mod demo;
mod doctor;
mod environ;
mod exit;
mod hydrate;
mod identity;
#[cfg(feature = "sim")]
mod link;
mod logging;
mod mount;
mod mountpoint;
mod options;
mod plan;
mod prompt;
mod report;
mod rescue;
mod resolve;
#[cfg(feature = "sim")]
mod simulate;
mod sites;
mod source;
mod wake;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use args::{Args, Command};
use exit::{CliResult, Exit, Failure};

/// What `mount -t pantheonfs` looks for in the path.
const HELPER_NAME: &str = "mount.pantheonfs";

/// Runs the program. Called once, by a process that has no other thread yet.
pub fn main() -> ExitCode {
    environ::hide_token();
    let words: Vec<OsString> = std::env::args_os().collect();
    let called = words.first().map(std::path::Path::new).and_then(|path| path.file_name());
    if called.is_some_and(|name| name == HELPER_NAME) {
        return exit::finish_helper(args::helper(&words[1..]).and_then(|m| m.map_or(Ok(()), |m| mount::run(&m))));
    }
    let args = match Args::try_parse_from(&words) {
        Ok(args) => args,
        Err(error) => {
            // Help and version are no failures.
            let code = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return code.into();
        }
    };
    exit::finish(dispatch(args.command))
}

/// Understands what mount(8) hands to its helper (source, mount point, `-o` lists), as far as that goes without doing it.
pub fn understand(words: &[OsString]) -> Result<(), String> {
    let understood = args::helper(words).and_then(|mount| {
        let Some(mount) = mount else { return Ok(()) };
        let here = std::path::Path::new("/");
        options::Options::parse(&mount.options, here, Some(here))?;
        source::Source::parse(&mount.source).map(|source| drop(plan::key(&source.to_string())))
    });
    understood.map_err(|failure| failure.message)
}

fn dispatch(command: Command) -> CliResult<()> {
    match command {
        Command::Mount(mount) => mount::run(&mount),
        Command::Umount(umount) => mountpoint::umount(&umount.mountpoint, umount.force, umount.json),
        Command::Status(status) => report::status(status.path.as_deref(), status.json),
        Command::Sync(look) => commands::sync(&look.path, look.json),
        Command::Hydrate(look) => hydrate::run(&look.path, look.json),
        Command::Mode(mode) => commands::mode(&mode),
        Command::Pending(look) => report::look(&look, "pending", "pending"),
        Command::Diff(look) => report::diff(&look.paths, look.json),
        Command::Revert(revert) => commands::revert(&revert.paths, revert.json),
        Command::Resolve(resolve) => resolve::run(&resolve),
        Command::Rescue(rescue) => rescue::run(&rescue),
        Command::Commit(commit) => commands::commit(&commit),
        Command::Log(look) => report::look(&look, "log", "log"),
        Command::Connection(look) => report::look(&look, "connection", "connection"),
        Command::Login { json } => account::login(json),
        Command::Sites { site, json } => account::sites(site.as_deref(), json),
        Command::Doctor(doctor) => doctor::run(&doctor),
        #[cfg(feature = "sim")]
        Command::Sim(sim) => simulate::run(&sim),
        #[cfg(feature = "sim")]
        Command::Demo(demo) => demo::run(&demo),
        #[cfg(feature = "sim")]
        Command::Link(link) => link::run(&link),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "pantheonfs", &mut script);
            report::print(&script)
        }
        Command::Man => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Args::command())
                .render(&mut page)
                .map_err(|e| Failure::new(Exit::Failed, format!("the manual page could not be printed: {e}")))?;
            report::print(&page)
        }
    }
}
