//! Unified diffs that `git apply` accepts. Content that is too large for memory is written to the diff while it is read.

use std::io::{self, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use git2::build::TreeUpdateBuilder;
use git2::{DiffFormat, DiffOptions, FileMode, Repository, Tree};

use super::MirrorError;
use crate::attr::BlobId;
use crate::path::RemotePath;

/// The new state of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Relative to the code directory.
    pub path: RemotePath,
    /// Content and git mode; `None`: deleted.
    pub now: Option<(Vec<u8>, u32)>,
}

/// A patch between contents in memory, made in a temporary repository below `scratch`. `before` has only the paths
/// that existed.
pub fn patch(scratch: &Path, before: &[Change], after: &[Change]) -> Result<Vec<u8>, MirrorError> {
    let repo = Repository::init_bare(scratch)?;
    let empty = repo.find_tree(repo.treebuilder(None)?.write()?)?;
    let old = with_changes(&repo, &empty, before)?;
    let new = with_changes(&repo, &old, after)?;
    print(&repo, &old, &new)
}

fn with_changes<'a>(repo: &'a Repository, base: &Tree<'_>, changes: &[Change]) -> Result<Tree<'a>, MirrorError> {
    let mut builder = TreeUpdateBuilder::new();
    for change in changes {
        let path = change.path.to_os_string();
        match &change.now {
            Some((content, mode)) => {
                builder.upsert(path.as_encoded_bytes(), repo.blob(content)?, file_mode(*mode));
            }
            // Removing a missing path is an error in libgit2.
            None if base.get_path(Path::new(&path)).is_err() => {}
            None => {
                builder.remove(path.as_encoded_bytes());
            }
        }
    }
    Ok(repo.find_tree(builder.create_updated(repo, base)?)?)
}

fn print(repo: &Repository, old: &Tree<'_>, new: &Tree<'_>) -> Result<Vec<u8>, MirrorError> {
    let mut options = DiffOptions::new();
    options.show_binary(true);
    let diff = repo.diff_tree_to_tree(Some(old), Some(new), Some(&mut options))?;
    let mut out = Vec::new();
    diff.print(DiffFormat::Patch, |_, _, line| {
        if matches!(line.origin(), '+' | '-' | ' ') {
            out.push(line.origin() as u8);
        }
        out.extend_from_slice(line.content());
        true
    })?;
    Ok(out)
}

fn file_mode(mode: u32) -> FileMode {
    match mode {
        0o120_000 => FileMode::Link,
        mode if mode & 0o111 != 0 => FileMode::BlobExecutable,
        _ => FileMode::Blob,
    }
}

/// Lines added and removed between two contents; `None` if one is binary.
pub fn count_lines(old: &[u8], new: &[u8]) -> Option<(usize, usize)> {
    if is_binary(old) || is_binary(new) {
        return None;
    }
    let patch = git2::Patch::from_buffers(old, None, new, None, None).ok()?;
    let (_, added, removed) = patch.line_stats().ok()?;
    Some((added, removed))
}

