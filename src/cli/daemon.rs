//! Into the background: the program starts itself as a child, which does the work and asks its questions on the terminal
//! that is still there; once the mount is ready it says so on its standard output, which is a pipe to us, and lets go.
//!
//! Starting anew instead of forking: no thread is lost on the way, and nothing unsafe is needed.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};

use super::args::Mount;
use super::environ;
use super::exit::{self, CliResult, Exit, Failure};

/// What the child says when the mount can be used.
const READY: &str = "ready";

/// Starts the child and waits until the mount is ready or has failed; the child has said why on standard error.
pub(super) fn start(mount: &Mount) -> CliResult<()> {
    let failed =
        |e: std::io::Error| Failure::new(Exit::Failed, format!("the background process cannot be started: {e}"));
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
        // An unreadable pipe counts as silence.
        let _ = BufReader::new(output).read_line(&mut said);
    }
    if let Some(text) = said.strip_prefix(READY) {
        if !mount.quiet {
            println!("{}", text.trim());
        }
        return Ok(());
    }
    let status = child.wait().map_err(failed)?;
    Err(Failure::silent(exit::from_code(status.code())))
}

/// The machine token, ready to be read by the child: neither its arguments nor its environment show it.
fn token_pipe() -> std::io::Result<Option<OwnedFd>> {
    let Some(token) = environ::token() else { return Ok(None) };
    // Not closed by exec; a token fits into the buffer of a pipe.
    let (read, write) = rustix::pipe::pipe()?;
    std::fs::File::from(write).write_all(token.as_bytes())?;
    Ok(Some(read))
}

/// In the child: the mount is ready. Leaves the terminal and says so, in this order: once the parent has gone, a terminal that
/// closes takes everybody with it who still belongs to it (SIGHUP).
pub(super) fn let_go(text: &str) {
    let mut out = std::io::stdout();
    let left = leave_terminal();
    // A parent that has gone away does not want to know.
    let _ = writeln!(out, "{READY} {text}").and_then(|()| out.flush());
    if let Err(error) = left.and_then(|null| Ok(rustix::stdio::dup2_stdout(&null)?)) {
        log::warn!("the terminal could not be left: {error}");
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
