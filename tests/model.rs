//! Random sequences of operations against a reference model: whatever is cut, killed and edited by others in between, in the
//! end the server, the view here and the model agree.

#![allow(unreachable_pub)]

#[allow(dead_code)]
#[path = "it/common/mod.rs"]
mod common;

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::fs;
use std::hash::BuildHasher;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use pantheonfs::fs::{HandleId, OpenMode, SetAttr};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use common::inner::Inner;

/// Where the random numbers of the sequences begin.
const SEED: u64 = 14_553_753_927_218_239_746;
/// Sequences in a run; `PANTHEONFS_MODEL_SEQUENCES` asks for more.
const SEQUENCES: u32 = 10_000;
/// Sequences that share a server, each in a directory of its own.
const PER_SERVER: u32 = 500;

#[derive(Clone, PartialEq, Eq)]
enum Node {
    File { content: Vec<u8>, executable: bool },
    Dir,
    Link(String),
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Node::File { content, executable } => {
                write!(f, "{} bytes of {:?}", content.len(), content.first())?;
                if *executable { f.write_str(", executable") } else { Ok(()) }
            }
            Node::Dir => f.write_str("a directory"),
            Node::Link(text) => write!(f, "a link to {text}"),
        }
    }
}

/// Paths below the directory of the sequence; its own name is not among them.
type Model = BTreeMap<String, Node>;

#[derive(Debug, Clone)]
enum Step {
    Write(usize, u8, u16),
    Append(usize, u8, u16),
    Truncate(usize, u16),
    Open(usize),
    WriteOpen(usize, u8, u16),
    CloseOpen(usize),
    Mkdir(usize),
    Rmdir(usize),
    Unlink(usize),
    Rename(usize, usize),
    Symlink(usize),
    Chmod(usize, bool),
    Read(usize),
    Barrier,
    Theirs(usize, u8, u16),
    TheirsRemoved(usize),
    Cut(u16, u16),
    Crash,
}

/// Few names, so that they meet.
const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "g", "g/a"];

fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    let bytes = || (any::<u8>(), 0..3000_u16);
    prop_oneof![
        8 => (path.clone(), bytes()).prop_map(|(p, (b, n))| Step::Write(p, b, n)),
        3 => (path.clone(), bytes()).prop_map(|(p, (b, n))| Step::Append(p, b, n)),
        2 => (path.clone(), 0..4000_u16).prop_map(|(p, n)| Step::Truncate(p, n)),
        3 => path.clone().prop_map(Step::Open),
        3 => (0..MAX_OPEN, bytes()).prop_map(|(at, (b, n))| Step::WriteOpen(at, b, n)),
        2 => (0..MAX_OPEN).prop_map(Step::CloseOpen),
        5 => path.clone().prop_map(Step::Mkdir),
        2 => path.clone().prop_map(Step::Rmdir),
        4 => path.clone().prop_map(Step::Unlink),
        6 => (path.clone(), path.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => path.clone().prop_map(Step::Symlink),
        1 => (path.clone(), any::<bool>()).prop_map(|(p, x)| Step::Chmod(p, x)),
        3 => path.clone().prop_map(Step::Read),
        2 => Just(Step::Barrier),
        1 => (path.clone(), bytes()).prop_map(|(p, (b, n))| Step::Theirs(p, b, n)),
        1 => path.prop_map(Step::TheirsRemoved),
        1 => (1..6000_u16, 1..6000_u16).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => Just(Step::Crash),
    ]
}

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(dir, _)| dir)
}

/// One sequence under way.
struct Run<'a> {
    inner: &'a mut Inner,
    root: String,
    model: Model,
    /// Files that were opened, each with its handles.
    open: Vec<Held>,
}

/// A file that is held open.
struct Held {
    /// More than one where it was opened again.
    handles: Vec<HandleId>,
    /// Where it is now; `None`: it has no name any more.
    at: Option<String>,
    /// As the model knows it.
    content: Vec<u8>,
}

/// Handles that a sequence holds at most.
const MAX_OPEN: usize = 4;

