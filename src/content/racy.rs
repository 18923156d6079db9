//! Checksums of racy contents: those that were read or sent so soon after their mtime that another content may have the
//! same version. A checksum is kept until the server was found to have the same content when the version was not racy any
//! more; a version whose checksum is dropped earlier would be trusted.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::attr::Version;
use crate::path::RemotePath;

/// CRC-32 of blocks, by their index.
pub(super) type Sums = BTreeMap<u64, u32>;

/// The checksums of one version of a file.
struct Known {
    version: Version,
    sums: Sums,
    /// Other content was found under this version. The checksums stay those of the content that callers were shown.
    changed: bool,
}

/// Checksums by path and version.
#[derive(Default)]
pub(super) struct RacySums(Mutex<BTreeMap<RemotePath, Known>>);

impl RacySums {
    /// Notes a block that was read or sent.
    pub(super) fn note(&self, path: &RemotePath, version: Version, index: u64, sum: u32) {
        let mut all = self.0.lock();
        match all.get_mut(path).filter(|known| known.version == version) {
            Some(known) if known.changed => {}
            Some(known) => known.changed = *known.sums.entry(index).or_insert(sum) != sum,
            None => {
                let known = Known { version, sums: Sums::from([(index, sum)]), changed: false };
                drop(all.insert(path.clone(), known));
            }
        }
    }

    /// The checksums that must be compared before the version is trusted; empty if there are none.
    pub(super) fn sums(&self, path: &RemotePath, version: Version) -> Sums {
        self.find(path, version, |known| known.sums.clone()).unwrap_or_default()
    }

    /// Notes what the mount before this one was shown.
    pub(super) fn restore(&self, path: RemotePath, version: Version, sums: Sums) {
        self.0.lock().insert(path, Known { version, sums, changed: false });
    }

    pub(super) fn is_noted(&self, path: &RemotePath, version: Version) -> bool {
        self.find(path, version, |_| ()).is_some()
    }

    /// Whether other content was found under this version.
    pub(super) fn has_changed(&self, path: &RemotePath, version: Version) -> bool {
        self.find(path, version, |known| known.changed).unwrap_or(false)
    }

    fn find<T>(&self, path: &RemotePath, version: Version, get: impl Fn(&Known) -> T) -> Option<T> {
        self.0.lock().get(path).filter(|known| known.version == version).map(get)
    }

    /// Compares a block that was read when the version was not racy any more. If it is the noted one, its checksum is not
    /// needed any more.
    pub(super) fn confirm(&self, path: &RemotePath, version: Version, index: u64, sum: u32) {
        let mut all = self.0.lock();
        let Some(known) = all.get_mut(path).filter(|known| known.version == version) else { return };
        known.changed |= known.sums.get(&index).is_some_and(|noted| *noted != sum);
        if !known.changed {
            known.sums.remove(&index);
            if known.sums.is_empty() {
                all.remove(path);
            }
        }
    }

    pub(super) fn forget(&self, path: &RemotePath) {
        self.0.lock().remove(path);
    }

    pub(super) fn forget_below(&self, path: &RemotePath) {
        let mut all = self.0.lock();
        for known in path.keys_below(&all) {
            all.remove(&known);
        }
    }

    /// The object, with everything below it, was renamed.
    pub(super) fn renamed(&self, from: &RemotePath, to: &RemotePath) {
        let mut all = self.0.lock();
        for known in to.keys_below(&all) {
            all.remove(&known);
        }
        for path in from.keys_below(&all) {
            if let (Some(known), Some(rest)) = (all.remove(&path), path.strip_prefix(from)) {
                all.insert(to.join_path(&rest), known);
            }
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
        sums.confirm(&path, version, 1, 1);
        assert_eq!(sums.sums(&path, version), Sums::from([(0, 0), (2, 2)]));
        assert!(sums.is_noted(&path, version));
        assert!(sums.sums(&path, Version { mtime: 8, ..version }).is_empty());
        let to = RemotePath::parse("code/d/b").expect("valid");
        sums.renamed(&path, &to);
        assert!(!sums.is_noted(&path, version) && sums.is_noted(&to, version));
        sums.forget_below(&RemotePath::parse("code/d").expect("valid"));
        assert!(!sums.is_noted(&to, version));
    }

    #[test]
    fn other_content_does_not_replace_the_noted_one() {
        let (sums, path) = (RacySums::default(), RemotePath::parse("code/a").expect("valid"));
        let version = Version { size: 4, mtime: 7 };
        for read in [RacySums::note, RacySums::confirm] {
            sums.note(&path, version, 0, 1);
            sums.note(&path, version, 0, 1);
            assert!(!sums.has_changed(&path, version));
            read(&sums, &path, version, 0, 2);
            assert!(sums.has_changed(&path, version));
            sums.confirm(&path, version, 0, 1);
            assert_eq!(sums.sums(&path, version), Sums::from([(0, 1)]));
            sums.forget(&path);
        }
    }

    #[test]
    fn checksums_follow_a_renamed_directory() {
        let path = |text: &str| RemotePath::parse(text).expect("valid");
        let (sums, version) = (RacySums::default(), Version { size: 4, mtime: 7 });
        for name in ["code/d/x", "code/d2", "code/e/x"] {
            sums.note(&path(name), version, 0, 1);
        }
        sums.renamed(&path("code/d"), &path("code/e"));
        sums.renamed(&path("code/d2"), &path("code/d3"));
        let noted = |name: &str| sums.is_noted(&path(name), version);
        assert_eq!(["code/d/x", "code/e/x", "code/d2", "code/d3"].map(noted), [false, true, false, true]);
    }
}
