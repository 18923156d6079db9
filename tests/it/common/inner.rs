//! The filesystem in process, without a kernel: on OpenSSH's `sftp-server` over pipes that can be cut and stalled at any
//! byte, with a state directory from which it can start anew as after a crash.

use parking_lot::Mutex;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pantheonfs::attr::Area;
use pantheonfs::clock::{Clock, Deadline};
use pantheonfs::control::ConnectionMode;
use pantheonfs::env::{Env, EnvConfig};
use pantheonfs::fs::{EarlierTree, Fs, FsConfig, FsResult, Layout, Links, NewFile, OpenMode, SetAttr, Wait};
use pantheonfs::gate::{Gate, Verdict};
use pantheonfs::inode::{Ino, ROOT};
use pantheonfs::remote::{Remote, RemoteConfig};
use pantheonfs::transport::{self, Transport, TransportError, TransportInfo};
use pantheonfs::vfiles::Connection;
use pantheonfs::write::Journal;
use tempfile::TempDir;

use super::full_disk::FullDisk;
use super::kernel::Kernel;
use super::meddler::{Meddler, Plan};
use super::server::sftp_server;

/// What happens to the pipes.
#[derive(Default)]
pub struct Faults {
    /// Bytes that still pass in each direction before the connection is lost; once, then it is forgotten.
    cut_after: Mutex<Option<(u64, u64)>>,
    die_after: Mutex<Option<u64>>,
    /// Nothing passes, nobody is told.
    stalled: AtomicBool,
    /// Nothing passes ever again: the process that used it is dead.
    dead: AtomicBool,
    pub cuts: AtomicU64,
    /// What becomes of single packets.
    pub plan: Arc<Plan>,
}

impl Faults {
    pub fn cut_after(&self, sent: u64, received: u64) {
        *self.cut_after.lock() = Some((sent, received));
    }

    /// After this many bytes sent nothing passes any more: the moment of death.
    pub fn die_after(&self, sent: u64) {
        *self.die_after.lock() = Some(sent);
        // Until that much was sent, or nothing more is.
        std::thread::sleep(Duration::from_millis(1));
    }

    fn pass(&self, wanted: usize, sending: bool) -> io::Result<usize> {
        if self.dead.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.stalled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if sending && let Some(left) = self.die_after.lock().as_mut() {
            if *left == 0 {
                self.stalled.store(true, Ordering::Relaxed);
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let n = wanted.min(usize::try_from(*left).unwrap_or(wanted));
            *left -= n as u64;
            return Ok(n);
        }
        let mut plan = self.cut_after.lock();
        let Some((sent, received)) = plan.as_mut() else { return Ok(wanted) };
        let left = if sending { sent } else { received };
        if *left == 0 {
            *plan = None;
            self.cuts.fetch_add(1, Ordering::Relaxed);
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let n = wanted.min(usize::try_from(*left).unwrap_or(wanted));
        *left -= n as u64;
        Ok(n)
    }
}

struct Faulty {
    inner: Box<dyn Transport>,
    faults: Arc<Faults>,
    /// Lost once, lost for good: what comes next is another connection.
    lost: bool,
}

impl Faulty {
    fn check(&mut self, wanted: usize, sending: bool) -> io::Result<usize> {
        if self.lost {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let passed = self.faults.pass(wanted, sending);
        self.lost = matches!(&passed, Err(error) if error.kind() == io::ErrorKind::ConnectionReset);
        passed
    }
}

impl Transport for Faulty {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.check(buffer.len(), false)?;
        self.inner.read(&mut buffer[..n])
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.check(bytes.len(), true)?;
        self.inner.write(&bytes[..n])
    }

    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        if self.faults.stalled.load(Ordering::Relaxed) {
            std::thread::sleep(timeout.min(Duration::from_millis(2)));
            return Ok(());
        }
        self.inner.wait(want_write, wake, timeout.min(Duration::from_millis(20)))
    }

    fn info(&self) -> TransportInfo {
        self.inner.info()
    }
}

/// See the module header.
pub struct Inner {
    pub home: PathBuf,
    dir: TempDir,
    state: PathBuf,
    lives: u32,
    args: Vec<&'static str>,
    setup: Setup,
    /// The calls go through the kernel.
    kernel: Option<Kernel>,
    pub journal: Arc<Journal>,
    pub fs: Fs,
    pub faults: Arc<Faults>,
}

/// What a mount is like.
#[derive(Clone)]
pub struct Setup {
    /// What was listed is believed for so long.
    pub fresh: Duration,
    pub layout: Layout,
    /// The clock of this machine.
    pub clock: Clock,
    /// What tells this machine from others in the names of temporary files.
    pub machine: String,
    gate: Gate,
}

impl Setup {
    pub fn plain(fresh: Duration) -> Self {
        Self { fresh, layout: Layout::Plain, clock: Clock::system(), machine: "0".into(), gate: Gate::new() }
    }

