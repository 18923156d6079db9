//! Why the API did not help: what, on which object, what to do next. The kinds decide `cli`'s exit code.

/// See the module header.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ControlError {
    #[error(
        "not logged in to Pantheon: set TERMINUS_MACHINE_TOKEN, or log in with `terminus auth:login` \
         (make a token at https://dashboard.pantheon.io/personal-settings/machine-tokens)"
    )]
    NotLoggedIn,
    #[error("several Terminus accounts are saved ({}): choose one with TERMINUS_USER", .0.join(", "))]
    SeveralAccounts(Vec<String>),
    #[error("the machine token was refused: {message}; make a new one in the dashboard under Machine Tokens")]
    TokenRefused { message: String },
    #[error("{what}: the API session is not accepted: {message}; log in again with `terminus auth:login`")]
    Unauthorized { what: String, message: String },
    #[error("{what}: your account is not allowed to do this: {message}")]
    Forbidden { what: String, message: String },
    #[error("{what}: not found: {message}")]
    NotFound { what: String, message: String },
    #[error("{name}: no such site in your account{}; check the spelling, or `terminus site:list`", said(.message))]
    NoSuchSite { name: String, message: String },
    #[error("{name}: the site has no such environment{}; it has dev, test, live and its multidevs", said(.message))]
    NoSuchEnvironment { name: String, message: String },
    #[error(
        "{name}: the platform has put the site to rest (frozen); wake it in the dashboard (Unfreeze site), then mount again"
    )]
    Frozen { name: String },
    #[error(
        "{name}: this environment has not been created yet; deploy to it first (dashboard, or `terminus env:deploy`)"
    )]
    NotInitialized { name: String },
    #[error("{domain}: the environment does not answer its health check ({detail}); look at it in a browser")]
    Unhealthy { domain: String, detail: String },
    #[error("{what}: the API answered {status}: {message}; try again later")]
    Status { what: String, status: u16, message: String },
    #[error("{what}: the API's answer makes no sense ({detail}); try again, and report it if it stays so")]
    Malformed { what: String, detail: String },
    #[error("{host}: the API cannot be reached ({detail}); check the network")]
    Unreachable { host: String, detail: String },
    #[error("{url}: plain http is only for a simulator on this machine; use https")]
    Insecure { url: String },
    #[error("PANTHEONFS_API={0}: no such API; say terminus or v0")]
    NoSuchApi(String),
    #[error("logged in, but the token cannot be saved: {detail}")]
    NotSaved { detail: String },
    #[error("the platform refused {kind}: {reason}")]
    WorkflowFailed { kind: String, reason: String },
    #[error("{kind} still runs after {seconds} s; look at the dashboard")]
    WorkflowSlow { kind: String, seconds: u64 },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}

impl ControlError {
    /// Nothing is wrong with the request: asking again later may help.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Status { .. } | Self::Malformed { .. })
    }
}
