//! Two clients with journals of their own, and another writer on the server, change the same few names. What comes of it
//! depends on who is first; but nothing may be lost, nothing overwritten that was not shown, and where nobody else wrote
//! there is no conflict.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use pantheonfs::fs::{FsResult, HandleId, OpenMode};
use parking_lot::Mutex;
use proptest::prelude::*;
use tempfile::TempDir;

use super::common::inner::{Inner, Setup, wait, within};
use super::ledger::{Actor, ContentId, Ledger};
use super::others::{How, Other};
use super::runs::{runner, seed, text_of};
use super::skewed::Skewed;

/// Few names, so that they meet.
const PATHS: [&str; 4] = ["a", "b", "d/a", "d/b"];
/// The names of temporary files of saves.
const TEMPORARY: [&str; 4] = ["a.tmp", "b.tmp", "d/a.tmp", "d/b.tmp"];
const CLIENTS: usize = 2;
/// Some contents are larger than what one request carries.
const LARGE: usize = 40_000;
/// Longest wait for the end of a workflow.
const SHORT: Duration = Duration::from_millis(5);
const TRUNCATE: OpenMode = OpenMode { read: false, write: true, truncate: true };
const READ_WRITE: OpenMode = OpenMode { read: true, write: true, truncate: false };

#[derive(Debug, Clone)]
enum Step {
    /// By a client, in one of three ways.
    Save(usize, usize, Save),
    /// Reads by the descriptor by which it then writes.
    Edit(usize, usize),
    Read(usize, usize),
    Unlink(usize, usize),
    Rename(usize, usize, usize),
    /// Another writer, now.
    Theirs(usize, How),
    /// Another writer, after so many more requests of the client.
    Between(usize, u8, usize, How),
    LoseAnswer(usize, u8),
    Cut(usize, u16, u16),
    Crash(usize),
    LosePower(usize),
    Barrier(usize),
    /// Both at the same time.
    Barriers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Save {
    Plain,
    Large,
    Synced,
    ByRename,
    /// The close fails: the local disk is full.
    OnAFullDisk,
    /// A workflow of the platform begins before the close.
    InAJob,
}

impl Save {
    fn close(self, inner: &Inner, handle: HandleId) -> FsResult<()> {
        match self {
            Save::Plain | Save::Large | Save::ByRename => inner.close(handle),
            Save::Synced => inner.fs.fsync(handle, wait()).and_then(|()| inner.close(handle)),
            Save::OnAFullDisk => {
                let _full = inner.fill_disk();
                inner.close(handle)
            }
            Save::InAJob => {
                inner.hold(true);
                let closed = within(SHORT, || inner.close(handle));
                inner.hold(false);
                closed
            }
        }
    }
}

fn step() -> impl Strategy<Value = Step> {
    let (who, path) = (0..CLIENTS, 0..PATHS.len());
    let save = prop_oneof![
        6 => Just(Save::Plain),
        2 => Just(Save::Large),
        2 => Just(Save::Synced),
        4 => Just(Save::ByRename),
        1 => Just(Save::OnAFullDisk),
        1 => Just(Save::InAJob),
    ];
    let how = prop_oneof![2 => Just(How::InPlace), 2 => Just(How::ByRename), 2 => Just(How::SameSize), 1 => Just(How::Remove)];
    prop_oneof![
        8 => (who.clone(), path.clone(), save).prop_map(|(w, p, s)| Step::Save(w, p, s)),
        4 => (who.clone(), path.clone()).prop_map(|(w, p)| Step::Edit(w, p)),
        2 => (who.clone(), path.clone()).prop_map(|(w, p)| Step::Read(w, p)),
        2 => (who.clone(), path.clone()).prop_map(|(w, p)| Step::Unlink(w, p)),
        3 => (who.clone(), path.clone(), path.clone()).prop_map(|(w, a, b)| Step::Rename(w, a, b)),
        2 => (path.clone(), how.clone()).prop_map(|(p, h)| Step::Theirs(p, h)),
        5 => (who.clone(), 0..24_u8, path, how).prop_map(|(w, n, p, h)| Step::Between(w, n, p, h)),
        2 => (who.clone(), 0..24_u8).prop_map(|(w, n)| Step::LoseAnswer(w, n)),
        1 => (who.clone(), 1..3000_u16, 1..3000_u16).prop_map(|(w, a, b)| Step::Cut(w, a, b)),
        1 => who.clone().prop_map(Step::Crash),
        1 => who.clone().prop_map(Step::LosePower),
        4 => who.prop_map(Step::Barrier),
        2 => Just(Step::Barriers),
    ]
}

/// A client, and what its programs know.
struct Client {
    inner: Inner,
    /// Contents that may have been shown here, by path.
    shown: BTreeMap<&'static str, BTreeSet<ContentId>>,
    /// Contents that survive a loss of power.
    synced: BTreeSet<ContentId>,
    /// Contents that are in no record perhaps.
    unsaved: BTreeSet<ContentId>,
    lost_power: bool,
}

/// One sequence under way.
struct World {
    _dir: TempDir,
    code: PathBuf,
    clients: Vec<Client>,
    ledger: Arc<Mutex<Ledger>>,
    /// Of the other writers.
    turn: Arc<Mutex<()>>,
    /// Of the clients: see `Plan::share_links`.
    links: Arc<AtomicBool>,
    _clock: Skewed,
}

impl World {
    fn new(skew: i64) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let home = dir.path().join("home");
        for below in ["code/d", "tmp"] {
            fs::create_dir_all(home.join(below)).expect("made");
        }
        let clock = Skewed::new(-skew);
        let (mut clients, links) = (Vec::new(), Arc::new(AtomicBool::new(false)));
        for who in 0..CLIENTS {
            let setup = Setup::environment(Duration::from_secs(3600), clock.clock(), who.to_string());
            let inner = Inner::at(&home, setup)?;
            inner.faults.plan.share_links(links.clone());
            let (shown, synced, unsaved) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
            clients.push(Client { inner, shown, synced, unsaved, lost_power: false });
        }
        let code = home.join("code");
        Some(Self { _dir: dir, code, clients, ledger: Arc::default(), turn: Arc::default(), links, _clock: clock })
    }

