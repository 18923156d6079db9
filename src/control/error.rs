//! Why a question to the API failed: what, on which object, what to do next. `cli` derives its exit code from the kind.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The error below a [`ControlError`]; shared, so that the error stays `Clone`.
pub type ControlSource = Arc<dyn Error + Send + Sync>;

/// Why a question to the API failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    #[error(
        "not logged in to Pantheon: run `pantheonfs login` or `terminus auth:login`, or set TERMINUS_MACHINE_TOKEN \
         (create a Personal Access Token: https://docs.pantheon.io/personal-access-tokens)"
    )]
    NotLoggedIn,
    #[error("several Terminus accounts are saved ({}): choose one with TERMINUS_USER", .0.join(", "))]
    SeveralAccounts(Vec<String>),
    #[error(
        "the token was refused: {message}; create a new Personal Access Token (they expire after 90 days: \
         https://docs.pantheon.io/personal-access-tokens) and run `pantheonfs login`"
    )]
    TokenRefused { message: String },
    #[error("{what}: the API session is not accepted: {message}; log in again with `pantheonfs login`")]
    Unauthorized { what: String, message: String },
    #[error("{what}: your account is not allowed to do this: {message}")]
    Forbidden { what: String, message: String },
    #[error("{what}: not found: {message}")]
    NotFound { what: String, message: String },
    #[error("{name}: no such site in your account{}; check the spelling, or `terminus site:list`", said(.message))]
    NoSuchSite { name: String, message: String },
    #[error("{name}: the site has no such environment{}; it has dev, test, live and its multidevs", said(.message))]
    NoSuchEnvironment { name: String, message: String },
    #[error("{name}: the platform has frozen the site; unfreeze it in the dashboard (Unfreeze site), then mount again")]
    Frozen { name: String },
    #[error(
        "{name}: this environment has not been created yet; deploy to it first (dashboard, or `terminus env:deploy`)"
    )]
    NotInitialized { name: String },
    #[error("{domain}: the environment does not pass its health check ({detail}); open its web site in a browser")]
    Unhealthy { domain: String, detail: String },
    #[error("{what}: the platform does not support this for the site: {message}; trying again does not help")]
    NotSupported { what: String, message: String },
    #[error("{what}: the API answered 429, too many calls: {message}; try again in some minutes")]
    TooManyCalls { what: String, message: String, retry_after: Option<Duration> },
    #[error("{what}: the API answered {status}: {message}; try again later")]
    Status { what: String, status: u16, message: String },
    #[error(
        "{what}: the API's answer cannot be understood ({source}); try again, and report the problem if it remains"
    )]
    Malformed { what: String, source: ControlSource },
    #[error("{host}: the API cannot be reached ({source}); check the network")]
    Unreachable { host: String, source: ControlSource },
    #[error(
        "{host}: the certificate of the server is not trusted ({source}); check the clock of this machine, and set \
         SSL_CERT_FILE to a file (PEM) with the certificates to trust if your network has its own"
    )]
    Untrusted { host: String, source: ControlSource },
    #[error("SSL_CERT_FILE={}: the certificates cannot be used: {source}", .file.display())]
    NoCertificates { file: PathBuf, source: ControlSource },
    #[error("{url}: plain http is only for a simulator on this machine; use https")]
    Insecure { url: String },
    #[error("PANTHEONFS_API={0}: no such API; use terminus or v0")]
    NoSuchApi(String),
    #[error(
        "logged in, but the token cannot be saved: {source}; check the directory of Terminus' cache (TERMINUS_CACHE_DIR)"
    )]
    NotSaved { source: ControlSource },
    #[error("the platform refused {kind}: {reason}")]
    WorkflowFailed { kind: String, reason: String },
    #[error("{kind} still runs after {seconds} s; follow it in the dashboard")]
    WorkflowSlow { kind: String, seconds: u64 },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

impl ControlError {
    /// An answer about `what` that cannot be used.
    pub fn malformed(what: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Malformed { what: what.into(), source: Arc::from(source.into()) }
    }

    /// A host that gave no answer.
    pub fn unreachable(host: impl Into<String>, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable { host: host.into(), source: Arc::from(source.into()) }
    }

    /// Whether a new session may help. The platform answers 403 to some sessions that have ended.
    pub(super) fn is_ended_session(&self) -> bool {
        let says = |message: &str| message.to_ascii_lowercase().contains("session");
        matches!(self, Self::Unauthorized { .. }) || matches!(self, Self::Forbidden { message, .. } if says(message))
    }

    /// Whether the platform may have carried out the request although no answer says so: the answer was lost on the way.
    pub fn is_doubtful(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { .. } | Self::Malformed { .. })
    }

    /// Whether the request may succeed later unchanged.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. }
                | Self::Untrusted { .. }
                | Self::Status { .. }
                | Self::TooManyCalls { .. }
                | Self::Malformed { .. }
        )
    }
}
