//! The comparison of the server's files with a commit.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};

use super::diff_file::DiffWriter;
use super::{Found, LARGE_BYTES, Measured, Pending, PendingError, PendingFile, Source};
use crate::attr::{Attr, FileKind};
use crate::mirror::{
    BlobHasher, Body, Committed, Conversion, Mirror, SNIFFED_BYTES, Side, WorkTree, count_lines, has_rules, is_git,
    write_diff,
};
use crate::path::RemotePath;

/// Files up to this size (bytes) are held in memory as a whole, one at a time.
const SMALL_BYTES: u64 = 8 * 1024 * 1024;
/// Larger files with rules (bytes) are not read.
const MAX_RULES_BYTES: u64 = 1024 * 1024;

/// Compares. `found` has all objects below the code directory, except directories; of git directories only files that
/// [`has_rules`]. With `with_diff` the diff is written, too, which reads all changed files.
///
/// # Errors
///
/// The commit cannot be fetched, or a file of the server cannot be read.
pub fn compute(
    mirror: &Mirror,
    commit: &str,
    found: &[Found],
    source: &dyn Source,
    with_diff: bool,
) -> Result<Pending, PendingError> {
    mirror.ensure(commit)?;
    let mut committed = mirror.tree(commit)?.as_ref().clone();
    let rules = mirror.work_tree(commit, &read_rules(found, source)?)?;
    let tracked = |object: &&Found| !is_git(&object.path) && mode_of(&object.attr).is_some();
    let new = |object: &&Found| !committed.contains_key(&object.path);
    let ignored = rules.ignored(found.iter().filter(tracked).filter(new).map(|object| &object.path))?;
    let seen: Vec<&Found> = found.iter().filter(tracked).filter(|object| !ignored.contains(&object.path)).collect();
    let files = seen.iter().filter(|object| object.attr.is_file());
    let converted = rules.converted(files.map(|object| &object.path))?;
    let diff = if with_diff { Some(DiffWriter::new(mirror.unnamed_file()?)) } else { None };
    let mut comparison = Comparison { mirror, rules, source, files: Vec::new(), diff };
    let mut to_clean = BTreeMap::new();
    for object in seen {
        let base = committed.remove(&object.path);
        match converted.get(&object.path) {
            Some(conversion) if !comparison.is_unchanged_and_not_converted(object, base, *conversion)? => {
                comparison.copy(object)?;
                to_clean.insert(object.path.clone(), (object, base));
            }
            Some(_) => {}
            None => comparison.compare_unconverted(object, base)?,
        }
    }
    comparison.compare_cleaned(to_clean)?;
    for (path, base) in committed {
        comparison.add_deleted(&path, base)?;
    }
    comparison.files.sort_by(|a, b| a.path.cmp(&b.path));
    let diff = comparison.diff.map(DiffWriter::finish).transpose()?;
    let (files, diff) = (comparison.files, diff.map(Into::into));
    Ok(Pending { commit: commit.to_owned(), files, diff, ignored: ignored.into_iter().collect() })
}

fn read_rules(found: &[Found], source: &dyn Source) -> Result<Vec<(RemotePath, Vec<u8>)>, PendingError> {
    let small = |object: &&Found| object.attr.is_file() && object.attr.size <= MAX_RULES_BYTES;
    let rules = found.iter().filter(|object| has_rules(&object.path)).filter(small);
    rules.map(|object| Ok((object.path.clone(), read_whole(object, source)?))).collect()
}

fn read_whole(object: &Found, source: &dyn Source) -> Result<Vec<u8>, PendingError> {
    let mut bytes = Vec::new();
    let mut sink = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    source.read(object, &mut sink).map_err(PendingError::Server)?;
    Ok(bytes)
}

struct Comparison<'a> {
    mirror: &'a Mirror,
    rules: WorkTree,
    source: &'a dyn Source,
    files: Vec<PendingFile>,
    diff: Option<DiffWriter>,
}

