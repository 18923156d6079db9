//! The processes that read mounts ([`super::feed`]) and those that carry out commands, and the news of both. Nothing here
//! waits for them.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

use serde_json::Value;

use crate::cli::exit::{CliResult, failed};

/// Tells mounts apart, also those that were there before at the same place.
pub(super) type Id = u64;

/// What the processes said.
pub(super) enum News {
    /// A message of [`super::feed`].
    Said(Id, Value),
    /// A command has ended: with its output, or with why it failed.
    Ended(Id, Result<String, String>),
}

/// The process that reads one mount. It ends when this is dropped, or as soon as its mount answers.
pub(super) struct Feed {
    process: Child,
    asks: ChildStdin,
}

impl Feed {
    pub(super) fn start(place: &Path, id: Id, news: Sender<News>) -> CliResult<Self> {
        let failed = failed(&"the process that reads the mount");
        let mut command = this_program().map_err(&failed)?;
        command.args(["feed", "--"]).arg(place).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut process = command.spawn().map_err(&failed)?;
        let (asks, output) = process.stdin.take().zip(process.stdout.take()).ok_or_else(|| failed(no_pipe()))?;
        let listen = move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if let Ok(message) = serde_json::from_str(&line)
                    && news.send(News::Said(id, message)).is_err()
                {
                    return;
                }
            }
        };
        thread::Builder::new().spawn(listen).map_err(failed)?;
        Ok(Self { process, asks })
    }

    /// Asks for the diff.
    pub(super) fn ask(&mut self) {
        // A process that has ended has nothing to say, which is noticed elsewhere.
        let _ = self.asks.write_all(b"\n");
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        // It is not waited for: while the mount does not answer, it cannot end.
        let _ = self.process.kill();
        let _ = self.process.try_wait();
    }
}

/// Runs a command of this program about a mount. It goes on when the screen is left.
pub(super) fn run(words: Vec<OsString>, input: String, id: Id, news: Sender<News>) -> std::io::Result<()> {
    let mut command = this_program()?;
    command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let work = move || {
        let ended = outcome(command, &input).unwrap_or_else(|error| Err(error.to_string()));
        // Nobody is there to hear it after the end.
        let _ = news.send(News::Ended(id, ended));
    };
    thread::Builder::new().spawn(work).map(drop)
}

fn outcome(mut command: Command, input: &str) -> std::io::Result<Result<String, String>> {
    let mut process = command.spawn()?;
    let mut stdin = process.stdin.take().ok_or_else(no_pipe)?;
    // A command that does not read it says why.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let errors = process.stderr.take().ok_or_else(no_pipe)?;
    let errors = thread::Builder::new().spawn(move || text(errors))?;
    let output = process.stdout.take().map(text).unwrap_or_default();
    let errors = errors.join().unwrap_or_default();
    Ok(if process.wait()?.success() { Ok(output) } else { Err(errors) })
}

fn text(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// This program in another process, which does not stay in a mount.
pub(super) fn this_program() -> std::io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.current_dir("/");
    Ok(command)
}

fn no_pipe() -> std::io::Error {
    std::io::Error::other("there is no pipe to it")
}