impl Run<'_> {
    fn full(&self, path: &str) -> String {
        format!("{}/{path}", self.root)
    }

    /// What the model says to an operation that makes or needs `path`'s directory.
    fn check_parent(&self, path: &str) -> Result<(), i32> {
        match parent(path).map(|dir| self.model.get(dir)) {
            None | Some(Some(Node::Dir)) => Ok(()),
            Some(None) => self.check_parent(parent(path).expect("it has one")).and(Err(libc::ENOENT)),
            Some(Some(_)) => Err(libc::ENOTDIR),
        }
    }

    fn has_children(&self, dir: &str) -> bool {
        let prefix = format!("{dir}/");
        self.model.keys().any(|path| path.starts_with(&prefix))
    }

    #[track_caller]
    fn same<T>(&self, step: &Step, real: pantheonfs::fs::FsResult<T>, model: Result<(), i32>) -> bool {
        let real = real.map(drop).map_err(|error| error.errno());
        // What leads through a file is "not a directory" or "no such file", depending on who looks.
        let alike = |e: i32| if e == libc::ENOTDIR { libc::ENOENT } else { e };
        assert_eq!(real.map_err(alike), model.map_err(alike), "{step:?} in {:?}", self.model);
        real.is_ok()
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Write(p, byte, len) => self.write(step, PATHS[*p], vec![*byte; usize::from(*len)]),
            Step::Append(p, byte, len) => self.append(step, PATHS[*p], *byte, usize::from(*len)),
            Step::Truncate(p, len) => self.truncate(step, PATHS[*p], usize::from(*len)),
            Step::Open(p) => self.open(PATHS[*p]),
            Step::WriteOpen(at, byte, len) => self.write_open(*at, *byte, usize::from(*len)),
            Step::CloseOpen(at) => self.close_one(*at),
            Step::Mkdir(p) => {
                let path = PATHS[*p];
                let expected = self.check_parent(path).and(match self.model.get(path) {
                    Some(_) => Err(libc::EEXIST),
                    None => Ok(()),
                });
                let real = self.inner.mkdir(&self.full(path));
                if self.same(step, real, expected) {
                    self.model.insert(path.into(), Node::Dir);
                }
            }
            Step::Rmdir(p) => {
                let path = PATHS[*p];
                let expected = match self.model.get(path) {
                    None => Err(libc::ENOENT),
                    Some(Node::Dir) if self.has_children(path) => Err(libc::ENOTEMPTY),
                    Some(Node::Dir) => Ok(()),
                    Some(_) => Err(libc::ENOTDIR),
                };
                let real = self.inner.rmdir(&self.full(path));
                if self.same(step, real, expected) {
                    self.model.remove(path);
                }
            }
            Step::Unlink(p) => {
                let path = PATHS[*p];
                let expected = match self.model.get(path) {
                    None => Err(libc::ENOENT),
                    Some(Node::Dir) => Err(libc::EISDIR),
                    Some(_) => Ok(()),
                };
                let real = self.inner.unlink(&self.full(path));
                if self.same(step, real, expected) {
                    self.model.remove(path);
                    self.lose_name(path);
                }
            }
            Step::Rename(a, b) => self.rename(step, PATHS[*a], PATHS[*b]),
            Step::Symlink(p) => {
                let path = PATHS[*p];
                let expected = self.check_parent(path).and(match self.model.get(path) {
                    Some(_) => Err(libc::EEXIST),
                    None => Ok(()),
                });
                let real = self.inner.symlink(&self.full(path), "target");
                if self.same(step, real, expected) {
                    self.model.insert(path.into(), Node::Link("target".into()));
                }
            }
            Step::Chmod(p, executable) => self.chmod(step, PATHS[*p], *executable),
            Step::Read(p) => self.read(step, PATHS[*p]),
            Step::Barrier => self.barrier(),
            Step::Theirs(p, byte, len) => self.theirs(PATHS[*p], Some(vec![*byte; usize::from(*len) + 4000])),
            Step::TheirsRemoved(p) => self.theirs(PATHS[*p], None),
            Step::Cut(sent, received) => self.inner.faults.cut_after(u64::from(*sent), u64::from(*received)),
            Step::Crash => {
                self.close_all();
                self.inner.crash();
            }
        }
    }

    fn file_error(&self, path: &str) -> Result<(), i32> {
        match self.model.get(path) {
            None => Err(libc::ENOENT),
            Some(Node::File { .. }) => Ok(()),
            Some(Node::Dir) => Err(libc::EISDIR),
            Some(Node::Link(_)) => Err(libc::EPERM),
        }
    }

    fn write(&mut self, step: &Step, path: &str, content: Vec<u8>) {
        let expected = self.check_parent(path).and(match self.file_error(path) {
            Err(libc::ENOENT) => Ok(()),
            other => other,
        });
        let real = self.inner.write(&self.full(path), &content);
        if self.same(step, real, expected) {
            let executable = matches!(self.model.get(path), Some(Node::File { executable: true, .. }));
            self.note_open(path, &content);
            self.model.insert(path.into(), Node::File { content, executable });
        }
    }

    /// The file that is held open under this name, if one is.
    fn held(&mut self, path: &str) -> Option<&mut Held> {
        self.open.iter_mut().find(|held| held.at.as_deref() == Some(path))
    }

    /// A file that is held open was changed through its name.
    fn note_open(&mut self, path: &str, content: &[u8]) {
        if let Some(held) = self.held(path) {
            held.content = content.to_vec();
        }
    }

    fn content(&self, path: &str) -> Vec<u8> {
        match self.model.get(path) {
            Some(Node::File { content, .. }) => content.clone(),
            _ => Vec::new(),
        }
    }

    fn set_content(&mut self, path: &str, new: Vec<u8>) {
        self.note_open(path, &new);
        if let Some(Node::File { content, .. }) = self.model.get_mut(path) {
            *content = new;
        }
    }

    fn append(&mut self, step: &Step, path: &str, byte: u8, len: usize) {
        let mut content = self.content(path);
        let mode = OpenMode { read: true, write: true, truncate: false };
        let opened = self.inner.open(&self.full(path), mode, false);
        let handle = opened.as_ref().ok().copied();
        let expected = self.file_error(path);
        if self.same(step, opened, expected) {
            let handle = handle.expect("opened");
            self.inner.write_at(handle, content.len() as u64, &vec![byte; len]).expect("written");
            self.inner.close(handle).expect("closed");
            content.extend(vec![byte; len]);
            self.set_content(path, content);
        }
    }

    fn truncate(&mut self, step: &Step, path: &str, len: usize) {
        let mut content = self.content(path);
        let change = SetAttr { size: Some(len as u64), ..SetAttr::default() };
        if matches!(self.model.get(path), Some(Node::Link(_))) {
            return;
        }
        let real = self.inner.setattr(&self.full(path), change);
        if self.same(step, real, self.file_error(path)) {
            content.resize(len, 0);
            self.set_content(path, content);
        }
    }

    fn chmod(&mut self, step: &Step, path: &str, executable: bool) {
        if !matches!(self.model.get(path), Some(Node::File { .. })) {
            return;
        }
        let perm = if executable { 0o755 } else { 0o644 };
        let change = SetAttr { perm: Some(perm), ..SetAttr::default() };
        let real = self.inner.setattr(&self.full(path), change);
        if self.same(step, real, Ok(()))
            && let Some(Node::File { executable: known, .. }) = self.model.get_mut(path)
        {
            *known = executable;
        }
    }

    fn open(&mut self, path: &str) {
        let handles: usize = self.open.iter().map(|held| held.handles.len()).sum();
        if handles >= MAX_OPEN || self.file_error(path).is_err() {
            return;
        }
        let mode = OpenMode { read: true, write: true, truncate: false };
        let handle = self.inner.open(&self.full(path), mode, false).expect("it is there");
        if let Some(held) = self.held(path) {
            held.handles.push(handle);
            return;
        }
        let content = self.content(path);
        self.open.push(Held { handles: vec![handle], at: Some(path.to_owned()), content });
    }

    /// Writes at the end of a file by one of its handles; every one of them reads it.
    fn write_open(&mut self, which: usize, byte: u8, len: usize) {
        if self.open.is_empty() {
            return;
        }
        let which = which % self.open.len();
        let held = &mut self.open[which];
        let writer = held.handles[len % held.handles.len()];
        self.inner.write_at(writer, held.content.len() as u64, &vec![byte; len]).expect("written");
        held.content.extend(vec![byte; len]);
        for handle in &held.handles {
            let back = self.inner.read_at(*handle).expect("readable");
            assert!(back == held.content, "an open file reads what was written");
        }
        if let Some(at) = &held.at
            && let Some(Node::File { content: known, .. }) = self.model.get_mut(at)
        {
            known.clone_from(&held.content);
        }
    }

    fn close_one(&mut self, which: usize) {
        if self.open.is_empty() {
            return;
        }
        let which = which % self.open.len();
        let handle = self.open[which].handles.pop().expect("it is open");
        if self.open[which].handles.is_empty() {
            self.open.swap_remove(which);
        }
        self.inner.close(handle).expect("closed");
    }

    fn close_all(&mut self) {
        while !self.open.is_empty() {
            self.close_one(0);
        }
    }

    fn lose_name(&mut self, path: &str) {
        if let Some(held) = self.held(path) {
            held.at = None;
        }
    }

    fn rename(&mut self, step: &Step, from: &str, to: &str) {
        let source = self.model.get(from).cloned();
        let expected = match (&source, self.model.get(to)) {
            (None, _) => Err(libc::ENOENT),
            (Some(_), _) if self.check_parent(to).is_err() => self.check_parent(to),
            (Some(Node::Dir), _) if to.starts_with(&format!("{from}/")) => Err(libc::EINVAL),
            (Some(_), Some(_)) if from == to => Ok(()),
            (Some(_), Some(Node::Dir)) if from.starts_with(&format!("{to}/")) => Err(libc::ENOTEMPTY),
            (Some(Node::Dir), Some(Node::Dir)) if self.has_children(to) => Err(libc::ENOTEMPTY),
            (Some(Node::Dir), Some(Node::Dir) | None) => Ok(()),
            (Some(Node::Dir), Some(_)) => Err(libc::ENOTDIR),
            (Some(_), Some(Node::Dir)) => Err(libc::EISDIR),
            (Some(_), _) => Ok(()),
        };
        let real = self.inner.rename(&self.full(from), &self.full(to));
        if !self.same(step, real, expected) || from == to {
            return;
        }
        self.lose_name(to);
        let prefix = format!("{from}/");
        let moved: Vec<String> =
            self.model.keys().filter(|path| *path == from || path.starts_with(&prefix)).cloned().collect();
        for path in moved {
            let target = format!("{to}{}", &path[from.len()..]);
            let node = self.model.remove(&path).expect("listed");
            if let Some(held) = self.held(&path) {
                held.at = Some(target.clone());
            }
            self.model.insert(target, node);
        }
    }

    fn read(&mut self, step: &Step, path: &str) {
        match self.model.get(path) {
            Some(Node::Link(text)) => {
                assert_eq!(self.inner.readlink(&self.full(path)).expect("a link"), text.as_bytes(), "{step:?}");
            }
            Some(Node::File { content, .. }) => {
                let real = self.inner.read(&self.full(path)).expect("readable");
                assert!(real == *content, "{step:?}: {} bytes instead of {}", real.len(), content.len());
            }
            _ => {}
        }
    }

    /// Somebody else changes a file on the server, once it has everything.
    fn theirs(&mut self, path: &str, content: Option<Vec<u8>>) {
        if self.file_error(path).is_err() || !self.open.is_empty() {
            return;
        }
        self.inner.barrier();
        let there = self.inner.home.join(self.full(path));
        match content {
            Some(content) => {
                fs::write(&there, &content).expect("written");
                self.set_content(path, content);
            }
            None => {
                fs::remove_file(&there).expect("removed");
                self.model.remove(path);
            }
        }
        self.inner.look_anew();
        // A program sees what the other writer did, before anything is done here: otherwise it would be a conflict.
        if let Ok(ino) = self.inner.find(&self.full(path)) {
            self.inner.fs.getattr(ino, pantheonfs::fs::Wait::Until(self.inner.fs.deadline())).expect("attributes");
        }
    }

    fn barrier(&mut self) {
        self.close_all();
        self.inner.barrier();
        let there = look(&self.inner.home.join(&self.root), "");
        assert_eq!(there, self.model, "the server");
        self.compare_view("");
    }

    fn compare_view(&self, dir: &str) {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let mut expected: Vec<&str> = self.model.keys().filter_map(|path| path.strip_prefix(&prefix)).collect();
        expected.retain(|name| !name.contains('/'));
        let mut names = self.inner.names(&self.full(dir)).expect("listed");
        names.sort();
        assert_eq!(names, expected, "the view of {dir:?}");
        for name in expected {
            let path = format!("{prefix}{name}");
            match &self.model[&path] {
                Node::Dir => self.compare_view(&path),
                Node::File { content, .. } => {
                    assert!(self.inner.read(&self.full(&path)).expect("readable") == *content, "the view of {path}");
                }
                Node::Link(_) => {}
            }
        }
    }
}