impl Comparison<'_> {
    /// Compares a file or symlink that git does not convert.
    fn compare_unconverted(&mut self, object: &Found, base: Option<Committed>) -> Result<(), PendingError> {
        let mode = self.mode(object, base);
        let same_mode = base.is_some_and(|base| base.mode == mode);
        let same_size = base.is_some_and(|base| base.size == object.attr.size);
        if same_mode && same_size && self.source.proved(object) == base.map(|base| base.blob) {
            return Ok(());
        }
        if object.attr.size > LARGE_BYTES && !same_size {
            return self.add_unread(object, base);
        }
        let small = object.attr.size <= SMALL_BYTES || !object.attr.is_file();
        let known = self.source.measured(object);
        let needed = self.diff.is_some() || base.is_some_and(|base| Some(base.blob) != known.map(|known| known.blob));
        let content = if small && (known.is_none() || needed) { Some(read_whole(object, self.source)?) } else { None };
        let measured = match (&content, known) {
            (Some(content), _) => measure(content),
            (None, Some(known)) => known,
            (None, None) => self.measure_streamed(object)?,
        };
        self.source.note(object, measured);
        if same_mode && base.is_some_and(|base| base.blob == measured.blob) {
            return Ok(());
        }
        self.add_changed(object, base, mode, measured, content.as_deref())
    }

    fn mode(&self, object: &Found, base: Option<Committed>) -> u32 {
        let mode = mode_of(&object.attr).unwrap_or(0o100_644);
        let regular = |mode: u32| mode & 0o170_000 == 0o100_000;
        match base {
            Some(base) if !self.rules.compares_modes() && regular(mode) && regular(base.mode) => base.mode,
            None if !self.rules.compares_modes() && regular(mode) => 0o100_644,
            _ => mode,
        }
    }

    /// Adds a file that differs in size and is too large to be read.
    fn add_unread(&mut self, object: &Found, base: Option<Committed>) -> Result<(), PendingError> {
        let letter = if base.is_some() { 'M' } else { 'A' };
        let name = object.path.to_string().escape_debug().to_string();
        if let Some(diff) = &mut self.diff {
            diff.part::<io::Error>(&object.path, |out| {
                writeln!(out, "# {name}: {} bytes, too large to be shown", object.attr.size)
            })?;
        }
        self.files.push(PendingFile { path: object.path.clone(), letter, lines: None });
        Ok(())
    }

    fn measure_streamed(&self, object: &Found) -> Result<Measured, PendingError> {
        let mut meter = Meter::new(object.attr.size);
        let mut sink = |piece: &[u8]| {
            meter.update(piece);
            Ok(())
        };
        self.source.read(object, &mut sink).map_err(PendingError::Server)?;
        Ok(meter.finish())
    }

    fn add_changed(
        &mut self,
        object: &Found,
        base: Option<Committed>,
        mode: u32,
        measured: Measured,
        content: Option<&[u8]>,
    ) -> Result<(), PendingError> {
        let old = base.map(|base| self.mirror.blob(base.blob)).transpose()?;
        let lines = match (&old, content) {
            _ if measured.binary => None,
            (None, _) => Some((measured.lines, 0)),
            (Some(old), Some(now)) => count_lines(old, now),
            (Some(_), None) => None,
        };
        let letter = if base.is_some() { 'M' } else { 'A' };
        self.files.push(PendingFile { path: object.path.clone(), letter, lines });
        let Some(diff) = &mut self.diff else { return Ok(()) };
        let before = base.zip(old.as_deref()).map(|(base, old)| committed_side(&base, old));
        let source = self.source;
        let pieces = |sink: &mut dyn FnMut(&[u8]) -> io::Result<()>| source.read(object, sink);
        let body = content.map_or(Body::Stream(object.attr.size, &pieces), Body::Bytes);
        let after = Side { mode, blob: measured.blob, body };
        diff.part(&object.path, |out| write_diff(out, &object.path, before, Some(after)).map_err(PendingError::from))
    }

    fn add_deleted(&mut self, path: &RemotePath, base: Committed) -> Result<(), PendingError> {
        let old = self.mirror.blob(base.blob)?;
        self.files.push(PendingFile { path: path.clone(), letter: 'D', lines: count_lines(&old, &[]) });
        let Some(diff) = &mut self.diff else { return Ok(()) };
        diff.part(path, |out| write_diff(out, path, Some(committed_side(&base, &old)), None).map_err(Into::into))
    }

    /// Whether a file has the committed bytes, and no conversion of line endings would change them.
    fn is_unchanged_and_not_converted(
        &self,
        object: &Found,
        base: Option<Committed>,
        conversion: Conversion,
    ) -> Result<bool, PendingError> {
        let Some(base) = base else { return Ok(false) };
        let same = base.mode == self.mode(object, Some(base)) && base.size == object.attr.size;
        if !same || conversion == Conversion::Any {
            return Ok(false);
        }
        let proved = self.source.proved(object) == Some(base.blob);
        let known = proved || self.source.measured(object).is_some_and(|known| known.blob == base.blob);
        if !known {
            let measured = self.measure_streamed(object)?;
            self.source.note(object, measured);
            if measured.blob != base.blob {
                return Ok(false);
            }
        }
        Ok(!self.mirror.has_carriage_returns(base.blob)?)
    }

    /// Copies a file into the local work tree, where git converts it.
    fn copy(&self, object: &Found) -> Result<(), PendingError> {
        if object.attr.size > LARGE_BYTES {
            return Ok(());
        }
        let mut file: File = self.rules.create(&object.path, self.mode(object, None) & 0o111 != 0)?;
        let mut sink = |piece: &[u8]| file.write_all(piece);
        self.source.read(object, &mut sink).map_err(PendingError::Server)
    }

    /// Compares the files that were copied, after git has converted them.
    fn compare_cleaned(&mut self, all: BTreeMap<RemotePath, (&Found, Option<Committed>)>) -> Result<(), PendingError> {
        let (large, copied): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, (f, _))| f.attr.size > LARGE_BYTES);
        for (_, (object, base)) in large {
            self.add_unread(object, base)?;
        }
        let paths: Vec<RemotePath> = copied.iter().map(|(path, _)| path.clone()).collect();
        let clean = self.rules.clean(&paths)?;
        for (path, (object, base)) in copied {
            let mode = self.mode(object, base);
            let blob = clean.get(&path).copied();
            if base.is_some_and(|base| base.mode == mode && Some(base.blob) == blob) {
                continue;
            }
            let content = match blob {
                Some(blob) => self.rules.blob(blob)?,
                None => self.rules.raw(&path)?,
            };
            let measured = measure(&content);
            self.add_changed(object, base, mode, measured, Some(&content))?;
        }
        Ok(())
    }
}