    /// An environment: its code is in `code`, and saves go through `tmp`.
    #[allow(dead_code)] // tests/model.rs
    pub fn environment(fresh: Duration, clock: Clock, machine: String) -> Self {
        Self { fresh, layout: Layout::Pantheon, clock, machine, gate: Gate::new() }
    }
}

const LIMIT: Duration = Duration::from_secs(10);

impl Inner {
    /// `args` are the server's own (`-P rename` refuses RENAME, …); what was listed is believed for `fresh`. `None`, loudly,
    /// where there is no such server.
    pub fn with(args: &[&'static str], fresh: Duration) -> Option<Self> {
        if sftp_server().is_none() {
            super::skip("openssh-sftp-server is not installed (scripts/setup installs it)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = dir.path().join("home");
        fs::create_dir(&home).expect("made");
        Some(Self::start(dir, home, args, Setup::plain(fresh)))
    }

    /// On a server that others may use as well, whose disk is `home`. `None`, loudly, where there is no such server.
    #[allow(dead_code)] // tests/model.rs
    pub fn at(home: &Path, setup: Setup) -> Option<Self> {
        if sftp_server().is_none() {
            super::skip("openssh-sftp-server is not installed (scripts/setup installs it)");
            return None;
        }
        let dir = tempfile::tempdir().expect("a temporary directory");
        Some(Self::start(dir, home.to_owned(), &[], setup))
    }

    fn start(dir: TempDir, home: PathBuf, args: &[&'static str], setup: Setup) -> Self {
        let state = dir.path().join("state-0");
        fs::create_dir(&state).expect("made");
        let faults = Arc::new(Faults::default());
        let (fs, journal) = build(&home, &state, args, &faults, &setup);
        Self { home, dir, state, lives: 0, args: args.to_vec(), setup, kernel: None, journal, fs, faults }
    }

    #[allow(dead_code)] // tests/model.rs
    /// On whatever `dial` connects to; a crash cannot be survived there.
    pub fn on(dial: Dial, fresh: Duration) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (home, state) = (dir.path().join("home"), dir.path().join("state-0"));
        fs::create_dir(&home).expect("made");
        fs::create_dir(&state).expect("made");
        let setup = Setup::plain(fresh);
        let (fs, journal) = assemble(dial, &state, &setup);
        let faults = Arc::default();
        Self { home, dir, state, lives: 0, args: Vec::new(), setup, kernel: None, journal, fs, faults }
    }

    #[allow(dead_code)] // tests/model.rs
    /// From here on all calls go through the kernel.
    pub fn through_the_kernel(mut self) -> Self {
        self.kernel = Some(Kernel::mount(&self.fs, &self.dir.path().join("mnt-0")));
        self
    }

    /// The process dies now, and another one starts with what is on the disk.
    pub fn crash(&mut self) {
        self.crash_with(|_| ());
    }

    /// The power fails: of the journal there is what its last sync left.
    #[allow(dead_code)] // tests/model.rs
    pub fn lose_power(&mut self) {
        let journal = self.journal.clone();
        self.crash_with(|state| {
            let path = state.join("journal");
            let mut bytes = fs::read(&path).expect("there");
            let synced = usize::try_from(journal.synced_bytes()).expect("short");
            bytes.iter_mut().skip(synced).for_each(|byte| *byte = 0);
            fs::write(path, bytes).expect("cut");
        });
    }

    /// The process dies, and what it left is changed before another one starts.
    fn crash_with(&mut self, change: impl FnOnce(&Path)) {
        if self.faults.die_after.lock().is_some() {
            // What is under way gets as far as it may.
            std::thread::sleep(Duration::from_millis(300));
        }
        self.faults.stalled.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(5));
        self.lives += 1;
        let state = self.dir.path().join(format!("state-{}", self.lives));
        copy_at_rest(&self.state, &state);
        change(&state);
        self.faults.dead.store(true, Ordering::Relaxed);
        let mounted = self.kernel.take().is_some();
        self.fs.close();
        self.faults = Arc::new(Faults::default());
        fs::remove_dir_all(&self.state).ok();
        self.state = state;
        (self.fs, self.journal) = build(&self.home, &self.state, &self.args, &self.faults, &self.setup);
        self.fs.recover();
        if mounted {
            let dir = self.dir.path().join(format!("mnt-{}", self.lives));
            self.kernel = Some(Kernel::mount(&self.fs, &dir));
        }
    }

    /// Where the kernel shows it, if the calls go through it.
    #[allow(dead_code)] // tests/it/power.rs
    pub fn mounted_at(&self) -> Option<&Path> {
        self.kernel.as_ref().map(Kernel::dir)
    }

    /// The state directory.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The state directory becomes this one, as if the process had died when it looked like that.
    pub fn crash_into(&mut self, change: impl FnOnce(&Path)) {
        self.faults.dead.store(true, Ordering::Relaxed);
        self.fs.close();
        change(&self.state);
        self.faults = Arc::new(Faults::default());
        (self.fs, self.journal) = build(&self.home, &self.state, &self.args, &self.faults, &self.setup);
        self.fs.recover();
    }

    /// A workflow of the platform holds writes of code, or does no longer.
    #[allow(dead_code)] // tests/model.rs
    pub fn hold(&self, held: bool) {
        let until = Instant::now() + Duration::from_secs(3600);
        let verdict = if held { Verdict::Held { why: "a job".into(), until, drains: false } } else { Verdict::Open };
        self.setup.gate.set(Area::Code, verdict);
    }

    /// The local disk is full for the journal, until the value is dropped.
    #[allow(dead_code)] // tests/model.rs
    pub fn fill_disk(&self) -> FullDisk {
        FullDisk::fill(&self.state.join("journal"))
    }

    pub fn stall(&self, stalled: bool) {
        self.faults.stalled.store(stalled, Ordering::Relaxed);
    }

    /// As often as it takes: a cut in the middle is no failure of the barrier.
    #[track_caller]
    pub fn barrier(&self) {
        for _ in 0..20 {
            if self.fs.sync(wait()).is_ok() {
                return;
            }
        }
        panic!("what waits is not sent: {:?}", self.fs.dirty_files());
    }

    // --- calls by path, as a program makes them

    pub fn find(&self, path: &str) -> FsResult<Ino> {
        let mut ino = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let (found, _) = self.fs.lookup(ino, name.as_bytes(), wait())?;
            let missing = || pantheonfs::fs::FsError::new("lookup", path, pantheonfs::fs::Cause::NotFound);
            ino = found.ok_or_else(missing)?.ino;
        }
        Ok(ino)
    }

    fn parent<'a>(&self, path: &'a str) -> FsResult<(Ino, &'a [u8])> {
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
        Ok((self.find(dir)?, name.as_bytes()))
    }

