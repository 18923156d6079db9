//! Hydration: copies everything below a directory to the local disk, for working offline. It is requested by writing
//! a path to `.pantheon/hydrate`, and reading that file shows the progress.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use super::state::Reader;
use crate::attr::{FileKind, Version};
use crate::clock::Deadline;
use crate::content::{Fetching, ReadError};
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::inode::{Ino, ROOT};
use crate::path::RemotePath;
use crate::remote::{Class, ErrorKind};
use crate::vfiles::Hydration;

/// Limits for the requests in flight: files, and bytes.
const MAX_FILES: usize = 512;
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Bytes per request of a large file.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// Number of missing files that are named in an error.
const NAMED: usize = 5;

/// A requested piece of a file.
struct Coming {
    path: RemotePath,
    bytes: u64,
    last: bool,
    fetching: Fetching,
}

/// What the server does not let this account read, and what it says.
#[derive(Default)]
struct Unread(BTreeMap<RemotePath, String>);

impl Unread {
    fn note(&mut self, path: &RemotePath, why: &ErrorKind) {
        log::info!("hydrate: {path}: {why}");
        self.0.insert(path.clone(), why.to_string());
    }
}

struct Found {
    path: RemotePath,
    version: Version,
}

impl Reader {
    /// Returns when everything is on the local disk, or when the connection fails. What cannot be read there is left out,
    /// and named in the error at the end. Progress renews the time limit.
    pub fn hydrate(&self, below: &RemotePath, wait: Wait) -> FsResult<()> {
        let Wait::Until(_) = wait else { return Err(FsError::new("hydrate", below, Cause::WouldBlock)) };
        if self.0.content.disk_figures().is_none() {
            let cause = Cause::Unsupported("content is kept in memory only: the cache directory cannot be used");
            return Err(FsError::new("hydrate", below, cause));
        }
        let began = Instant::now();
        self.progress(|_| Hydration { running: true, ..Hydration::default() });
        let mut unread = Unread::default();
        let result = self.find_all(below, &mut unread).and_then(|mut files| {
            self.fetch_all(below, &files, &mut unread)?;
            self.0.content.flush();
            files.retain(|file| !unread.0.contains_key(&file.path));
            self.check_on_disk(below, &files)?;
            self.expect_all(below, &unread)
        });
        self.progress(|now| Hydration { running: false, took: began.elapsed(), ..now });
        result
    }

    pub fn hydration(&self) -> Hydration {
        *self.0.hydration.lock()
    }

    fn progress(&self, change: impl FnOnce(Hydration) -> Hydration) {
        let mut now = self.0.hydration.lock();
        *now = change(*now);
    }

    /// The files below a path, level by level, each level in tree order.
    fn find_all(&self, below: &RemotePath, unread: &mut Unread) -> FsResult<Vec<Found>> {
        let root = self.0.view.in_code(below);
        let mut ino = ROOT;
        for name in below.names() {
            self.0.view.is_directory("hydrate", ino, &root)?;
            self.0.view.ensure_listed(
                "hydrate",
                ino,
                self.0.view.freshness(ino),
                Wait::Until(self.0.view.deadline()),
            )?;
            ino = self.0.view.find(&self.0.view.object(ino).join(&name)).ok_or_else(|| missing(below))?;
        }
        let view = self.0.view.node(ino).ok_or_else(|| missing(below))?;
        if view.attr.kind == FileKind::File {
            let version = view.version();
            return Ok(vec![Found { path: root, version }]);
        }
        self.0.view.is_directory("hydrate", ino, &root)?;
        let (mut found, mut level) = (Vec::new(), vec![ino]);
        while !level.is_empty() {
            // All listings of a level are requested before the first is awaited.
            for &dir in &level {
                if !self.0.view.is_listed_within(dir, self.0.view.freshness(dir)) {
                    drop(self.0.view.start_listing(dir, Class::Background));
                }
            }
            let mut next = Vec::new();
            for dir in level {
                let wait = Wait::Until(self.0.view.deadline());
                match self.0.view.ensure_listed("hydrate", dir, self.0.view.freshness(dir), wait) {
                    Ok(()) => next.extend(self.files_of(dir, &mut found)),
                    Err(FsError { cause: Cause::Remote(error), .. }) if dir != ino && !error.kind.is_unanswered() => {
                        unread.note(&self.0.view.object(dir), &error.kind);
                    }
                    Err(error) => return Err(error),
                }
            }
            level = next;
        }
        let bytes = found.iter().map(|file| file.version.size).sum();
        self.progress(|now| Hydration { files_in_all: found.len() as u64, bytes_in_all: bytes, ..now });
        Ok(found)
    }