fn committed_side<'a>(base: &Committed, content: &'a [u8]) -> Side<'a> {
    Side { mode: base.mode, blob: base.blob, body: Body::Bytes(content) }
}

fn measure(content: &[u8]) -> Measured {
    let mut meter = Meter::new(content.len() as u64);
    meter.update(content);
    meter.finish()
}

/// Hashes content, and counts its lines, while it is read in pieces.
struct Meter {
    hasher: BlobHasher,
    seen: usize,
    lines: usize,
    last: u8,
    binary: bool,
}

impl Meter {
    fn new(size: u64) -> Self {
        Self { hasher: BlobHasher::new(size), seen: 0, lines: 0, last: b'\n', binary: false }
    }

    fn update(&mut self, piece: &[u8]) {
        self.hasher.update(piece);
        let sniffed = SNIFFED_BYTES.saturating_sub(self.seen).min(piece.len());
        self.binary |= piece[..sniffed].contains(&0);
        self.seen += piece.len();
        self.lines += piece.iter().filter(|&&b| b == b'\n').count();
        self.last = piece.last().copied().unwrap_or(self.last);
    }

    fn finish(self) -> Measured {
        let lines = self.lines + usize::from(self.last != b'\n');
        Measured { blob: self.hasher.finish(), lines, binary: self.binary }
    }
}

/// Git has three modes for files; other objects are not tracked.
fn mode_of(attr: &Attr) -> Option<u32> {
    match attr.kind {
        FileKind::File if attr.perm & 0o100 != 0 => Some(0o100_755),
        FileKind::File => Some(0o100_644),
        FileKind::Symlink => Some(0o120_000),
        FileKind::Directory | FileKind::Other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::hash;

    #[test]
    fn the_result_does_not_depend_on_the_pieces() {
        let noise: Vec<u8> = (0..50_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 11) as u8 | 1).collect();
        for content in [&b""[..], b"one", b"one\n", b"one\ntwo", b"a\0b\n", &noise] {
            let whole = measure(content);
            let mut meter = Meter::new(content.len() as u64);
            content.chunks(7).for_each(|piece| meter.update(piece));
            assert_eq!(meter.finish(), whole);
            assert_eq!(whole.blob, hash(content).expect("hashed"));
            let counted = count_lines(&[], content).map(|(added, _)| added);
            assert_eq!((!whole.binary).then_some(whole.lines), counted);
        }
    }
}
