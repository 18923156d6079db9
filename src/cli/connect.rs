//! The first connection of a mount: connects, logs in, and checks that the directory to mount exists.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::exit::{self, CliResult, Exit, Failure};
use super::options::Options;
use super::plan::Plan;
use super::prompt::Terminal;
use super::wake;
use sha2::{Digest, Sha256};

use crate::attr::{Attr, FileKind};
use crate::fs::{self, Layout};
use crate::path::RemotePath;
use crate::remote::{ErrorKind, Remote, RemoteConfig, RemoteError};
use crate::transport::{self, Transport};

/// How long the first connection may take, without the time for questions on the terminal.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

/// The first connection, or an offline start.
pub(super) struct First {
    pub(super) remote: Remote,
    /// Attributes of the root of the mount; `None` if the mount starts offline.
    pub(super) root: Option<Attr>,
}

/// Connects. If the server cannot be reached and the tree is cached, the mount starts offline.
pub(super) fn first(plan: &Plan, options: &Options, terminal: &Arc<Terminal>, cache_dir: &Path) -> CliResult<First> {
    let known = fs::knows_a_tree(cache_dir);
    let limit = if known { CONNECT_LIMIT.min(options.timeout) } else { CONNECT_LIMIT };
    match connect_within(limit, plan, options, terminal) {
        Ok((remote, root)) => Ok(First { remote, root: Some(root) }),
        // A later attempt may succeed without any action of the user.
        Err(failure) if known && failure.exit == Exit::Unreachable => {
            let failed = |e: RemoteError| Failure::caused(Exit::Failed, e.to_string(), e);
            let remote = Remote::start_offline(remote_config(plan, options, terminal), failure.explain());
            Ok(First { remote: remote.map_err(failed)?, root: None })
        }
        Err(failure) => Err(failure),
    }
}

fn remote_config(plan: &Plan, options: &Options, terminal: &Arc<Terminal>) -> RemoteConfig {
    let (endpoint, asked) = (plan.endpoint.clone(), terminal.clone());
    let dial = move |deadline| transport::connect(&endpoint, asked.as_ref(), deadline);
    let config = RemoteConfig::new(Box::new(dial), plan.base.clone(), options.timeout);
    RemoteConfig { wake: wake::rouse(plan), temp_prefix: temp_prefix(plan), ..config }
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
    connect_within(CONNECT_LIMIT, plan, options, terminal)
}

fn connect_within(
    limit: Duration,
    plan: &Plan,
    options: &Options,
    terminal: &Arc<Terminal>,
) -> CliResult<(Remote, Attr)> {
    wake::rousing(plan, limit, |deadline| {
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
    let root = match plan.layout {
        Layout::Pantheon => RemotePath::parse("code").unwrap_or_else(|_| RemotePath::root()),
        Layout::Plain => RemotePath::root(),
    };
    match remote.lstat(&root) {
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
