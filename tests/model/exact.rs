//! One client, and a model that knows the outcome of each step.

use std::fs;

use pantheonfs::fs::{HandleId, OpenMode, SetAttr};

use super::common::inner::Inner;
use super::steps::{MAX_OPEN, PATHS, Step};
use super::tree::{Model, Node, look, shift_time};

fn parent(path: &str) -> Option<&str> {
    path.rsplit_once('/').map(|(dir, _)| dir)
}

/// One sequence under way.
pub struct Run<'a> {
    pub inner: &'a mut Inner,
    root: String,
    pub model: Model,
    /// Files that were opened, each with its handles.
    open: Vec<Held>,
    /// What a call cannot do now, it may refuse; then it must have had no effect.
    pub may_refuse: bool,
    /// A close failed: its content is not recorded yet.
    pub unsaved: bool,
    /// The server's clock is so many seconds ahead.
    skew: i64,
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

impl<'a> Run<'a> {
    /// In a directory of its own.
    pub fn new(inner: &'a mut Inner, root: String, skew: i64) -> Self {
        inner.mkdir(&root).expect("made");
        let (model, open) = (Model::new(), Vec::new());
        Self { inner, root, model, open, may_refuse: false, unsaved: false, skew }
    }
}

impl Run<'_> {
    pub fn full(&self, path: &str) -> String {
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
        if self.may_refuse && real.is_err() {
            return false;
        }
        let alike = |e: i32| if e == libc::ENOTDIR { libc::ENOENT } else { e };
        assert_eq!(real.map_err(alike), model.map_err(alike), "{step:?} in {:?}", self.model);
        real.is_ok()
    }

    pub fn step(&mut self, step: &Step) {
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
            Step::LoseAnswer(after) => self.inner.faults.plan.lose_answer(u64::from(*after)),
            Step::Late(call) => self.late(call),
            Step::GivenUp(what, p, q) => self.given_up(*what, PATHS[*p], PATHS[*q]),
            Step::Full(call) => self.on_a_full_disk(call),
            Step::CloseOnAFullDisk(p, byte) => self.close_on_a_full_disk(PATHS[*p], *byte),
            Step::CloseInAJob(p, byte) => self.close_in_a_job(PATHS[*p], *byte),
            Step::Crash => {
                self.close_all();
                if self.unsaved {
                    self.barrier();
                }
                self.inner.crash();
            }
        }
    }

    pub fn file_error(&self, path: &str) -> Result<(), i32> {
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

    pub fn content(&self, path: &str) -> Vec<u8> {
        match self.model.get(path) {
            Some(Node::File { content, .. }) => content.clone(),
            _ => Vec::new(),
        }
    }

    pub fn set_content(&mut self, path: &str, new: Vec<u8>) {
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

    pub fn close_all(&mut self) {
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
                shift_time(&there, self.skew);
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

    pub fn barrier(&mut self) {
        self.close_all();
        self.inner.barrier();
        self.unsaved = false;
        let there = look(&self.inner.home.join(&self.root), "");
        assert_eq!(there, self.model, "the server");
        let status = self.inner.fs.status();
        let rejected = [status.local.conflicts, status.local.stranded].concat();
        assert!(rejected.is_empty(), "nobody else wrote: {rejected:?}, {:?}", status.last_error);
        self.compare_view("");
    }

    fn compare_view(&self, dir: &str) {
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let mut expected: Vec<&str> = self.model.keys().filter_map(|path| path.strip_prefix(&prefix)).collect();
        expected.retain(|name| !name.contains('/'));
        let mut names = self.inner.names(&self.full(dir)).expect("listed");
        names.sort();
        assert_eq!(names, expected, "the view of {dir:?}, {:?}", self.inner.fs.status().last_error);
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