    pub fn open(&self, path: &str, mode: OpenMode, create: bool) -> FsResult<pantheonfs::fs::HandleId> {
        if let Some(kernel) = &self.kernel {
            return kernel.open(path, mode, create);
        }
        if create {
            let (dir, name) = self.parent(path)?;
            return Ok(self
                .fs
                .create(dir, name, NewFile { perm: 0o644, exclusive: false, scratch: false }, mode, wait())?
                .1
                .handle);
        }
        Ok(self.fs.open(self.find(path)?, mode, wait())?.handle)
    }

    pub fn close(&self, handle: pantheonfs::fs::HandleId) -> FsResult<()> {
        if let Some(kernel) = &self.kernel {
            return kernel.close(handle);
        }
        let flushed = self.fs.flush(handle, wait());
        self.fs.release(handle, wait())?;
        flushed
    }

    pub fn write_at(&self, handle: pantheonfs::fs::HandleId, offset: u64, bytes: &[u8]) -> FsResult<()> {
        match &self.kernel {
            Some(kernel) => kernel.write_at(handle, offset, bytes),
            None => self.fs.write(handle, offset, bytes, wait()).map(drop),
        }
    }

    /// All of it.
    pub fn read_at(&self, handle: pantheonfs::fs::HandleId) -> FsResult<Vec<u8>> {
        match &self.kernel {
            Some(kernel) => kernel.read_at(handle),
            None => self.fs.read(handle, 0, 1 << 20, wait()),
        }
    }

