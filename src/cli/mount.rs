//! `pantheonfs mount`: checks, connects, mounts, serves until the mount is gone.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::args::Mount;
use super::environ::Environ;
use super::exit::{self, CliResult, Exit, Failure};
use super::options::Options;
use super::plan::{self, Plan};
use super::prompt::Terminal;
use super::source::Source;
use super::{daemon, environ, identity, logging, mountpoint, wake};
use crate::attr::{Area, Attr, FileKind};
use crate::clock::Clock;
use crate::env::Env;
use crate::fs::{Fs, FsConfig, Layout, Wait};
use crate::fuse::{self, MountConfig, Mounted};
use crate::gate::{Gate, Verdict};
use crate::mirror::Mirror;
use crate::path::RemotePath;
use crate::remote::{ErrorKind, Link, Remote, RemoteConfig, RemoteError};
use crate::text::visible;
use crate::transport::{self, Prompt as _, Rates, Transport};
use crate::write::{Backups, Journal};

/// How often the wait for the end looks at signals.
const TICK: Duration = Duration::from_millis(200);
/// How long a previous mount of the same environment may take to finish.
const LOCK_WAIT: Duration = Duration::from_secs(5);
/// How long the first connection may take, questions on the terminal aside.
const CONNECT_LIMIT: Duration = Duration::from_secs(30);

pub(super) fn run(args: &Mount) -> CliResult<()> {
    if args.foreground || args.report {
        return serve(args);
    }
    daemon::start(args)
}

fn serve(args: &Mount) -> CliResult<()> {
    logging::start(args.verbose);
    if let Some(descriptor) = args.token_fd {
        environ::receive_token(descriptor)?;
    }
    // Everything that is made here, by git and ssh too, is for the mounting user only.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let around = Environ::look()?;
    let (source, place) = match &args.mountpoint {
        Some(place) => (Source::parse(&args.source)?, place.clone()),
        // One word is the mount point: the checkout we are in says which site.
        None => (around.sites.infer(&around.here)?, PathBuf::from(&args.source)),
    };
    let options = Options::parse(&args.options, &around.here, around.home.as_deref())?;
    let mountpoint = mountpoint::prepare(&place, options.nonempty)?;
    fuse_is_there()?;
    let mut plan = plan::make(&source, &options, &around)?;
    identity::take_over(&around, &plan)?;
    let state_dir = around.state_dir(&plan.key)?;
    let _lock = lock(&state_dir, &plan.source)?;
    let terminal = Arc::new(Terminal::new());
    let stop = stop_signals()?;
    let cache_dir = around.cache_dir(&plan.key)?;
    let content_dir = around.content_dir(&plan.content_key)?;
    plan.endpoint.rates = Arc::new(Rates::kept(cache_dir.join("rates.json")));
    let served = Served::start(plan, &options, &terminal, &mountpoint, [&state_dir, &cache_dir, &content_dir])?;
    let ready = visible(served.describe(&mountpoint));
    if args.report {
        terminal.leave();
        logging::go_on_in(&state_dir.join("log"));
        daemon::let_go(&ready);
    } else if !args.quiet {
        println!("{ready}");
    }
    served.until(&stop, &mountpoint);
    Ok(())
}

/// Says what is missing before anything is connected.
pub(super) fn fuse_is_there() -> CliResult<()> {
    if !Path::new("/dev/fuse").exists() {
        let text = "/dev/fuse is missing; load the module (modprobe fuse), or in a container pass --device /dev/fuse";
        return Err(Failure::new(Exit::NoFuse, text));
    }
    match File::options().read(true).write(true).open("/dev/fuse") {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let text = "/dev/fuse: you may not open it; as root: chmod 666 /dev/fuse (what udev makes of it elsewhere)";
            Err(Failure::new(Exit::NoFuse, text))
        }
        // Whatever else is wrong with it, mounting says it better.
        _ => Ok(()),
    }
}

