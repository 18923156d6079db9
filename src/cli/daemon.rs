//! Into the background: the program starts itself as a child, which mounts and asks its questions on the terminal. When the
//! mount is ready, the child reports that on its standard output, a pipe to the parent, and leaves the terminal.
//!
//! A new process instead of a fork needs no unsafe code and loses no thread.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use super::args::Mount;
use super::exit::{self, CliResult, Exit, Failure};
use super::{environ, report};

/// What the child reports when the mount is ready.
const READY: &str = "ready";

/// Starts the child and waits until the mount is ready or has failed; the child prints the reason of a failure.
pub(super) fn start(mount: &Mount) -> CliResult<()> {
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, "the background process cannot be started", e);
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("mount").arg("--report");
    command.args((0..mount.verbose).map(|_| "-v"));
    for options in &mount.options {
        command.arg("-o").arg(options);
    }
    let token = token_pipe().map_err(failed)?;
    if let Some(token) = &token {
        command.arg("--token-fd").arg(token.as_raw_fd().to_string());
    }
    command.arg("--").arg(&mount.source).args(&mount.mountpoint).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    drop(token);
    let mut said = String::new();
    if let Some(output) = child.stdout.take() {
        // If the pipe cannot be read, the exit code of the child tells the result.
        let _ = BufReader::new(output).read_line(&mut said);
    }
    if let Some(text) = said.strip_prefix(READY) {
        if !mount.quiet {
            drop(report::print(format!("{}\n", text.trim()).as_bytes()));
        }
        return Ok(());
    }
    let status = child.wait().map_err(failed)?;
    Err(Failure::silent(exit::from_code(status.code())))
}

/// A pipe from which the child reads the machine token, so that neither its arguments nor its environment show it.
fn token_pipe() -> std::io::Result<Option<OwnedFd>> {
    let Some(token) = environ::token() else { return Ok(None) };
    // The pipe is not closed by exec, and its buffer holds a whole token.
    let (read, write) = rustix::pipe::pipe()?;
    std::fs::File::from(write).write_all(token.as_bytes())?;
    Ok(Some(read))
}

/// In the child, when the mount is ready: leaves the terminal, then reports. In this order, because once the parent has ended,
/// a terminal that closes ends the processes that still belong to it (SIGHUP).
pub(super) fn detach(text: &str) {
    let mut out = std::io::stdout();
    let left = leave_terminal();
    // The parent may have ended already.
    let _ = writeln!(out, "{READY} {text}").and_then(|()| out.flush());
    if let Err(error) = left.and_then(|null| Ok(rustix::stdio::dup2_stdout(&null)?)) {
        log::warn!("the process cannot leave the terminal: {error}");
    }
}

fn leave_terminal() -> std::io::Result<std::fs::File> {
    rustix::process::setsid()?;
    rustix::process::chdir("/")?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(null)
}