    #[allow(dead_code)] // tests/model.rs
    pub fn readlink(&self, path: &str) -> FsResult<Vec<u8>> {
        match &self.kernel {
            Some(kernel) => kernel.readlink(path),
            None => self.fs.readlink(self.find(path)?, wait()),
        }
    }

    #[allow(dead_code)] // tests/model.rs
    /// Somebody else has changed something on the server, and it is to be seen.
    pub fn look_anew(&self) {
        self.fs.renew_everything();
        if self.kernel.is_some() {
            // The kernel is told behind our back.
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    pub fn write(&self, path: &str, bytes: &[u8]) -> FsResult<()> {
        let handle = self.open(path, OpenMode { read: false, write: true, truncate: true }, true)?;
        let written = self.write_at(handle, 0, bytes);
        self.close(handle)?;
        written
    }

    pub fn read(&self, path: &str) -> FsResult<Vec<u8>> {
        let handle = self.open(path, OpenMode { read: true, write: false, truncate: false }, false)?;
        let bytes = self.read_at(handle);
        self.close(handle)?;
        bytes
    }

    pub fn mkdir(&self, path: &str) -> FsResult<()> {
        if let Some(kernel) = &self.kernel {
            return kernel.mkdir(path);
        }
        let (dir, name) = self.parent(path)?;
        self.fs.mkdir(dir, name, 0o755, wait()).map(drop)
    }

    pub fn rmdir(&self, path: &str) -> FsResult<()> {
        if let Some(kernel) = &self.kernel {
            return kernel.rmdir(path);
        }
        let (dir, name) = self.parent(path)?;
        self.fs.rmdir(dir, name, wait())
    }

    pub fn unlink(&self, path: &str) -> FsResult<()> {
        if let Some(kernel) = &self.kernel {
            return kernel.unlink(path);
        }
        let (dir, name) = self.parent(path)?;
        self.fs.unlink(dir, name, wait())
    }

    pub fn rename(&self, from: &str, to: &str) -> FsResult<()> {
        if let Some(kernel) = &self.kernel {
            return kernel.rename(from, to);
        }
        self.fs.rename(self.parent(from)?, self.parent(to)?, false, wait())
    }

    pub fn symlink(&self, path: &str, text: &str) -> FsResult<()> {
        if let Some(kernel) = &self.kernel {
            return kernel.symlink(path, text);
        }
        let (dir, name) = self.parent(path)?;
        self.fs.symlink(dir, name, text.as_bytes(), wait()).map(drop)
    }

    pub fn setattr(&self, path: &str, change: SetAttr) -> FsResult<()> {
        if let Some(kernel) = &self.kernel {
            return kernel.setattr(path, change);
        }
        self.fs.setattr(self.find(path)?, change, wait()).map(drop)
    }

    /// Names in a directory.
    pub fn names(&self, path: &str) -> FsResult<Vec<String>> {
        if let Some(kernel) = &self.kernel {
            return kernel.names(path);
        }
        let (handle, _) = self.fs.opendir(self.find(path)?, wait())?;
        let mut names = Vec::new();
        self.fs.readdirplus(handle, 0, |entry| {
            names.push(String::from_utf8_lossy(&entry.name).into_owned());
            true
        })?;
        self.fs.releasedir(handle);
        names.retain(|name| name != "." && name != ".." && name != ".pantheon");
        Ok(names)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.kernel.take());
        self.faults.dead.store(true, Ordering::Relaxed);
        self.fs.close();
    }
}

thread_local! {
    static PATIENCE: Cell<Duration> = const { Cell::new(LIMIT) };
}

pub fn wait() -> Wait {
    Wait::Until(Deadline::after(PATIENCE.get()))
}

/// The calls that `work` makes wait for so long at most.
#[allow(dead_code)] // tests/model.rs
pub fn within<T>(limit: Duration, work: impl FnOnce() -> T) -> T {
    let before = PATIENCE.replace(limit);
    let result = work();
    PATIENCE.set(before);
    result
}

/// Copies the state directory as a death of the driver would leave it: at one moment. What still works on it is waited for.
fn copy_at_rest(from: &Path, to: &Path) {
    for _ in 0..200 {
        let before = entries(from);
        fs::remove_dir_all(to).ok();
        if try_copy(from, to).is_ok() && entries(from) == before {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("{} never comes to rest", from.display());
}

fn entries(dir: &Path) -> Vec<(PathBuf, u64, std::time::SystemTime)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_dir() {
            out.extend(entries(&entry.path()));
        } else {
            out.push((entry.path(), meta.len(), meta.modified().expect("a time")));
        }
    }
    out.sort();
    out
}

fn try_copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)?.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            try_copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

fn build(home: &Path, state: &Path, args: &[&'static str], faults: &Arc<Faults>, setup: &Setup) -> (Fs, Arc<Journal>) {
    let program = sftp_server().expect("looked for before");
    let mut words: Vec<PathBuf> = args.iter().map(PathBuf::from).collect();
    words.extend(["-d".into(), home.to_owned()]);
    let plan = faults.clone();
    let dial = move |_: Deadline| -> Result<Box<dyn Transport>, TransportError> {
        let args: Vec<&OsStr> = words.iter().map(|w| w.as_os_str()).collect();
        let inner = transport::exec(program, &args)?;
        let inner = Box::new(Meddler::new(inner, plan.plan.clone()));
        Ok(Box::new(Faulty { inner, faults: plan.clone(), lost: false }))
    };
    assemble(Box::new(dial), state, setup)
}

/// Makes a connection.
pub type Dial = Box<dyn Fn(Deadline) -> Result<Box<dyn Transport>, TransportError> + Send + Sync>;

fn assemble(dial: Dial, state: &Path, setup: &Setup) -> (Fs, Arc<Journal>) {
    let first = dial(Deadline::after(LIMIT)).expect("the server starts");
    let config = RemoteConfig { temp_prefix: setup.machine.clone(), ..RemoteConfig::new(dial, Vec::new(), LIMIT) };
    let remote = Remote::start(config, first).expect("a session");
    let Setup { fresh, layout, gate, clock, machine: _ } = setup.clone();
    let env = EnvConfig {
        name: (layout == Layout::Pantheon).then(|| "dev".into()),
        api: None,
        mode: Some(ConnectionMode::Sftp),
        memory: None,
        read_only: false,
        author: None,
    };
    let env = Env::start(env, gate.clone(), clock.clone(), None);
    let journal = Arc::new(Journal::open(state).expect("opened"));
    let config = FsConfig {
        source: "test".into(),
        uid: 0,
        gid: 0,
        umask: 0,
        fresh,
        timeout: LIMIT,
        cache_bytes: 16 << 20,
        tree: EarlierTree::read(None, layout).expect("a thread"),
        cache_dir: None,
        content_dir: None,
        state_dir: state.to_owned(),
        journal: journal.clone(),
        sync: false,
        links: Links::default(),
        layout,
        mirror: None,
        git: None,
        attest: None,
        backups: None,
        connection: Connection::default(),
    };
    (Fs::new(config, remote, env, gate, clock), journal)
}
