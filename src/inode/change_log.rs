//! What a mount could tell about changed paths at its end, for the mounts after it.
//!
//! The payload of its record, behind the first byte: how objects are shown (2), the first change that is known (8), the
//! number of mounts (4), and for each its number (8) and the changes until its end (8); the number of paths (4), and for each
//! the change that it had last (8; all bits set: it may differ from the tree that was saved), and the path.

use super::bytes::{Input, put_text};
use crate::path::RemotePath;

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChangeLog {
    /// Stands for the options that have a say in the attributes that are shown.
    pub shown_as: u16,
    /// The paths of all changes after this one are known.
    pub from: u64,
    /// The mounts, the last one at the end: the number that its tokens have, and how many changes there were until its end,
    /// those before it included.
    pub mounts: Vec<(u64, u64)>,
    /// Paths below the code directory, and the number of the change that each had last. `None`: the path may differ from the
    /// tree that was saved, so that it counts as changed again.
    pub paths: Vec<(RemotePath, Option<u64>)>,
}

const DIFFERS: u64 = u64::MAX;

impl ChangeLog {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.shown_as.to_le_bytes());
        out.extend_from_slice(&self.from.to_le_bytes());
        out.extend_from_slice(&(self.mounts.len() as u32).to_le_bytes());
        for (number, end) in &self.mounts {
            out.extend_from_slice(&number.to_le_bytes());
            out.extend_from_slice(&end.to_le_bytes());
        }
        out.extend_from_slice(&(self.paths.len() as u32).to_le_bytes());
        for (path, at) in &self.paths {
            out.extend_from_slice(&at.unwrap_or(DIFFERS).to_le_bytes());
            put_text(&mut out, path.as_bytes());
        }
        out
    }

    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let mut input = Input(body);
        let shown_as = u16::try_from(input.number::<2>()?).ok()?;
        let from = input.number::<8>()?;
        let (mut mounts, mut paths) = (Vec::new(), Vec::new());
        for _ in 0..input.number::<4>()? {
            mounts.push((input.number::<8>()?, input.number::<8>()?));
        }
        for _ in 0..input.number::<4>()? {
            let at = Some(input.number::<8>()?).filter(|at| *at != DIFFERS);
            paths.push((RemotePath::parse(input.text()?).ok()?, at));
        }
        input.0.is_empty().then_some(Self { shown_as, from, mounts, paths })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ChangeLog {
        let path = |text: &str| RemotePath::parse(text).expect("valid");
        let paths = vec![(path("a"), None), (path("d/e"), Some(3))];
        ChangeLog { shown_as: 0o22, from: 2, mounts: vec![(7, 9)], paths }
    }

    #[test]
    fn every_cut_of_a_log_is_no_log() {
        let bytes = sample().encode();
        assert_eq!(ChangeLog::decode(&bytes), Some(sample()));
        assert!((0..bytes.len()).all(|cut| ChangeLog::decode(&bytes[..cut]).is_none()));
        assert_eq!(ChangeLog::decode(&[&bytes[..], b"x"].concat()), None);
    }

    #[test]
    fn the_layout_of_version_1_is_read() {
        let golden = b"\x12\0\x02\0\0\0\0\0\0\0\x01\0\0\0\x07\0\0\0\0\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0\
            \xff\xff\xff\xff\xff\xff\xff\xff\x01\0a\x03\0\0\0\0\0\0\0\x03\0d/e";
        assert_eq!(sample().encode(), golden);
        assert_eq!(ChangeLog::decode(golden), Some(sample()));
    }
}
