//! `pantheonfs mount`: checks, connects, mounts, and serves the mount until it ends.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::args::Mount;
use super::early::Early;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::lock::lock;
use super::options::Options;
use super::place::{self, Chosen};
use super::plan::{self, Plan};
use super::prompt::Terminal;
use super::record::{self, Record};
use super::{connect, daemon, environ, identity, logging, mountpoint, notices, report};
use crate::attr::Area;
use crate::clock::Clock;
use crate::env::Env;
use crate::fs::{Cause, EarlierTree, Fs, FsConfig, Layout, Wait};
use crate::fuse::{self, MountConfig, Mounted};
use crate::gate::{Gate, Verdict};
use crate::mirror::{GitDirConfig, Mirror};
use crate::remote::{Link, Remote};
use crate::text::visible;
use crate::transport::{Endpoint, Prompt as _};
use crate::write::{Backups, Journal};

/// How often signals are checked while the mount is served.
const TICK: Duration = Duration::from_millis(200);
/// How often it is checked whether the mount was detached while another mount namespace holds it.
const DETACHED_CHECK: Duration = Duration::from_secs(1);

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
    // All files that are made here, also by git and ssh, are for the mounting user only.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let around = Environ::look()?;
    let Chosen { source, place, remark } = place::choose(args, &around)?;
    let options = Options::parse(&args.options, &around.here, around.home.as_deref())?;
    record::unmount_dead(&around, &place.path)?;
    let mountpoint = mountpoint::prepare(&place.path, options.nonempty)?;
    fuse_is_there()?;
    let begin = |endpoint: Endpoint, key: &str| connect::begin_early(endpoint, key, &options, &around);
    let mut plan = plan::make(&source, &options, &around, &begin)?;
    identity::take_over(&around, &plan)?;
    let state_dir = around.state_dir(&plan.key)?;
    let _lock = lock(&state_dir, &plan.source)?;
    let terminal = Arc::new(Terminal::new());
    let stop = stop_signals()?;
    let cache_dir = around.cache_dir(&plan.key)?;
    let content_dir = around.content_dir(&plan.content_key)?;
    plan.endpoint.rates = plan.early.as_ref().map_or_else(|| connect::rates(&cache_dir), Early::rates);
    let source = plan.source.clone();
    let notices = notices::plan(&plan, &options, &around, &mountpoint);
    let served = Served::start(plan, &options, &terminal, &mountpoint, [&state_dir, &cache_dir, &content_dir])?;
    let ready = visible(served.describe(&mountpoint)) + remark;
    if let Some(notices) = notices {
        notices.start((&served.fs, &served.env, &served.remote));
    }
    let record = Record { source, mountpoint, pid: std::process::id(), made: place.made.clone() };
    record::write(&state_dir, &record);
    if args.report {
        terminal.leave();
        logging::go_on_in(&state_dir.join("log"));
        daemon::detach(&ready);
    } else if !args.quiet {
        // systemd waits for it, where a unit started this process.
        if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Ready]) {
            log::warn!("systemd was not told that the mount is ready: {error}");
        }
        // The mount serves whether this can be read or not.
        drop(report::print(format!("{ready}\n").as_bytes()));
    }
    served.until(&stop, &record.mountpoint);
    record::remove(&state_dir);
    // While the lock is held: `umount` waits for the lock, and the directory is gone when it returns.
    drop(place);
    Ok(())
}

/// Checks that FUSE can be used.
pub(super) fn fuse_is_there() -> CliResult<()> {
    if !Path::new("/dev/fuse").exists() {
        let text = "/dev/fuse is missing; load the module (modprobe fuse), or in a container pass --device /dev/fuse";
        return Err(Failure::new(Exit::NoFuse, text));
    }
    match File::options().read(true).write(true).open("/dev/fuse") {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            let text =
                "/dev/fuse: you have no permission to open it; as root: chmod 666 /dev/fuse (the default of udev)";
            Err(Failure::new(Exit::NoFuse, text))
        }
        // Any other problem is reported better by mounting.
        _ => Ok(()),
    }
}