    fn other(&self, path: &'static str, how: How) -> Other {
        Other { turn: self.turn.clone(), ledger: self.ledger.clone(), code: self.code.clone(), path, how }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Save(who, p, Save::ByRename) => {
                if self.save(who, TEMPORARY[p], Save::Plain) {
                    self.rename(who, TEMPORARY[p], PATHS[p]);
                }
            }
            Step::Save(who, p, how) => drop(self.save(who, PATHS[p], how)),
            Step::Edit(who, p) => self.edit(who, PATHS[p]),
            Step::Read(who, p) => {
                self.read(who, PATHS[p]);
            }
            Step::Unlink(who, p) => self.unlink(who, PATHS[p]),
            Step::Rename(who, a, b) => self.rename(who, PATHS[a], PATHS[b]),
            Step::Theirs(p, how) => self.other(PATHS[p], how).act(),
            Step::Between(who, after, p, how) => {
                let other = self.other(PATHS[p], how);
                self.clients[who].inner.faults.plan.between(u64::from(after), move || other.act());
            }
            Step::LoseAnswer(who, after) => self.clients[who].inner.faults.plan.lose_answer(u64::from(after)),
            Step::Cut(who, a, b) => self.clients[who].inner.faults.cut_after(u64::from(a), u64::from(b)),
            Step::Crash(who) => self.crash(who),
            Step::LosePower(who) => self.lose_power(who),
            Step::Barrier(who) => self.clients[who].inner.barrier(),
            Step::Barriers => self.barriers(),
        }
    }

    /// What is on the server's disk at a path may have been shown to whoever asked.
    fn look(&mut self, who: usize, path: &'static str) {
        let there = fs::read(self.code.join(path)).ok();
        let id = there.and_then(|bytes| self.ledger.lock().which(&bytes));
        self.clients[who].shown.entry(path).or_default().extend(id);
    }

    fn shown(&self, who: usize, path: &str) -> BTreeSet<ContentId> {
        self.clients[who].shown.get(path).cloned().unwrap_or_default()
    }

    /// Writes and closes. `true`: it was accepted.
    fn finish(&mut self, who: usize, path: &'static str, new: (ContentId, &[u8]), how: (HandleId, Save)) -> bool {
        let ((id, bytes), (handle, how)) = (new, how);
        let client = &mut self.clients[who];
        let written = client.inner.write_at(handle, 0, bytes);
        let closed = how.close(&client.inner, handle);
        client.shown.entry(path).or_default().insert(id);
        if how == Save::Synced && closed.is_ok() {
            client.synced.insert(id);
        }
        // What could not be recorded is recorded later, unless the process ends before.
        client.unsaved.extend((how == Save::OnAFullDisk).then_some(id));
        let accepted = written.is_ok() && (closed.is_ok() || how == Save::OnAFullDisk);
        let mut ledger = self.ledger.lock();
        ledger.changed(path, Actor::Client(who));
        if accepted {
            ledger.accepted(id);
        }
        accepted
    }

    fn save(&mut self, who: usize, path: &'static str, how: Save) -> bool {
        self.read(who, path);
        let Ok(handle) = self.clients[who].inner.open(path, TRUNCATE, true) else { return false };
        self.look(who, path);
        let (id, bytes) = {
            let mut ledger = self.ledger.lock();
            let len = 16 + 3 * ledger.next() + if how == Save::Large { LARGE } else { 0 };
            ledger.new_content(Actor::Client(who), path, len)
        };
        self.ledger.lock().replaced(self.shown(who, path), id);
        self.finish(who, path, (id, &bytes), (handle, how))
    }

    /// Only what it has read takes part: whatever else is there was not shown.
    fn edit(&mut self, who: usize, path: &'static str) {
        let inner = &self.clients[who].inner;
        let Ok(handle) = inner.open(path, READ_WRITE, false) else { return };
        let read = inner.read_at(handle).ok();
        let Some(known) = read.and_then(|bytes| self.ledger.lock().which(&bytes)) else {
            drop(self.clients[who].inner.close(handle));
            return;
        };
        let (id, bytes) = {
            let mut ledger = self.ledger.lock();
            let len = (16 + 3 * ledger.next()).max(ledger.len_of(known) + 1);
            ledger.new_content(Actor::Client(who), path, len)
        };
        self.ledger.lock().replaced([known], id);
        self.finish(who, path, (id, &bytes), (handle, Save::Plain));
        self.clients[who].shown.entry(path).or_default().insert(known);
    }

    /// Other writers change files without a change of their size, which only the time tells, and only to the second. What
    /// was not read cannot be told from that: programs read before they replace or remove.
    fn read(&mut self, who: usize, path: &'static str) -> Option<ContentId> {
        let bytes = self.clients[who].inner.read(path).ok()?;
        let id = self.ledger.lock().which(&bytes);
        self.clients[who].shown.entry(path).or_default().extend(id);
        id
    }

    fn unlink(&mut self, who: usize, path: &'static str) {
        self.read(who, path);
        self.look(who, path);
        if self.clients[who].inner.unlink(path).is_ok() {
            self.look(who, path);
            let shown = self.shown(who, path);
            let mut ledger = self.ledger.lock();
            ledger.changed(path, Actor::Client(who));
            ledger.removed(shown);
        }
    }

    fn rename(&mut self, who: usize, from: &'static str, to: &'static str) {
        if from == to {
            return;
        }
        let (moved, replaced) = (self.read(who, from), self.read(who, to));
        self.look(who, from);
        self.look(who, to);
        if self.clients[who].inner.rename(from, to).is_ok() {
            // Another writer may have come before it looked.
            self.look(who, from);
            self.look(who, to);
            let (source, target) = (self.shown(who, from), self.shown(who, to));
            let mut ledger = self.ledger.lock();
            ledger.moved(from, to, Actor::Client(who));
            // A content that was moved there and back again has not been replaced.
            ledger.removed(target.difference(&source).copied());
            // It has been if a rejected move left it there, and it was read right before.
            ledger.removed(replaced.filter(|_| replaced != moved));
            self.clients[who].shown.entry(to).or_default().extend(source);
        }
    }

    fn crash(&mut self, who: usize) {
        let client = &mut self.clients[who];
        client.inner.crash();
        client.inner.faults.plan.share_links(self.links.clone());
        self.ledger.lock().not_accepted(&std::mem::take(&mut client.unsaved));
    }

    fn lose_power(&mut self, who: usize) {
        let client = &mut self.clients[who];
        client.inner.lose_power();
        client.inner.faults.plan.share_links(self.links.clone());
        client.lost_power = true;
        self.ledger.lock().lost_power(who, &client.synced);
    }

    fn barriers(&self) {
        std::thread::scope(|scope| {
            for client in &self.clients {
                let fs = client.inner.fs.clone();
                scope.spawn(move || {
                    let sent = (0..20).any(|_| fs.sync(wait()).is_ok());
                    assert!(sent, "what waits is not sent: {:?}", fs.dirty_files());
                });
            }
        });
    }

    /// Nothing is in the way any more, and everything is sent.
    fn settle(&self) {
        for client in &self.clients {
            client.inner.faults.plan.calm();
        }
        for client in &self.clients {
            client.inner.barrier();
        }
    }

    fn check(&mut self) {
        self.settle();
        let ledger = self.ledger.lock();
        let mut present = BTreeSet::new();
        for (path, bytes) in files(&self.code) {
            let id = ledger.which(&bytes);
            assert!(id.is_some(), "{}: torn, {} bytes", path.display(), bytes.len());
            present.extend(id);
        }
        for (who, client) in self.clients.iter().enumerate() {
            let status = client.inner.fs.status();
            for dir in ["conflicts", "stranded"] {
                present.extend(files(&client.inner.state().join(dir)).filter_map(|(_, bytes)| ledger.which(&bytes)));
            }
            for path in status.local.conflicts.iter().filter(|_| !client.lost_power) {
                let path = path_of_copy(path);
                let why = &status.last_error;
                assert!(ledger.others_changed(path, who), "client {who}: nobody else wrote {path}: {why:?}");
            }
            // With the power a record may be lost whose content is there.
            for line in status.local.stranded.iter().filter(|_| !client.lost_power) {
                let prevented = paths_of_change(line).any(|path| ledger.others_changed(path, who));
                assert!(prevented, "client {who}: nobody else prevented it: {line}");
            }
        }
        let missing = ledger.missing(&present);
        assert!(missing.is_empty(), "{missing:?}; present: {present:?}");
    }
}