    /// Adds the files that the server has in a directory, and returns the subdirectories.
    fn files_of(&self, dir: Ino, found: &mut Vec<Found>) -> Vec<Ino> {
        let Some(at) = self.0.view.path(dir) else { return Vec::new() };
        let mut dirs = Vec::new();
        for (name, view) in self.0.view.children(dir) {
            match (view.attr.kind, view.server) {
                (FileKind::Directory, _) => dirs.push(view.ino),
                // A file with local changes is on this machine already.
                (FileKind::File, Some(version)) if self.0.upload.spool(view.ino).is_none() => {
                    found.push(Found { path: at.join(&name), version });
                }
                _ => {}
            }
        }
        dirs
    }

    fn fetch_all(&self, below: &RemotePath, files: &[Found], unread: &mut Unread) -> FsResult<()> {
        let figures = self.0.content.disk_figures().unwrap_or_default();
        let wanted: u64 = files.iter().map(|file| file.version.size).sum();
        if wanted > figures.budget_bytes {
            let text = format!(
                "{wanted} bytes are more than the {} that are kept on the local disk; ask for less, or make room there",
                figures.budget_bytes
            );
            return Err(FsError::new("hydrate", below, Cause::Invalid(text)));
        }
        let (mut coming, mut bytes) = (VecDeque::new(), 0);
        for file in files {
            let mut at = 0;
            loop {
                let end = (at + PIECE_BYTES).min(file.version.size);
                let fetching = self.0.content.bring(&file.path, file.version, at..end);
                let last = end == file.version.size;
                bytes += end - at;
                coming.push_back(Coming { path: file.path.clone(), bytes: end - at, last, fetching });
                while coming.len() > MAX_FILES || (bytes > MAX_BYTES && coming.len() > 1) {
                    bytes -= self.arrived(&mut coming, unread)?;
                }
                if last {
                    break;
                }
                at = end;
            }
            if self.0.view.is_closing() {
                return Err(FsError::new("hydrate", below, Cause::TimedOut));
            }
        }
        while !coming.is_empty() {
            self.arrived(&mut coming, unread)?;
        }
        Ok(())
    }

    /// The error that names what could not be read.
    fn expect_all(&self, below: &RemotePath, unread: &Unread) -> FsResult<()> {
        if unread.0.is_empty() {
            return Ok(());
        }
        let named: Vec<String> = unread.0.iter().take(NAMED).map(|(path, why)| format!("{}: {why}", path)).collect();
        let more = if unread.0.len() > NAMED { ", …" } else { "" };
        let text = format!("{} cannot be read there, the rest is here: {}{more}", unread.0.len(), named.join(", "));
        Err(self.noted(FsError::new("hydrate", below, Cause::Busy(text))))
    }

    /// Checks that all files are on the local disk. Those that are not, although they were transferred, are requested once
    /// more, one at a time, because the disk cache drops blocks while its writer is too slow.
    fn check_on_disk(&self, below: &RemotePath, files: &[Found]) -> FsResult<()> {
        let content = &self.0.content;
        let is_on_disk = |file: &Found| content.is_on_disk(&file.path, file.version);
        for file in files.iter().filter(|file| !is_on_disk(file)) {
            let fetching = content.bring(&file.path, file.version, 0..file.version.size);
            // An error shows below: the file is still missing.
            let _ = fetching.wait(Deadline::after(self.0.view.timeout()));
            content.flush();
        }
        let missing: Vec<&Found> = files.iter().filter(|file| !is_on_disk(file)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names: Vec<String> = missing.iter().take(NAMED).map(|file| file.path.to_string()).collect();
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let text = format!(
            "{} of {} files are not on this machine: {}{more}; ask again",
            missing.len(),
            files.len(),
            names.join(", ")
        );
        Err(self.noted(FsError::new("hydrate", below, Cause::Busy(text))))
    }

    /// Waits for the oldest piece. A file that changed or was removed meanwhile is counted, and is no error.
    fn arrived(&self, coming: &mut VecDeque<Coming>, unread: &mut Unread) -> FsResult<u64> {
        let Some(piece) = coming.pop_front() else { return Ok(0) };
        let deadline = Deadline::after(self.0.view.timeout());
        let missed = match piece.fetching.wait(deadline) {
            Ok(()) => false,
            Err(ReadError::Remote(error))
                if matches!(error.kind, ErrorKind::PermissionDenied | ErrorKind::Failure(_)) =>
            {
                unread.note(&piece.path, &error.kind);
                return Ok(piece.bytes);
            }
            Err(ReadError::Remote(error)) if !error.kind.is_loss() => {
                log::info!("hydrate: {}: {error}", piece.path);
                true
            }
            Err(error) => return Err(self.noted(FsError::new("hydrate", &piece.path, error))),
        };
        self.progress(|now| Hydration {
            files: now.files + u64::from(piece.last),
            bytes: now.bytes + piece.bytes,
            missed: now.missed + u64::from(missed),
            ..now
        });
        Ok(piece.bytes)
    }
}

fn missing(path: &RemotePath) -> FsError {
    FsError::new("hydrate", path, Cause::NotFound)
}
