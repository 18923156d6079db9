//! Exit codes (docs/EXIT-CODES.md), and the one line on standard error that explains a failure.

use std::error::Error;
use std::fmt;
use std::io;
use std::process::ExitCode;

use crate::control::ControlError;
use crate::remote::{ErrorKind, RemoteError};
use crate::text::visible;
use crate::transport::TransportError;

/// The exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    /// Anything without a code of its own.
    Failed = 1,
    /// Wrong arguments, unknown option.
    Usage = 2,
    /// No such site or environment, or one that cannot be mounted: not created yet, or frozen.
    NoSuchSite = 3,
    /// Not logged in to the platform, or the token was refused.
    NotLoggedIn = 4,
    /// The API cannot be reached, or its answer cannot be understood.
    Api = 5,
    /// The host is unknown, unreachable, or does not answer.
    Unreachable = 6,
    /// The server does not speak SSH or SFTP.
    NotSftp = 7,
    /// The host key is unknown, has changed or is revoked.
    HostKey = 8,
    /// Key or password refused.
    LoginRefused = 9,
    /// The directory to mount does not exist on the server.
    NoDirectory = 10,
    /// The mount point is missing, not a directory, not empty, in use, or no mount of pantheonfs.
    MountPoint = 11,
    /// FUSE is missing or may not be used.
    NoFuse = 12,
    /// Programs use the mount, or not every change could be sent.
    Busy = 13,
    /// The server refused changes, or other writers' changes prevented them.
    GivenUp = 14,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A failed command: the exit code, what failed, and the error that caused it.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    message: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

pub(super) type CliResult<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), source: None }
    }

    /// A failure with the error that caused it.
    pub(super) fn caused(
        exit: Exit,
        message: impl Into<String>,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self { exit, message: message.into(), source: Some(source.into()) }
    }

    /// A failure that has been explained already, for example by the child process that serves the mount.
    pub(super) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    /// The message with its causes, each once: a cause that the text before it states already is left out.
    pub(super) fn explain(&self) -> String {
        let mut text = self.message.clone();
        let mut cause = self.source();
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text.push_str(": ");
                text.push_str(&more);
            }
            cause = error.source();
        }
        text
    }

    /// Prints the explanation on standard error.
    fn print(&self) {
        if !self.message.is_empty() {
            eprintln!("pantheonfs: {}", visible(self.explain()));
        }
    }
}

/// Turns an I/O error about `what` into a failure without an exit code of its own.
pub(super) fn failed(what: &dyn fmt::Display) -> impl Fn(std::io::Error) -> Failure + use<> {
    let what = what.to_string();
    move |e| Failure::caused(Exit::Failed, what.clone(), e)
}

/// The exit code of the program; prints the failure.
pub(super) fn finish(result: CliResult<()>) -> ExitCode {
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            failure.print();
            failure.exit.into()
        }
    }
}

/// The exit codes of mount(8): 1 for a wrong call, 32 for a mount that failed.
pub(super) fn finish_helper(result: CliResult<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            ExitCode::from(if failure.exit == Exit::Usage { 1 } else { 32 })
        }
    }
}

/// The exit code of a child process.
pub(super) fn from_code(code: Option<i32>) -> Exit {
    const ALL: [Exit; 14] = [
        Exit::Failed,
        Exit::Usage,
        Exit::NoSuchSite,
        Exit::NotLoggedIn,
        Exit::Api,
        Exit::Unreachable,
        Exit::NotSftp,
        Exit::HostKey,
        Exit::LoginRefused,
        Exit::NoDirectory,
        Exit::MountPoint,
        Exit::NoFuse,
        Exit::Busy,
        Exit::GivenUp,
    ];
    ALL.into_iter().find(|exit| code == Some(*exit as i32)).unwrap_or(Exit::Failed)
}

impl From<TransportError> for Failure {
    fn from(error: TransportError) -> Self {
        let exit = match &error {
            TransportError::NoSuchHost { .. }
            | TransportError::Unreachable { .. }
            | TransportError::Timeout { .. }
            | TransportError::Io { .. } => Exit::Unreachable,
            TransportError::NotSsh { .. }
            | TransportError::NoCommonAlgorithm { .. }
            | TransportError::NoSubsystem { .. } => Exit::NotSftp,
            TransportError::HostKeyUnknown { .. }
            | TransportError::HostKeyChanged { .. }
            | TransportError::HostKeyRevoked { .. } => Exit::HostKey,
            TransportError::AuthRefused { .. }
            | TransportError::WrongPassword { .. }
            | TransportError::BadKey { .. } => Exit::LoginRefused,
            TransportError::BadEndpoint(_) => Exit::Usage,
            TransportError::Program { .. } => Exit::Failed,
        };
        Self::caused(exit, error.to_string(), error)
    }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        let exit = match &error {
            ControlError::NotLoggedIn
            | ControlError::SeveralAccounts(_)
            | ControlError::TokenRefused { .. }
            | ControlError::Unauthorized { .. }
            | ControlError::Forbidden { .. } => Exit::NotLoggedIn,
            ControlError::NoSuchSite { .. }
            | ControlError::NoSuchEnvironment { .. }
            | ControlError::Frozen { .. }
            | ControlError::NotInitialized { .. } => Exit::NoSuchSite,
            ControlError::Unhealthy { .. } => Exit::Unreachable,
            ControlError::NotFound { .. }
            | ControlError::Status { .. }
            | ControlError::NotSupported { .. }
            | ControlError::TooManyCalls { .. }
            | ControlError::Malformed { .. }
            | ControlError::Untrusted { .. }
            | ControlError::Unreachable { .. } => Exit::Api,
            ControlError::Insecure { .. } | ControlError::NoSuchApi(_) | ControlError::NoCertificates { .. } => {
                Exit::Usage
            }
            ControlError::NotSaved { .. } | ControlError::WorkflowFailed { .. } | ControlError::WorkflowSlow { .. } => {
                Exit::Failed
            }
        };
        Self::caused(exit, error.to_string(), error)
    }
}

