//! A save of a large file of which little changed: the server copies what stays from the file that is replaced into the temporary
//! file (`copy-data`), and only the rest is sent. The file that is copied from must have the version that the change is based on,
//! before the copies and behind them, and what was copied is looked at where each copy ends.

use std::collections::VecDeque;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::content::{Progress, Writer};
use super::error::ErrorKind;
use super::reply;
use crate::attr::Version;
use crate::sftp::{Pending, Request};

/// With less than this to copy, sending everything is as fast (bytes).
const MIN_BYTES: u64 = 1024 * 1024;
/// Parts to copy at most: each gap between them is sent.
const MAX_PARTS: usize = 64;
/// Bytes that one request copies: the server answers no other request meanwhile.
const PIECE_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes that are looked at where a copy ends.
const SAMPLE_BYTES: u64 = 512;

/// What is the same in the base, and the version of that.
pub(super) struct BaseCopy<'a> {
    version: Version,
    unchanged: &'a [Range<u64>],
}

/// The base, open on the server for reading.
pub(super) struct OpenBase<'a> {
    copy: &'a BaseCopy<'a>,
    handle: Vec<u8>,
}

/// Requests that have no answer yet.
pub(super) struct SentCopies {
    version: Version,
    stats: [Pending; 2],
    copies: VecDeque<Pending>,
    samples: Vec<(Range<u64>, Pending)>,
}

impl<'a> BaseCopy<'a> {
    /// `None`: nothing is gained by it.
    pub(super) fn new(version: Version, unchanged: &'a [Range<u64>]) -> Option<Self> {
        let bytes: u64 = unchanged.iter().map(|range| range.end - range.start).sum();
        (bytes >= MIN_BYTES && unchanged.len() <= MAX_PARTS).then_some(Self { version, unchanged })
    }

    /// What is not copied, in a file of this length.
    fn rest(&self, len: u64) -> Vec<Range<u64>> {
        let mut at = 0;
        let mut rest: Vec<_> =
            self.unchanged.iter().map(|range| std::mem::replace(&mut at, range.end)..range.start).collect();
        rest.push(at..len);
        rest.retain(|range| !range.is_empty());
        rest
    }
}

impl<'a> OpenBase<'a> {
    pub(super) fn new(copy: &'a BaseCopy<'a>, handle: Vec<u8>) -> Self {
        Self { copy, handle }
    }

    pub(super) fn rest(&self, len: u64) -> Vec<Range<u64>> {
        self.copy.rest(len)
    }

    /// Nothing is copied from it after all.
    pub(super) fn close(&self, writer: &Writer<'_>) {
        drop(writer.close(&self.handle));
    }

    /// Requests the copies into the open file `to`, and closes the base.
    pub(super) fn send(self, writer: &Writer<'_>, to: &[u8]) -> SentCopies {
        let stat = || writer.send(Request::Fstat { handle: self.handle.clone() });
        let (before, mut copies) = (stat(), VecDeque::new());
        for range in self.copy.unchanged {
            let mut at = range.start;
            while at < range.end {
                let len = (range.end - at).min(PIECE_BYTES);
                copies.push_back(writer.send(Request::copy_data((&self.handle, at), len, (to, at))));
                at += len;
            }
        }
        let ends =
            self.copy.unchanged.iter().map(|range| range.end - (range.end - range.start).min(SAMPLE_BYTES)..range.end);
        let read = |range: &Range<u64>| Request::Read {
            handle: to.to_vec(),
            offset: range.start,
            len: (range.end - range.start) as u32,
        };
        let samples = ends.map(|range| (range.clone(), writer.send(read(&range)))).collect();
        let stats = [before, stat()];
        drop(writer.close(&self.handle));
        SentCopies { version: self.copy.version, stats, copies, samples }
    }
}

impl SentCopies {
    /// Waits for the answers.
    ///
    /// # Errors
    ///
    /// The copies are not what the new content has: everything is to be sent.
    pub(super) fn finish(mut self, writer: &Writer<'_>) -> Result<(), ErrorKind> {
        while let Some(copy) = self.copies.pop_front() {
            writer.extended().ok(copy)?;
            (writer.progress)(Progress::Transferred);
        }
        for (range, read) in self.samples {
            let mut ours = vec![0; (range.end - range.start) as usize];
            writer.source.file.read_exact_at(&mut ours, range.start)?;
            let theirs = reply::data(read.wait(writer.extended().deadline()))?;
            if theirs.as_deref() != Some(ours.as_slice()) {
                return Err(ErrorKind::Failure("the server copied other bytes".into()));
            }
        }
        for stat in self.stats {
            let now = writer.extended().attr(stat)?;
            if now.version() != self.version {
                return Err(ErrorKind::Failure(format!(
                    "the file that was copied from is another version ({})",
                    now.version()
                )));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_copied_is_sent() {
        let rest = |unchanged: &[(u64, u64)], len| {
            let unchanged: Vec<_> = unchanged.iter().map(|&(start, end)| start..end).collect();
            let copy = BaseCopy::new(Version { size: 10_000_000, mtime: 7 }, &unchanged)?;
            Some(copy.rest(len).into_iter().map(|range| (range.start, range.end)).collect::<Vec<_>>())
        };
        let (start, end) = ((0, 2_000_000), (2_000_100, 9_000_000));
        assert_eq!(rest(&[start, end], 9_000_000), Some(vec![(2_000_000, 2_000_100)]));
        assert_eq!(rest(&[end], 9_500_000), Some(vec![(0, 2_000_100), (9_000_000, 9_500_000)]));
        assert_eq!(rest(&[start], 2_000_000), Some(Vec::new()));
        assert_eq!(rest(&[(0, 1000)], 2_000_000), None, "too little");
        assert_eq!(rest(&[], 2_000_000), None);
    }
}