/// What is below a directory of the server's disk.
fn look(root: &Path, below: &str) -> Model {
    let mut out = Model::new();
    for entry in fs::read_dir(root.join(below)).expect("listed").flatten() {
        let name = entry.file_name().into_string().expect("text");
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let meta = entry.metadata().expect("there");
        if meta.is_symlink() {
            let text = fs::read_link(entry.path()).expect("a link").to_string_lossy().into_owned();
            out.insert(path, Node::Link(text));
        } else if meta.is_dir() {
            out.insert(path.clone(), Node::Dir);
            out.extend(look(root, &path));
        } else {
            let content = fs::read(entry.path()).expect("readable");
            out.insert(path, Node::File { content, executable: meta.permissions().mode() & 0o100 != 0 });
        }
    }
    out
}

/// A server and a filesystem on it.
fn fresh(args: &[&'static str], kernel: bool) -> Option<Inner> {
    let inner = Inner::with(args, std::time::Duration::from_secs(3600))?;
    Some(if kernel { inner.through_the_kernel() } else { inner })
}

fn run(args: &[&'static str], sequences: u32, kernel: bool, nth: u64) {
    let Some(first) = fresh(args, kernel) else { return };
    let state = Mutex::new((first, 0_u32));
    let seed = seed().wrapping_add(nth);
    let config = Config {
        cases: sequences,
        max_shrink_iters: 2000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let mut runner = TestRunner::new(config);
    let result = runner.run(&proptest::collection::vec(step(), 1..25), |steps| {
        let mut state = state.lock();
        let (inner, count) = &mut *state;
        *count += 1;
        // After a failure the old one may be in any state, and old directories make the root's listing long.
        if *count % PER_SERVER == 0 || std::thread::panicking() {
            *inner = fresh(args, kernel).expect("it started before");
        }
        let root = format!("s{count}");
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            inner.mkdir(&root).expect("made");
            let mut run = Run { inner, root, model: Model::new(), open: Vec::new() };
            steps.iter().for_each(|step| run.step(step));
            run.barrier();
        }));
        if let Err(panic) = failed {
            *inner = fresh(args, kernel).expect("it started before");
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_else(|| "a panic".into());
            return Err(TestCaseError::fail(text));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("PANTHEONFS_MODEL_SEED={seed}: {error}");
    }
    let how = if kernel { "through the kernel" } else { "in process" };
    eprintln!("survived: {sequences} random sequences {how}, server {args:?}, seed {seed}");
}

/// The same sequences in every run of the tests: what breaks there was broken by the change. `PANTHEONFS_MODEL_SEED` asks for
/// those of another number, or for `random` ones.
fn seed() -> u64 {
    match std::env::var("PANTHEONFS_MODEL_SEED").as_deref() {
        Ok("random") => std::collections::hash_map::RandomState::new().hash_one(std::time::Instant::now()),
        Ok(number) => number.parse().expect("a number or `random`"),
        Err(_) => SEED,
    }
}

fn sequences(share: u32) -> u32 {
    let asked = std::env::var("PANTHEONFS_MODEL_SEQUENCES").ok().and_then(|n| n.parse().ok());
    asked.unwrap_or(SEQUENCES) / share
}

/// Most of the time is waiting: for lost connections to be made again, for dead processes to be replaced.
const AT_A_TIME: u32 = 4;

#[test]
fn server_view_and_model_agree() {
    let runs: Vec<_> = (0..AT_A_TIME)
        .map(|nth| std::thread::spawn(move || run(&[], sequences(AT_A_TIME), false, nth.into())))
        .collect();
    for run in runs {
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn server_view_and_model_agree_where_nothing_can_be_renamed() {
    run(&["-P", "posix-rename,rename"], sequences(10), false, 0);
}

#[test]
fn server_view_and_model_agree_through_the_kernel() {
    if common::has_fuse() {
        run(&[], sequences(20), true, 0);
    }
}
