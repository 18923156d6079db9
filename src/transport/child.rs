//! The stream of a child process: the `ssh` program, or an SFTP server run directly.
//!
//! The program takes over where libssh2 cannot serve (jump hosts, proxy commands, SHA-1 host keys). It runs without a
//! terminal of its own (`BatchMode`): keys and agents log in, passwords do not.

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::libssh2::wait_for;
use super::ssh_config::Strict;
use super::{Endpoint, Transport, TransportError, TransportInfo};
use crate::clock::Deadline;

/// Lines of the child's messages that are kept for the error.
const MAX_LINES: usize = 8;
/// Bytes of one such line.
const MAX_LINE_BYTES: u64 = 1000;

struct ChildStream {
    child: Child,
    input: ChildStdin,
    output: ChildStdout,
    /// The last lines of its standard error.
    messages: Arc<Mutex<VecDeque<String>>>,
    info: TransportInfo,
}

/// Runs an SFTP server (or anything that speaks its protocol) on pipes.
pub fn exec(program: &Path, args: &[&OsStr]) -> Result<Box<dyn Transport>, TransportError> {
    let mut command = Command::new(program);
    command.args(args);
    start(command, TransportInfo { kind: "exec", ..TransportInfo::default() })
}

/// Connects through the `ssh` program; `sha1` adds the old RSA signatures to what it accepts, after all better ones.
pub(super) fn connect(
    endpoint: &Endpoint,
    sha1: bool,
    deadline: Deadline,
) -> Result<Box<dyn Transport>, TransportError> {
    let program = endpoint.ssh_command.as_deref().unwrap_or("ssh");
    let mut command = Command::new(program);
    let seconds = deadline.remaining().as_secs().max(1);
    option(&mut command, "BatchMode=yes");
    option(&mut command, &format!("ConnectTimeout={seconds}"));
    option(&mut command, "ForwardX11=no");
    option(&mut command, "ForwardAgent=no");
    option(&mut command, "ClearAllForwardings=yes");
    option(&mut command, "PermitLocalCommand=no");
    if sha1 {
        option(&mut command, "HostKeyAlgorithms=+ssh-rsa");
        option(&mut command, "PubkeyAcceptedAlgorithms=+ssh-rsa");
    }
    explicit_options(&mut command, endpoint);
    command.arg("-p").arg(endpoint.port.to_string()).arg("-l").arg(&endpoint.user);
    command.arg("-s").arg("--").arg(&endpoint.host).arg("sftp");
    let peer = format!("{}:{}", endpoint.address, endpoint.port);
    start(command, TransportInfo { kind: "ssh", peer, ..TransportInfo::default() })
}

/// What git is to run for SSH with these settings, quoted for the shell that it uses. Not the host name: git's own.
pub fn git_ssh_command(endpoint: &Endpoint) -> String {
    let mut other_host = endpoint.clone();
    other_host.explicit.host_name = None;
    quoted(&batch_command(&other_host))
}

/// What another program (rsync) is to run to reach the same server, port and user included. Not the host name.
pub fn ssh_command(endpoint: &Endpoint) -> String {
    let mut command = batch_command(endpoint);
    command.arg("-p").arg(endpoint.port.to_string()).arg("-l").arg(&endpoint.user);
    quoted(&command)
}

/// Asks no questions, and accepts old servers.
fn batch_command(endpoint: &Endpoint) -> Command {
    let mut command = Command::new(endpoint.ssh_command.as_deref().unwrap_or("ssh"));
    option(&mut command, "BatchMode=yes");
    option(&mut command, "ConnectTimeout=15");
    option(&mut command, "HostKeyAlgorithms=+ssh-rsa");
    option(&mut command, "PubkeyAcceptedAlgorithms=+ssh-rsa");
    explicit_options(&mut command, endpoint);
    command
}

fn quoted(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| format!("'{}'", word.to_string_lossy().replace('\'', "'\\''")));
    quoted.collect::<Vec<_>>().join(" ")
}

/// What was given after `-o`; the rest the program reads from its own configuration.
fn explicit_options(command: &mut Command, endpoint: &Endpoint) {
    let given = &endpoint.explicit;
    if let Some(config) = &endpoint.ssh_config {
        command.arg("-F").arg(config);
    }
    for file in &given.identity_files {
        command.arg("-i").arg(file);
    }
    if !given.identity_files.is_empty() {
        option(command, "IdentitiesOnly=yes");
    }
    if !given.user_known_hosts_files.is_empty() {
        let files: Vec<String> = given.user_known_hosts_files.iter().map(|f| format!("\"{}\"", f.display())).collect();
        option(command, &format!("UserKnownHostsFile={}", files.join(" ")));
    }
    if let Some(name) = &given.host_name {
        option(command, &format!("HostName={name}"));
    }
    let strict = match endpoint.host_keys.strict {
        Strict::Yes | Strict::Ask => "yes",
        Strict::AcceptNew => "accept-new",
        Strict::No => "no",
    };
    option(command, &format!("StrictHostKeyChecking={strict}"));
}

fn option(command: &mut Command, option: &str) {
    command.arg("-o").arg(option);
}

fn start(mut command: Command, info: TransportInfo) -> Result<Box<dyn Transport>, TransportError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |error: io::Error| TransportError::Program {
        program: program.clone(),
        detail: error.to_string(),
        source: Some(error.into()),
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).current_dir("/");
    // A group of its own: Ctrl-C in the terminal that mounted must not end the connection.
    command.process_group(0);
    let mut child = command.spawn().map_err(failed)?;
    let (Some(input), Some(output), Some(errors)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(failed(io::Error::other("no pipes")));
    };
    for fd in [input.as_fd(), output.as_fd()] {
        let flags = fcntl_getfl(fd).map_err(|e| failed(e.into()))?;
        fcntl_setfl(fd, flags | OFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
    }
    let messages: Arc<Mutex<VecDeque<String>>> = Arc::default();
    let received = messages.clone();
    std::thread::Builder::new()
        .name("ssh-stderr".into())
        .spawn(move || collect_messages(BufReader::new(errors), &received))
        .map_err(failed)?;
    Ok(Box::new(ChildStream { child, input, output, messages, info }))
}

fn collect_messages(mut errors: impl BufRead, received: &Mutex<VecDeque<String>>) {
    let mut line = Vec::new();
    while matches!(errors.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line), Ok(n) if n > 0) {
        let text = String::from_utf8_lossy(&line).trim().to_owned();
        if !text.is_empty() {
            log::debug!("ssh: {text}");
            let mut messages = received.lock();
            messages.push_back(text);
            if messages.len() > MAX_LINES {
                messages.pop_front();
            }
        }
        line.clear();
    }
}

impl Transport for ChildStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.write(bytes)
    }

    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
        ];
        if want_write {
            fds.push(PollFd::from_borrowed_fd(self.input.as_fd(), PollFlags::OUT));
        }
        wait_for(&mut fds, timeout)
    }

    fn info(&self) -> TransportInfo {
        self.info.clone()
    }

    fn last_report(&self) -> Option<String> {
        let messages = self.messages.lock();
        (!messages.is_empty()).then(|| messages.iter().cloned().collect::<Vec<_>>().join("; "))
    }
}

impl Drop for ChildStream {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