/// Where the file was of which this is a copy: copies of one path are numbered from the second.
fn path_of_copy(copy: &str) -> &str {
    let path = copy.strip_prefix("code/").unwrap_or(copy);
    match path.rsplit_once('.') {
        Some((path, number)) if number.bytes().all(|byte| byte.is_ascii_digit()) => path,
        _ => path,
    }
}

/// The paths of a change of names that another writer prevented: `rename a to b: why`. A stranded copy has none.
fn paths_of_change(line: &str) -> impl Iterator<Item = &str> {
    let change = line.split_once(": ").map_or("", |(change, _)| change);
    change.split(' ').skip(1).filter(|word| *word != "to")
}

/// Files with their contents, at any depth.
fn files(root: &Path) -> impl Iterator<Item = (PathBuf, Vec<u8>)> {
    let (mut dirs, mut out) = (vec![root.to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                dirs.push(entry.path());
            } else if let Ok(bytes) = fs::read(entry.path()) {
                out.push((entry.path(), bytes));
            }
        }
    }
    out.into_iter()
}

pub fn run(sequences: u32, nth: u64) {
    let seed = seed().wrapping_add(nth);
    let steps = (-3..=3_i64, proptest::collection::vec(step(), 1..16));
    let result = runner(sequences, seed).run(&steps, |(skew, steps)| {
        let done = catch_unwind(AssertUnwindSafe(|| {
            let Some(mut world) = World::new(skew) else { return };
            steps.iter().for_each(|step| world.step(step));
            world.check();
        }));
        done.map_err(|panic| TestCaseError::fail(text_of(&*panic)))
    });
    if let Err(error) = result {
        panic!("PANTHEONFS_MODEL_SEED={seed}: {error}");
    }
    eprintln!("survived: {sequences} random sequences of two clients and another writer, seed {seed}");
}
