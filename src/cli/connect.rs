//! The first connection of a mount: connects, logs in, and checks that the directory to mount exists.

use std::cell::Cell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::early::Early;
use super::environ::Environ;
use super::exit::{self, CliResult, Exit, Failure};
use super::lock;
use super::options::Options;
use super::plan::Plan;
use super::prompt::Terminal;
use super::wake;
use sha2::{Digest, Sha256};

use crate::attr::{Attr, FileKind};
use crate::clock::Deadline;
use crate::fs::{self, Layout};
use crate::remote::{ErrorKind, Remote, RemoteConfig, RemoteError};
use crate::transport::{self, Endpoint, Rates, Transport};

/// How long the first connection may take, without the time for questions on the terminal.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The first connection, or an offline start.
pub(super) struct First {
    pub(super) remote: Remote,
    /// Attributes of the root of the mount; `None` if the mount starts offline.
    pub(super) root: Option<Attr>,
}

/// Connects. If the server cannot be reached and the tree is cached, the mount starts offline.
pub(super) fn first(
    plan: &mut Plan,
    options: &Options,
    terminal: &Arc<Terminal>,
    cache_dir: &Path,
) -> CliResult<First> {
    let early = plan.early.take();
    match connect_within(limit(options, cache_dir), early, plan, options, terminal) {
        Ok((remote, root)) => Ok(First { remote, root: Some(root) }),
        // A later attempt may succeed without any action of the user.
        Err(failure) if failure.exit == Exit::Unreachable && fs::knows_a_tree(cache_dir) => {
            let failed = |e: RemoteError| Failure::caused(Exit::Failed, e.to_string(), e);
            let remote = Remote::start_offline(remote_config(plan, options, terminal), failure.explain());
            Ok(First { remote: remote.map_err(failed)?, root: None })
        }
        Err(failure) => Err(failure),
    }
}

/// How long the first connection may take. With a cached tree the mount can start without it.
fn limit(options: &Options, cache_dir: &Path) -> Duration {
    if fs::knows_a_tree(cache_dir) { CONNECT_LIMIT.min(options.timeout) } else { CONNECT_LIMIT }
}

/// Rates that earlier connections reached.
pub(super) fn rates(cache_dir: &Path) -> Arc<Rates> {
    Arc::new(Rates::kept(cache_dir.join("rates.json")))
}

/// Begins the first connection while the API is asked, unless the environment is mounted already.
pub(super) fn begin_early(mut endpoint: Endpoint, key: &str, options: &Options, around: &Environ) -> Option<Early> {
    if lock::is_held(&around.state_path(key)) {
        return None;
    }
    let cache_dir = around.cache_path(key);
    endpoint.rates = rates(&cache_dir);
    Early::begin(endpoint, Deadline::after(limit(options, &cache_dir)))
}

fn remote_config(plan: &Plan, options: &Options, terminal: &Arc<Terminal>) -> RemoteConfig {
    let (endpoint, asked) = (plan.endpoint.clone(), terminal.clone());
    let dial = move |deadline| transport::connect(&endpoint, asked.as_ref(), deadline);
    let config = RemoteConfig::new(Box::new(dial), plan.base.clone(), options.timeout);
    RemoteConfig { wake: wake::rouse(plan), temp_prefix: temp_prefix(plan), root: plan.layout.root(), ..config }
}

/// The same for every mount of this user, machine and source, and no other's.
fn temp_prefix(plan: &Plan) -> String {
    let machine = std::fs::read("/etc/machine-id").unwrap_or_default();
    let user = rustix::process::getuid().as_raw().to_string();
    let id = [machine.as_slice(), user.as_bytes(), plan.key.as_bytes()].join(&b'\n');
    Sha256::digest(&id).iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Connects while the user can answer questions, and checks that the directory to mount exists.
pub(super) fn connect(plan: &Plan, options: &Options, terminal: &Arc<Terminal>) -> CliResult<(Remote, Attr)> {
    connect_within(CONNECT_LIMIT, None, plan, options, terminal)
}

/// `early`: a connection that was begun before, for the first attempt.
fn connect_within(
    limit: Duration,
    early: Option<Early>,
    plan: &Plan,
    options: &Options,
    terminal: &Arc<Terminal>,
) -> CliResult<(Remote, Attr)> {
    let early = Cell::new(early);
    wake::rousing(plan, limit, |deadline| {
        let begun = early.take().and_then(|early| early.finish(deadline)).transpose()?;
        // One that waited for the API for long may be dead by now.
        if let Some(begun) = begun.and_then(|first| begin(plan, options, terminal, first).ok()) {
            return Ok(begun);
        }
        let first = transport::connect(&plan.endpoint, terminal.as_ref(), deadline)?;
        begin(plan, options, terminal, first)
    })
}

fn begin(
    plan: &Plan,
    options: &Options,
    terminal: &Arc<Terminal>,
    first: Box<dyn Transport>,
) -> CliResult<(Remote, Attr)> {
    let host = &plan.endpoint.host;
    let remote = Remote::start(remote_config(plan, options, terminal), first).map_err(|error| match &error.kind {
        ErrorKind::NotFound => no_directory(plan),
        _ => exit::first_contact(host, &error),
    })?;
    match remote.root_attr() {
        Ok(attr) if attr.is_dir() => Ok((remote, attr)),
        // The path of a URL may be a link on the server; listing it shows whether it leads to a directory.
        Ok(attr) if attr.kind == FileKind::Symlink && plan.layout == Layout::Plain => {
            Ok((remote, Attr { kind: FileKind::Directory, perm: 0o755, ..attr }))
        }
        Ok(_) => Err(no_directory(plan)),
        Err(error) if matches!(error.kind, ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            Err(no_directory(plan))
        }
        Err(error) => Err(exit::first_contact(host, &error)),
    }
}

fn no_directory(plan: &Plan) -> Failure {
    let text = match plan.layout {
        Layout::Pantheon => format!(
            "{}: there is no directory 'code' on {}; is this a Pantheon environment? For another server use \
             sftp://user@host/path",
            plan.source, plan.endpoint.host
        ),
        Layout::Plain => format!(
            "{}: no such directory on {}; check the path (sftp://host/path is absolute, sftp://host/~/path is not)",
            plan.source, plan.endpoint.host
        ),
    };
    Failure::new(Exit::NoDirectory, text)
}
