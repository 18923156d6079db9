//! The directories and symbolic links that are only on this machine, in a file of the state directory, so that the next
//! mount shows them. (Files are in the journal, with their content.)
//!
//! The file `local-objects` is a list of records that is added to, and written anew when a mount starts. A record is a
//! letter and fields, each followed by a zero byte, and ends with another one: `d` path permissions, `l` path text, `r` path
//! (removed, with everything below), `m` path path (moved). An end that was torn is left out. What is lost with the power is
//! an empty directory or a link at most.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use parking_lot::Mutex;

use super::patterns::Patterns;
use crate::durable;
use crate::path::RemotePath;

/// The name in the state directory.
const FILE: &str = "local-objects";
/// Permission bits of a directory whose own cannot be read.
const DIR_PERM: u16 = 0o755;

/// A directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Object {
    /// With its permission bits.
    Dir(u16),
    /// With its text.
    Link(Vec<u8>),
}

type Objects = BTreeMap<RemotePath, Object>;

/// Names that are only here: which are, and which are to be.
pub(super) struct Here {
    pub(super) patterns: Patterns,
    /// `None`: the file could not be written, which was reported.
    log: Mutex<Option<File>>,
    found: Mutex<Objects>,
}

impl Here {
    pub(super) fn open(state_dir: &Path, first: bool) -> Self {
        let (log, found) = match read(&state_dir.join(FILE)) {
            Ok((log, found)) => (Some(log), found),
            Err(error) => {
                log::error!("{}: {error}", state_dir.join(FILE).display());
                (None, Objects::new())
            }
        };
        Self { patterns: Patterns::open(state_dir, first), log: Mutex::new(log), found: Mutex::new(found) }
    }

    /// What an earlier mount left, parents first.
    pub(super) fn take_found(&self) -> Objects {
        std::mem::take(&mut *self.found.lock())
    }

    pub(super) fn made(&self, path: &RemotePath, object: &Object) {
        self.add(&made(path, object));
    }

    pub(super) fn removed(&self, path: &RemotePath) {
        self.add(&record(&[b"r", path.as_bytes()]));
    }

    pub(super) fn moved(&self, from: &RemotePath, to: &RemotePath) {
        self.add(&record(&[b"m", from.as_bytes(), to.as_bytes()]));
    }

    fn add(&self, record: &[u8]) {
        let mut log = self.log.lock();
        if let Some(Err(error)) = log.as_mut().map(|log| log.write_all(record)) {
            log::error!("a directory or link that is only here will be missing in the next mount: {error}");
        }
    }
}

fn record(fields: &[&[u8]]) -> Vec<u8> {
    let mut out: Vec<u8> = fields.iter().flat_map(|field| [field, &b"\0"[..]].concat()).collect();
    out.push(0);
    out
}

fn made(path: &RemotePath, object: &Object) -> Vec<u8> {
    match object {
        Object::Dir(perm) => record(&[b"d", path.as_bytes(), format!("{perm:o}").as_bytes()]),
        Object::Link(text) => record(&[b"l", path.as_bytes(), text]),
    }
}

/// Reads the file and writes it anew. Returns it open for further records.
fn read(path: &Path) -> io::Result<(File, Objects)> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        read => read?,
    };
    let objects = parse(&bytes);
    let file = durable::replace_unsynced(path, |file| {
        objects.iter().try_for_each(|(path, object)| file.write_all(&made(path, object)))
    })?;
    Ok((file, objects))
}

fn parse(bytes: &[u8]) -> Objects {
    let (mut objects, mut rest) = (Objects::new(), bytes);
    while let Some(end) = rest.windows(2).position(|two| two == b"\0\0") {
        apply(&mut objects, &rest[..end].split(|&b| b == 0).collect::<Vec<_>>());
        rest = &rest[end + 2..];
    }
    objects
}

fn apply(objects: &mut Objects, fields: &[&[u8]]) {
    let path = |bytes: &[u8]| RemotePath::parse(bytes).ok().filter(|path| !path.is_root());
    match *fields {
        [b"d", at, perm] => {
            let perm = std::str::from_utf8(perm).ok().and_then(|perm| u16::from_str_radix(perm, 8).ok());
            objects.extend(path(at).map(|at| (at, Object::Dir(perm.unwrap_or(DIR_PERM)))));
        }
        [b"l", at, text] => objects.extend(path(at).map(|at| (at, Object::Link(text.to_vec())))),
        [b"r", at] => {
            let Some(at) = path(at) else { return };
            objects.retain(|other, _| !other.starts_with(&at));
        }
        [b"m", from, to] => {
            let (Some(from), Some(to)) = (path(from), path(to)) else { return };
            objects.retain(|other, _| !other.starts_with(&to));
            let (moved, stay) = std::mem::take(objects).into_iter().partition(|(other, _)| other.starts_with(&from));
            *objects = stay;
            let moved: Objects = moved;
            let there = |(path, object): (RemotePath, Object)| Some((to.join_path(&path.strip_prefix(&from)?), object));
            objects.extend(moved.into_iter().filter_map(there));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    #[test]
    fn what_was_made_is_found_where_it_was_moved() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let here = Here::open(dir.path(), true);
        here.made(&path("a"), &Object::Dir(0o700));
        here.made(&path("a/b"), &Object::Dir(0o755));
        here.made(&path("a/b/x\ny"), &Object::Link(b"../c".to_vec()));
        here.made(&path("gone"), &Object::Dir(0o755));
        here.removed(&path("gone"));
        here.moved(&path("a/b"), &path("d"));
        drop(here);
        let found = [("a", Object::Dir(0o700)), ("d", Object::Dir(0o755)), ("d/x\ny", Object::Link(b"../c".to_vec()))];
        let found: Objects = found.into_iter().map(|(at, object)| (path(at), object)).collect();
        for _ in 0..2 {
            assert_eq!(Here::open(dir.path(), true).take_found(), found);
        }
    }

    #[test]
    fn torn_and_invalid_records_are_skipped() {
        let whole = [made(&path("a"), &Object::Dir(0o755)), made(&path("l"), &Object::Link(b"a".to_vec()))].concat();
        assert_eq!(parse(&whole).len(), 2);
        for end in 0..whole.len() {
            assert!(parse(&whole[..end]).len() < 2, "{end}");
        }
        assert!(parse(b"d\0../x\x00755\0\0z\0q\0\0\0\0\0m\0a\0\0r\0\0").is_empty());
    }
}