/// One mount per environment: two would not know of each other's unsent files.
pub(super) fn lock(state_dir: &Path, source: &str) -> CliResult<File> {
    let path = state_dir.join("lock");
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("{}: {e}", path.display()));
    let file =
        File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(|e| failed(&e))?;
    let until = Instant::now() + LOCK_WAIT;
    loop {
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < until => std::thread::sleep(TICK / 4),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let text = format!(
                    "{source} is mounted already by you; use that mount, or unmount it first (`mount -t fuse.pantheonfs` lists it)"
                );
                return Err(Failure::new(Exit::MountPoint, text));
            }
            Err(error) => return Err(failed(&error)),
        }
    }
}

pub(super) fn stop_signals() -> CliResult<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| Failure::new(Exit::Failed, format!("signals cannot be handled: {e}")))?;
    }
    Ok(stop)
}

/// A mount being served.
struct Served {
    mounted: Mounted,
    fs: Fs,
    env: Env,
    gate: Gate,
    remote: Remote,
}

impl Served {
    fn start(
        plan: Plan,
        options: &Options,
        terminal: &Arc<Terminal>,
        mountpoint: &Path,
        [state_dir, cache_dir, content_dir]: [&Path; 3],
    ) -> CliResult<Self> {
        let first = contact(&plan, options, terminal, cache_dir)?;
        let (remote, root) = (first.remote, first.root);
        let (gate, clock) = (Gate::new(), Clock::system());
        let env = Env::start(plan.env, gate.clone(), clock.clone(), plan.initial);
        let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let config = FsConfig {
            source: plan.source.clone(),
            uid: options.uid.unwrap_or(me.0),
            gid: options.gid.unwrap_or(me.1),
            umask: options.umask,
            fresh: options.fresh,
            timeout: options.timeout,
            cache_bytes: options.cache_bytes,
            state_dir: state_dir.to_owned(),
            cache_dir: Some(cache_dir.to_owned()),
            content_dir: Some(content_dir.to_owned()),
            journal: journal(state_dir)?,
            sync: options.sync,
            layout: plan.layout,
            backups: kept(plan.layout, state_dir)?,
            attest: plan.attest,
            mirror: plan.mirror.map(|config| Arc::new(Mirror::new(config))),
            connection: plan.connection,
        };
        let fs = Fs::new(config, remote.clone(), env.clone(), gate.clone(), clock);
        if let Some(root) = root {
            fs.set_root_attr(root);
        }
        if let Link::Down { why, .. } = remote.link() {
            terminal.tell(&format!(
                "offline: {why}. The mount shows what the last one knew, and sends what you change when the server is back"
            ));
        }
        if let Some(said) = fs.recover() {
            terminal.tell(&said);
        }
        let how = MountConfig {
            fs_name: plan.source,
            allow_other: options.allow_other,
            default_permissions: options.default_permissions,
            // The gate answers EROFS with its reason in status; the kernel's own flag could not be lifted for uploads.
            read_only: options.read_only,
            noexec: options.noexec,
            noatime: options.noatime,
        };
        let mounted = fuse::mount(fs.clone(), mountpoint, &how).map_err(|e| not_mounted(mountpoint, options, &e))?;
        Ok(Self { mounted, fs, env, gate, remote })
    }

    fn describe(&self, mountpoint: &Path) -> String {
        let status = self.fs.status();
        let code = match self.gate.verdict(Area::Code) {
            Verdict::Open => "writable".to_owned(),
            Verdict::Held { why, .. } => format!("waiting: {why}"),
            Verdict::Closed(reason) => format!("read-only: {reason}"),
        };
        format!("{} is mounted on {} (code {code})", status.source, mountpoint.display())
    }