/// A flag that is set by SIGTERM, SIGINT and SIGHUP.
pub(super) fn stop_signals() -> CliResult<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP] {
        signal_hook::flag::register(signal, stop.clone())
            .map_err(|e| Failure::caused(Exit::Failed, "signals cannot be handled", e))?;
    }
    Ok(stop)
}

/// A mount that is served.
struct Served {
    mounted: Mounted,
    fs: Fs,
    env: Env,
    gate: Gate,
    remote: Remote,
    /// See [`mountpoint::device`].
    device: Option<String>,
}

impl Served {
    /// Connects, recovers the changes that the last mount did not send, and mounts.
    fn start(
        mut plan: Plan,
        options: &Options,
        terminal: &Arc<Terminal>,
        mountpoint: &Path,
        [state_dir, cache_dir, content_dir]: [&Path; 3],
    ) -> CliResult<Self> {
        let tree = EarlierTree::read(Some(cache_dir), plan.layout)
            .map_err(|e| Failure::caused(Exit::Failed, "no thread can be started", e))?;
        let connect::First { remote, root } = connect::first(&mut plan, options, terminal, cache_dir)?;
        let config = fs_config(&mut plan, options, tree, [state_dir, cache_dir, content_dir])?;
        raise_descriptors();
        let (gate, clock) = (Gate::new(), Clock::system());
        let env = Env::start(plan.env, gate.clone(), clock.clone(), plan.initial);
        let fs = Fs::new(config, remote.clone(), env.clone(), gate.clone(), clock);
        if let Some(root) = root {
            fs.set_root_attr(root);
        }
        if let Link::Down { why, .. } = remote.link() {
            terminal.tell(&format!(
                "offline: {why}. The mount shows the files that the last mount knew, and sends changes when the server can be reached"
            ));
        }
        if let Some(said) = fs.recover() {
            terminal.tell(&said);
        }
        let mounted = fuse::mount(fs.clone(), mountpoint, &mount_config(&plan.source, options))
            .map_err(|e| not_mounted(mountpoint, options, e))?;
        let device = mountpoint::device(mountpoint);
        Ok(Self { mounted, fs, env, gate, remote, device })
    }

    /// The line that tells that the mount is ready.
    fn describe(&self, mountpoint: &Path) -> String {
        let status = self.fs.status();
        let code = match self.gate.verdict(Area::Code) {
            Verdict::Open => "writable".to_owned(),
            Verdict::Held { why, .. } => format!("waiting: {why}"),
            Verdict::Closed(reason) => format!("read-only: {reason}"),
        };
        format!("{} is mounted on {} (code {code})", status.source, mountpoint.display())
    }

    /// Whether the mount is nowhere in this namespace any more, and no program has a file of it open. The kernel tells
    /// the end of a mount only when no namespace holds it.
    fn is_detached(&self) -> bool {
        self.device.as_deref().is_some_and(|device| !mountpoint::is_attached(device)) && self.fs.is_unused()
    }

    /// Serves until the mount is gone or a signal arrives, then sends changes and unmounts.
    fn until(mut self, stop: &AtomicBool, mountpoint: &Path) {
        let mut checked = Instant::now();
        let why = loop {
            if self.mounted.wait(TICK) {
                break "unmounted";
            }
            if stop.load(Ordering::Relaxed) {
                break "stopped by a signal";
            }
            if checked.elapsed() > DETACHED_CHECK {
                checked = Instant::now();
                if self.is_detached() {
                    break "unmounted; another mount namespace still holds the mount";
                }
            }
        };
        log::info!("{}: {why}", mountpoint.display());
        // Changes are sent while the connection exists. What cannot be sent waits for the next mount.
        if let Err(error) = self.fs.sync(Wait::Until(self.fs.deadline())) {
            match error.cause {
                Cause::Rejected(_) => log::error!("{error}"),
                _ => log::warn!("{error}; the next mount sends the changes"),
            }
        }
        let unmounted = self.mounted.unmount();
        if let Err(error) = &unmounted {
            log::info!("{}: {error}; unmounting it anyway", mountpoint.display());
            if let Err(error) = mountpoint::detach(mountpoint, true) {
                log::error!("{}: {error}", mountpoint.display());
            }
        }
        self.fs.close();
        // A program that has a file open may still change something otherwise.
        if unmounted.is_ok() {
            self.fs.end();
        }
        self.env.stop();
        self.remote.close();
    }
}

