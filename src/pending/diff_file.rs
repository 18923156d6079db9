//! The text of a diff, in a temporary file without a name, because it may be larger than memory.

use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::path::RemotePath;

/// A complete diff.
#[derive(Debug)]
pub struct DiffFile {
    file: File,
    len: u64,
    parts: Vec<(RemotePath, Range<u64>)>,
}

impl DiffFile {
    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The range of the part about a path.
    pub fn part(&self, path: &RemotePath) -> Option<Range<u64>> {
        self.parts.iter().find(|(of, _)| of == path).map(|(_, range)| range.clone())
    }

    /// At most `size` bytes at `offset`.
    pub fn read_at(&self, offset: u64, size: usize) -> io::Result<Vec<u8>> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; size.min(left)];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

/// A diff that is being written.
pub(super) struct DiffWriter {
    out: BufWriter<File>,
    parts: Vec<(RemotePath, Range<u64>)>,
}

impl DiffWriter {
    pub(super) fn new(file: File) -> Self {
        Self { out: BufWriter::new(file), parts: Vec::new() }
    }

    /// Adds the part about a path.
    pub(super) fn part<E: From<io::Error>>(
        &mut self,
        path: &RemotePath,
        write: impl FnOnce(&mut dyn Write) -> Result<(), E>,
    ) -> Result<(), E> {
        let start = self.out.stream_position()?;
        write(&mut self.out)?;
        let end = self.out.stream_position()?;
        self.parts.push((path.clone(), start..end));
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<DiffFile> {
        let mut file = self.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let len = file.seek(SeekFrom::End(0))?;
        Ok(DiffFile { file, len, parts: self.parts })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_by_their_path() {
        let path = |text: &str| RemotePath::parse(text).expect("valid");
        let mut writer = DiffWriter::new(tempfile::tempfile().expect("made"));
        for (name, text) in [("a", "one\n"), ("b", "second\n")] {
            writer.part::<io::Error>(&path(name), |out| out.write_all(text.as_bytes())).expect("written");
        }
        let done = writer.finish().expect("finished");
        assert_eq!((done.len(), done.part(&path("b")), done.part(&path("c"))), (11, Some(4..11), None));
        assert_eq!(done.read_at(4, 100).expect("read"), b"second\n");
        assert!(done.read_at(40, 5).expect("read").is_empty());
    }
}