    /// Serves until the mount is gone or a signal asks for the end.
    fn until(mut self, stop: &AtomicBool, mountpoint: &Path) {
        while !self.mounted.wait(TICK) {
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        // The barrier: everything to the server while the link is still there. What cannot go waits for the next mount.
        if let Err(error) = self.fs.sync(Wait::Until(self.fs.deadline())) {
            log::warn!("{error}; the next mount will send them");
        }
        if let Err(error) = self.mounted.unmount() {
            log::info!("{}: {error}; taking it away all the same", mountpoint.display());
            if let Err(error) = mountpoint::detach(mountpoint, true) {
                log::error!("{}: {error}", mountpoint.display());
            }
        }
        self.fs.close();
        self.env.stop();
        self.remote.close();
    }
}

/// What the last mount left to be sent, and what this one will.
fn journal(state_dir: &Path) -> CliResult<Arc<Journal>> {
    let failed = |e: std::io::Error| {
        let text = format!(
            "{}: what is still to be sent cannot be read: {e}; move 'journal' and 'spool' there away to start without them",
            state_dir.display()
        );
        Failure::new(Exit::Failed, text)
    };
    Journal::open(state_dir).map(Arc::new).map_err(failed)
}

/// Where uncommitted work is kept; without it nothing may be written.
fn kept(layout: Layout, state_dir: &Path) -> CliResult<Option<Arc<Backups>>> {
    if layout == Layout::Plain {
        return Ok(None);
    }
    let failed = |e: std::io::Error| {
        let text = format!("{}: the kept copies cannot be opened: {e}; move that directory away", state_dir.display());
        Failure::new(Exit::Failed, text)
    };
    Backups::open(state_dir).map(|kept| Some(Arc::new(kept))).map_err(failed)
}

/// The first connection, or none.
struct First {
    remote: Remote,
    /// What the server says of the mount's root.
    root: Option<Attr>,
}

/// Connects. Where the network is at fault and the tree is known from before, the mount starts without.
fn contact(plan: &Plan, options: &Options, terminal: &Arc<Terminal>, cache_dir: &Path) -> CliResult<First> {
    let known = crate::fs::knows_a_tree(cache_dir);
    let limit = if known { CONNECT_LIMIT.min(options.timeout) } else { CONNECT_LIMIT };
    match connect_within(limit, plan, options, terminal) {
        Ok((remote, root)) => Ok(First { remote, root: Some(root) }),
        // The next try may find it otherwise, without anybody doing anything.
        Err(failure) if known && failure.exit == Exit::Unreachable => {
            let failed = |e: RemoteError| Failure::new(Exit::Failed, e.to_string());
            let remote = Remote::start_offline(remote_config(plan, options, terminal), failure.message);
            Ok(First { remote: remote.map_err(failed)?, root: None })
        }
        Err(failure) => Err(failure),
    }
}

fn remote_config(plan: &Plan, options: &Options, terminal: &Arc<Terminal>) -> RemoteConfig {
    let (endpoint, asked) = (plan.endpoint.clone(), terminal.clone());
    let dial = move |deadline| transport::connect(&endpoint, asked.as_ref(), deadline);
    let config = RemoteConfig::new(Box::new(dial), plan.base.clone(), options.timeout);
    RemoteConfig { rouse: wake::rouse(plan), ..config }
}

/// Connects with the person at hand, and makes sure that what is to be mounted is there.
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
        // The path of a URL may be a link on the server; the listing decides.
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

fn not_mounted(mountpoint: &Path, options: &Options, error: &std::io::Error) -> Failure {
    let place: PathBuf = mountpoint.to_owned();
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "; install fuse3 (fusermount3 is missing)",
        std::io::ErrorKind::PermissionDenied => "; may you use /dev/fuse?",
        _ if options.allow_other => "; as an ordinary user allow_other needs 'user_allow_other' in /etc/fuse.conf",
        _ => "; is FUSE available here?",
    };
    Failure::new(Exit::NoFuse, format!("{}: the kernel did not mount it: {error}{hint}", place.display()))
}
