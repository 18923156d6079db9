//! Checksums of racy contents: those that were read or sent so soon after their mtime that another content may have the
//! same version. A checksum is kept until the server was found to have the same content when the version was not racy any
//! more; a version whose checksum is dropped earlier would be trusted.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;

use crate::attr::Version;
use crate::path::RemotePath;

/// CRC-32 of blocks, by their index.
pub(super) type Sums = BTreeMap<u64, u32>;

/// Checksums by path and version.
#[derive(Default)]
pub(super) struct RacySums(Mutex<HashMap<RemotePath, (Version, Sums)>>);

impl RacySums {
    /// Notes a block that was returned to a caller or sent.
    pub(super) fn note(&self, path: &RemotePath, version: Version, index: u64, sum: u32) {
        let mut all = self.0.lock();
        match all.get_mut(path).filter(|(of, _)| *of == version) {
            Some((_, sums)) => drop(sums.insert(index, sum)),
            None => drop(all.insert(path.clone(), (version, Sums::from([(index, sum)])))),
        }
    }

    /// The checksums that must be compared before the version is trusted; empty if there are none.
    pub(super) fn sums(&self, path: &RemotePath, version: Version) -> Sums {
        let all = self.0.lock();
        all.get(path).filter(|(of, _)| *of == version).map(|(_, sums)| sums.clone()).unwrap_or_default()
    }

    pub(super) fn is_noted(&self, path: &RemotePath, version: Version) -> bool {
        self.0.lock().get(path).is_some_and(|(of, _)| *of == version)
    }

    /// A block was read when the version was not racy any more.
    pub(super) fn confirmed(&self, path: &RemotePath, version: Version, index: u64) {
        let mut all = self.0.lock();
        let Some((_, sums)) = all.get_mut(path).filter(|(of, _)| *of == version) else { return };
        sums.remove(&index);
        if sums.is_empty() {
            all.remove(path);
        }
    }

    pub(super) fn forget(&self, path: &RemotePath) {
        self.0.lock().remove(path);
    }

    pub(super) fn forget_below(&self, path: &RemotePath) {
        self.0.lock().retain(|known, _| !known.starts_with(path));
    }

    pub(super) fn renamed(&self, from: &RemotePath, to: &RemotePath) {
        let mut all = self.0.lock();
        all.remove(to);
        if let Some(known) = all.remove(from) {
            all.insert(to.clone(), known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_trusted_when_every_block_of_it_is() {
        let (sums, path) = (RacySums::default(), RemotePath::parse("code/a").expect("valid"));
        let version = Version { size: 300_000, mtime: 7 };
        for index in 0..3 {
            sums.note(&path, version, index, index as u32);
        }
        sums.confirmed(&path, version, 1);
        assert_eq!(sums.sums(&path, version), Sums::from([(0, 0), (2, 2)]));
        assert!(sums.is_noted(&path, version));
        assert!(sums.sums(&path, Version { mtime: 8, ..version }).is_empty());
        let to = RemotePath::parse("code/d/b").expect("valid");
        sums.renamed(&path, &to);
        assert!(!sums.is_noted(&path, version) && sums.is_noted(&to, version));
        sums.forget_below(&RemotePath::parse("code/d").expect("valid"));
        assert!(!sums.is_noted(&to, version));
    }
}