/// Passes content to a function in pieces.
pub type Pieces<'a> = &'a dyn Fn(&mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<(), String>;

/// The content of one side of a diff.
#[derive(Clone, Copy)]
pub enum Body<'a> {
    Bytes(&'a [u8]),
    /// Content that is too large for memory: its size, and a function that reads it.
    Stream(u64, Pieces<'a>),
}

/// The old or new state of a file.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    /// Git's mode.
    pub mode: u32,
    pub blob: BlobId,
    pub body: Body<'a>,
}

impl Side<'_> {
    fn text(&self) -> Option<&[u8]> {
        match self.body {
            Body::Bytes(bytes) if !is_binary(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// Writes the diff of one path in the format of `git apply`: a text diff if both sides are text and in memory, else a
/// binary patch with both contents.
///
/// # Errors
///
/// A streamed content cannot be read, or `out` cannot be written.
pub fn write_diff(
    out: &mut dyn Write,
    path: &RemotePath,
    old: Option<Side<'_>>,
    new: Option<Side<'_>>,
) -> Result<(), MirrorError> {
    if let (Some(before), Some(after)) = (old, new)
        && before.mode & 0o170_000 != after.mode & 0o170_000
    {
        // A file that replaces a symlink, or a symlink that replaces a file, is a deletion and an addition.
        write_diff(out, path, old, None)?;
        return write_diff(out, path, None, new);
    }
    let none = BlobId([0; 20]);
    let (from, to) = (old.map_or(none, |side| side.blob), new.map_or(none, |side| side.blob));
    let (a, b) = (quoted(b"a/", path), quoted(b"b/", path));
    out.write_all(&[b"diff --git ", &a[..], b" ", &b, b"\n"].concat())?;
    let mut shared = String::new();
    match (old, new) {
        (None, Some(side)) => writeln!(out, "new file mode {:06o}", side.mode)?,
        (Some(side), None) => writeln!(out, "deleted file mode {:06o}", side.mode)?,
        (Some(before), Some(after)) if before.mode != after.mode => {
            write!(out, "old mode {:06o}\nnew mode {:06o}\n", before.mode, after.mode)?;
        }
        (Some(side), Some(_)) => shared = format!(" {:06o}", side.mode),
        (None, None) => {}
    }
    if from == to {
        return Ok(());
    }
    writeln!(out, "index {from}..{to}{shared}")?;
    let text = |side: Option<&Side<'_>>| side.map_or(Some(Vec::new()), |side| side.text().map(<[u8]>::to_vec));
    if let (Some(before), Some(after)) = (text(old.as_ref()), text(new.as_ref())) {
        if before.is_empty() && after.is_empty() {
            return Ok(());
        }
        let name =
            |side: Option<Side<'_>>, name: &[u8]| if side.is_some() { name.to_vec() } else { b"/dev/null".into() };
        let tab = if path.as_bytes().contains(&b' ') { &b"\t"[..] } else { b"" };
        out.write_all(&[b"--- ", &name(old, &a)[..], tab, b"\n+++ ", &name(new, &b), tab, b"\n"].concat())?;
        return write_hunks(out, &before, &after);
    }
    out.write_all(b"GIT binary patch\n")?;
    for side in [new, old] {
        write_literal(out, side.map_or(Body::Bytes(b""), |side| side.body))?;
    }
    Ok(())
}

fn write_hunks(out: &mut dyn Write, old: &[u8], new: &[u8]) -> Result<(), MirrorError> {
    let mut options = DiffOptions::new();
    options.force_text(true);
    let mut patch = git2::Patch::from_buffers(old, None, new, None, Some(&mut options))?;
    let mut written = Ok(());
    let print = &mut |_: git2::DiffDelta<'_>, _: Option<git2::DiffHunk<'_>>, line: git2::DiffLine<'_>| {
        let origin = line.origin();
        if !matches!(origin, 'F' | 'B') {
            let mark = [origin as u8];
            let mark = if matches!(origin, '+' | '-' | ' ') { &mark[..] } else { b"" };
            written = out.write_all(mark).and_then(|()| out.write_all(line.content()));
        }
        written.is_ok()
    };
    let printed = patch.print(print);
    written?;
    Ok(printed?)
}

/// Writes a whole content in the format of git's binary patches: compressed, in lines of 52 bytes.
fn write_literal(out: &mut dyn Write, body: Body<'_>) -> Result<(), MirrorError> {
    let size = match body {
        Body::Bytes(bytes) => bytes.len() as u64,
        Body::Stream(size, _) => size,
    };
    writeln!(out, "literal {size}")?;
    let mut packed = ZlibEncoder::new(Base85 { out, line: Vec::new() }, Compression::fast());
    match body {
        Body::Bytes(bytes) => packed.write_all(bytes)?,
        Body::Stream(_, read) => read(&mut |piece| packed.write_all(piece)).map_err(MirrorError::Git)?,
    }
    packed.finish()?.end()?;
    Ok(())
}

/// Bytes per line of a binary patch.
const LINE_BYTES: usize = 52;

/// Encodes lines in git's base 85: a letter for the number of bytes, then five digits for each four bytes.
struct Base85<'a> {
    out: &'a mut dyn Write,
    line: Vec<u8>,
}

impl Base85<'_> {
    fn put_line(&mut self) -> io::Result<()> {
        const DIGITS: &[u8; 85] =
            b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~";
        let count = self.line.len() as u8;
        let mut text = vec![if count <= 26 { b'A' + count - 1 } else { b'a' + count - 27 }];
        for four in self.line.chunks(4) {
            let mut word = [0; 4];
            word[..four.len()].copy_from_slice(four);
            let mut number = u32::from_be_bytes(word);
            let mut digits = [0; 5];
            for digit in digits.iter_mut().rev() {
                *digit = DIGITS[(number % 85) as usize];
                number /= 85;
            }
            text.extend_from_slice(&digits);
        }
        text.push(b'\n');
        self.line.clear();
        self.out.write_all(&text)
    }

    fn end(mut self) -> io::Result<()> {
        if !self.line.is_empty() {
            self.put_line()?;
        }
        self.out.write_all(b"\n")
    }
}

impl Write for Base85<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(LINE_BYTES - self.line.len());
        self.line.extend_from_slice(&bytes[..taken]);
        if self.line.len() == LINE_BYTES {
            self.put_line()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A name in a diff header: quoted as git does it if it has special characters.
fn quoted(side: &[u8], path: &RemotePath) -> Vec<u8> {
    let name = [side, path.as_bytes()].concat();
    let plain = |b: &u8| (0x20..0x7f).contains(b) && !matches!(b, b'"' | b'\\');
    if name.iter().all(plain) {
        return name;
    }
    let mut out = vec![b'"'];
    for byte in name {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            byte if plain(&byte) => out.push(byte),
            byte => out.extend(format!("\\{byte:03o}").bytes()),
        }
    }
    out.push(b'"');
    out
}

/// Whether content is binary by git's rule: it has a zero byte among the first bytes.
pub(crate) fn is_binary(content: &[u8]) -> bool {
    content.iter().take(SNIFFED_BYTES).any(|b| *b == 0)
}

/// Number of bytes that git checks for a zero byte.
pub(crate) const SNIFFED_BYTES: usize = 8000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::hash;
    use std::process::{Command, Stdio};

    /// Checks that `git apply` makes the new content from the old one.
    fn assert_applies(name: &str, old: Option<(&[u8], u32)>, new: Option<(&[u8], u32)>, streamed: bool) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = RemotePath::parse(name).expect("valid");
        let place = dir.path().join(name);
        if let Some((content, _)) = old {
            std::fs::write(&place, content).expect("written");
        }
        let mut text = Vec::new();
        let side = |(content, mode): (&'static [u8], u32)| Side {
            mode,
            blob: hash(content).expect("hashed"),
            body: Body::Bytes(content),
        };
        // The contents live as long as the test.
        let leaked = |side: Option<(&[u8], u32)>| side.map(|(c, m)| (&*Box::leak(c.to_vec().into_boxed_slice()), m));
        let (old, new) = (leaked(old), leaked(new));
        let pieces = |sink: &mut dyn FnMut(&[u8]) -> io::Result<()>| {
            let content = new.map_or(&b""[..], |(content, _)| content);
            content.chunks(7).try_for_each(&mut *sink).map_err(|e| e.to_string())
        };
        let after = new.map(side).map(|side| match side.body {
            Body::Bytes(bytes) if streamed => Side { body: Body::Stream(bytes.len() as u64, &pieces), ..side },
            _ => side,
        });
        write_diff(&mut text, &path, old.map(side), after).expect("written");
        let mut git = Command::new("git");
        git.args(["apply", "--whitespace=nowarn", "-"]).current_dir(dir.path()).env("GIT_DIR", dir.path().join("none"));
        let mut git = git.stdin(Stdio::piped()).spawn().expect("git runs");
        git.stdin.take().expect("piped").write_all(&text).expect("taken");
        assert!(git.wait().expect("ended").success(), "{}", String::from_utf8_lossy(&text));
        assert_eq!(std::fs::read(&place).ok().as_deref(), new.map(|(content, _)| content));
    }

    #[test]
    fn git_apply_accepts_the_diffs() {
        let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        let texts: [&[u8]; 5] = [b"", b"one\n", b"one\ntwo", b"\0\x01binary", &noise];
        for name in ["plain.php", "with space", "\u{fc}n\"quoted\\\n"] {
            for old in texts {
                assert_applies(name, None, Some((old, 0o100_644)), old.len() == 3);
                assert_applies(name, Some((old, 0o100_644)), None, false);
                for new in texts {
                    assert_applies(name, Some((old, 0o100_644)), Some((new, 0o100_755)), new.len() > 6);
                }
            }
        }
    }
}
