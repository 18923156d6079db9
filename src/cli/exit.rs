//! Exit codes (docs/EXIT-CODES.md) and the one line that explains a failure.

use std::process::ExitCode;

use crate::control::ControlError;
use crate::remote::{ErrorKind, RemoteError};
use crate::text::visible;
use crate::transport::TransportError;

/// What the exit code says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    Done = 0,
    /// Anything without a code of its own.
    Failed = 1,
    /// Wrong arguments, unknown option.
    Usage = 2,
    /// No such site or environment, or one that is not there to be mounted: not created yet, frozen.
    NoSuchSite = 3,
    /// Not logged in to the platform, or the token was refused.
    NotLoggedIn = 4,
    /// The API cannot be reached or answers nonsense.
    Api = 5,
    /// The host is unknown, unreachable, or does not answer.
    Unreachable = 6,
    /// Something answers, but it does not speak SSH or SFTP.
    NotSftp = 7,
    /// The host key is unknown, has changed or is revoked.
    HostKey = 8,
    /// Key or password refused.
    LoginRefused = 9,
    /// The directory to mount is not there.
    NoDirectory = 10,
    /// The mount point is missing, not a directory, not empty, in use, or no mount of ours.
    MountPoint = 11,
    /// FUSE is missing or may not be used.
    NoFuse = 12,
    /// Programs use the mount.
    Busy = 13,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

/// A failed command.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

pub(super) type CliResult<T> = Result<T, Failure>;

impl Failure {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    /// Already said, by the child that was to become the daemon.
    pub(super) fn silent(exit: Exit) -> Self {
        Self::new(exit, "")
    }

    fn tell(&self) {
        if !self.message.is_empty() {
            eprintln!("pantheonfs: {}", visible(&self.message));
        }
    }
}

pub(super) fn finish(result: CliResult<()>) -> ExitCode {
    match result {
        Ok(()) => Exit::Done.into(),
        Err(failure) => {
            failure.tell();
            failure.exit.into()
        }
    }
}

/// mount(8) has codes of its own: 1 for a wrong call, 32 for a mount that failed.
pub(super) fn finish_helper(result: CliResult<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(if failure.exit == Exit::Usage { 1 } else { 32 })
        }
    }
}

/// The code that a child ended with.
pub(super) fn from_code(code: Option<i32>) -> Exit {
    const ALL: [Exit; 13] = [
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
        Self::new(exit, error.to_string())
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
            | ControlError::Malformed { .. }
            | ControlError::Unreachable { .. } => Exit::Api,
            ControlError::Insecure { .. } | ControlError::NoSuchApi(_) => Exit::Usage,
            ControlError::NotSaved { .. } | ControlError::WorkflowFailed { .. } | ControlError::WorkflowSlow { .. } => {
                Exit::Failed
            }
        };
        Self::new(exit, error.to_string())
    }
}

/// The first words with a server over a fresh connection.
pub(super) fn first_contact(host: &str, error: &RemoteError) -> Failure {
    match &error.kind {
        ErrorKind::Down(why) => classify_loss(host, why),
        ErrorKind::Protocol(what) => {
            let text =
                format!("{host}: logged in, but it does not speak SFTP ({what}); ask the host whether SFTP is on");
            Failure::new(Exit::NotSftp, text)
        }
        ErrorKind::Timeout => Failure::new(
            Exit::NotSftp,
            format!("{host}: logged in, but SFTP does not answer; try again, or ask the host"),
        ),
        other => Failure::new(Exit::Failed, format!("{host}: {other}")),
    }
}

/// The `ssh` program says on its standard error why it ended; its words decide the code.
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
            "; someone may be listening in, or the server was moved: compare the key from another network (ssh-keyscan); if it \
             is right, remove the old one with ssh-keygen -R"
        }
        Exit::HostKey => "; compare the key with what the host's owner says, then -o StrictHostKeyChecking=accept-new",
        Exit::Unreachable => "; check host, port and network",
        _ => "; logged in, but no SFTP: ask the host whether SFTP is enabled",
    };
    Failure::new(exit, format!("{host}: {why}{hint}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_ssh_become_codes() {
        let of = |why: &str| classify_loss("h", why).exit;
        assert_eq!(of("closed (u@h: Permission denied (publickey).)"), Exit::LoginRefused);
        assert_eq!(of("closed (Host key verification failed.)"), Exit::HostKey);
        // Its last line may come too late to be heard.
        assert_eq!(of("closed (No ED25519 host key is known and you have requested strict checking.)"), Exit::HostKey);
        assert_eq!(of("closed (connect to host h port 1: Connection refused)"), Exit::Unreachable);
        assert_eq!(of("closed (subsystem request failed on channel 0)"), Exit::NotSftp);
        assert_eq!(from_code(Some(9)), Exit::LoginRefused);
        assert_eq!(from_code(None), Exit::Failed);
    }
}