/// The configuration of the file system, with the state directory, the cache of the tree, and the cache of content.
fn fs_config(
    plan: &mut Plan,
    options: &Options,
    tree: EarlierTree,
    [state_dir, cache_dir, content_dir]: [&Path; 3],
) -> CliResult<FsConfig> {
    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Ok(FsConfig {
        source: plan.source.clone(),
        uid: options.uid.unwrap_or(me.0),
        gid: options.gid.unwrap_or(me.1),
        umask: options.umask,
        fresh: options.fresh,
        timeout: options.timeout,
        cache_bytes: options.cache_bytes,
        state_dir: state_dir.to_owned(),
        tree,
        cache_dir: Some(cache_dir.to_owned()),
        content_dir: Some(content_dir.to_owned()),
        journal: journal(state_dir)?,
        sync: options.sync,
        links: options.links,
        layout: plan.layout,
        backups: backups(plan.layout, state_dir)?,
        git: git_dir(plan, options, state_dir)?,
        attest: plan.attest.take(),
        mirror: plan.mirror.take().map(|config| Arc::new(Mirror::new(config))),
        connection: plan.connection.clone(),
    })
}

/// The git directory of the mount. It needs the repository, and the program under a name that stays.
fn git_dir(plan: &Plan, options: &Options, state_dir: &Path) -> CliResult<Option<GitDirConfig>> {
    if !options.git || plan.mirror.is_none() {
        return Ok(None);
    }
    let program = std::env::current_exe()
        .map_err(|e| Failure::caused(Exit::Failed, "the path of this program is not known; try -o git=no", e))?;
    Ok(Some(GitDirConfig { dir: state_dir.join("git"), program }))
}

fn mount_config(source: &str, options: &Options) -> MountConfig {
    MountConfig {
        fs_name: source.to_owned(),
        allow_other: options.allow_other,
        default_permissions: options.default_permissions,
        // Only for -o ro: while code alone is read-only, uploads stay writable and the gate answers EROFS.
        read_only: options.read_only,
        noexec: options.noexec,
        noatime: options.noatime,
        // Without it programs that watch files are told of nothing that others change.
        program: std::env::current_exe().ok(),
    }
}

/// Opens the journal: the changes that are not on the server yet.
fn journal(state_dir: &Path) -> CliResult<Arc<Journal>> {
    let failed = |e: std::io::Error| {
        let text = format!(
            "{}: the changes that are not on the server yet cannot be read: {e}; to start without them, move 'journal' and 'spool' of that directory away",
            state_dir.display()
        );
        Failure::caused(Exit::Failed, text, e)
    };
    Journal::open(state_dir).map(Arc::new).map_err(failed)
}

/// Opens the kept copies of uncommitted work; without them no write is admitted.
fn backups(layout: Layout, state_dir: &Path) -> CliResult<Option<Arc<Backups>>> {
    if layout == Layout::Plain {
        return Ok(None);
    }
    let failed = |e: std::io::Error| {
        let text = format!(
            "{}: the kept copies of uncommitted work cannot be opened: {e}; move that directory away",
            state_dir.display()
        );
        Failure::caused(Exit::Failed, text, e)
    };
    Backups::open(state_dir).map(|kept| Some(Arc::new(kept))).map_err(failed)
}

fn not_mounted(mountpoint: &Path, options: &Options, error: std::io::Error) -> Failure {
    let hint = match error.kind() {
        std::io::ErrorKind::NotFound => "; install fuse3 (fusermount3 is missing)",
        std::io::ErrorKind::PermissionDenied => "; check the permissions of /dev/fuse",
        _ if options.allow_other => "; for an ordinary user, allow_other needs 'user_allow_other' in /etc/fuse.conf",
        _ => "; check that FUSE is available",
    };
    let text = format!("{}: the kernel did not mount it: {error}{hint}", mountpoint.display());
    Failure::caused(Exit::NoFuse, text, error)
}

/// Raises the limit of open files to the hard limit: each changed open file and each pack of the cache needs one.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        log::info!("the limit of open files could not be raised from {:?}: {error}", limit.current);
    }
}