/// The failure of the first requests over a new connection.
pub(super) fn first_contact(host: &str, error: &RemoteError) -> Failure {
    match &error.kind {
        ErrorKind::Down(loss) => match refused_subsystem(loss) {
            Some(error) => Failure::new(Exit::NotSftp, error.to_string()),
            None => classify_loss(host, loss.why()),
        },
        ErrorKind::Protocol(what) => {
            let text = format!(
                "{host}: logged in, but the server does not speak SFTP ({what}); ask the provider whether SFTP is enabled"
            );
            Failure::new(Exit::NotSftp, text)
        }
        ErrorKind::Timeout => Failure::new(
            Exit::NotSftp,
            format!("{host}: logged in, but SFTP does not answer; try again, or ask the provider"),
        ),
        other => Failure::new(Exit::Failed, format!("{host}: {other}")),
    }
}

/// The server answers the request for its SFTP subsystem when the first requests are on their way.
fn refused_subsystem<'a>(loss: &'a (dyn Error + 'static)) -> Option<&'a TransportError> {
    let error = loss.source()?.downcast_ref::<io::Error>()?;
    error
        .get_ref()?
        .downcast_ref::<TransportError>()
        .filter(|error| matches!(error, TransportError::NoSubsystem { .. }))
}

/// Derives the exit code from what the `ssh` program wrote on its standard error.
fn classify_loss(host: &str, why: &str) -> Failure {
    let said = why.to_ascii_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let exit = match () {
        () if is(&["permission denied", "too many authentication failures"]) => Exit::LoginRefused,
        () if is(&["host key verification failed", "identification has changed", "requested strict checking"]) => {
            Exit::HostKey
        }
        () if is(&["could not resolve", "connection refused", "timed out", "no route to host", "unreachable"]) => {
            Exit::Unreachable
        }
        () => Exit::NotSftp,
    };
    let hint = match exit {
        Exit::LoginRefused => "; check that the key is in the account (the ssh program asks for no password here)",
        Exit::HostKey if is(&["identification has changed"]) => {
            "; an attacker may be in between, or the server was replaced: compare the key from another network (ssh-keyscan); if \
             it is right, remove the old one with ssh-keygen -R"
        }
        Exit::HostKey => {
            "; compare the key with the one that the provider publishes, then use -o StrictHostKeyChecking=accept-new"
        }
        Exit::Unreachable => "; check host, port and network",
        _ => "; logged in, but SFTP does not start: ask the provider whether SFTP is enabled",
    };
    Failure::new(exit, format!("{host}: {why}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot read the list")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_printed_once() {
        let io = || std::io::Error::other("the disk is full");
        assert_eq!(
            Failure::caused(Exit::Failed, "f", Outer(io())).explain(),
            "f: cannot read the list: the disk is full"
        );
        let repeated = Failure::caused(Exit::Failed, "f: the disk is full; make room", io());
        assert_eq!(repeated.explain(), "f: the disk is full; make room");
        assert_eq!(Failure::new(Exit::Failed, "f").explain(), "f");
        let error = ControlError::unreachable("h", io());
        assert!(error.source().is_some_and(|source| source.to_string() == "the disk is full"));
        assert_eq!(Failure::from(error).explain().matches("the disk is full").count(), 1);
    }

    #[test]
    fn messages_of_ssh_become_exit_codes() {
        let of = |why: &str| classify_loss("h", why).exit;
        assert_eq!(of("closed (u@h: Permission denied (publickey).)"), Exit::LoginRefused);
        assert_eq!(of("closed (Host key verification failed.)"), Exit::HostKey);
        // The last line may come too late to be read.
        assert_eq!(of("closed (No ED25519 host key is known and you have requested strict checking.)"), Exit::HostKey);
        assert_eq!(of("closed (connect to host h port 1: Connection refused)"), Exit::Unreachable);
        assert_eq!(of("closed (subsystem request failed on channel 0)"), Exit::NotSftp);
        assert_eq!(from_code(Some(9)), Exit::LoginRefused);
        assert_eq!(from_code(None), Exit::Failed);
    }
}
