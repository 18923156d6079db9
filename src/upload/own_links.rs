//! Which symlinks that lead out of the mount were made through it: these are shown with their own text. Remembered on the
//! local disk, by the place that they lead to, so that a renamed symlink is known, too.

use std::collections::HashSet;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::path::RemotePath;

/// The file in the state directory: a checksum of a place per line.
const FILE: &str = "own-links";
/// Number of remembered places. Symlinks to others are shown like those of the server.
const MAX_PLACES: usize = 65_536;

pub(super) struct OwnLinks {
    file: PathBuf,
    places: Mutex<HashSet<String>>,
}

impl OwnLinks {
    pub(super) fn remembered(state_dir: &Path) -> Self {
        let file = state_dir.join(FILE);
        let text = fs::read_to_string(&file).unwrap_or_default();
        let places = text.lines().take(MAX_PLACES).map(str::to_owned).collect();
        Self { file, places: Mutex::new(places) }
    }

    /// A symlink at `link` (from the root of the mount) with this text was made through the mount.
    pub(super) fn add(&self, link: &RemotePath, text: &[u8]) {
        let place = place(link, text);
        let mut places = self.places.lock();
        if places.len() >= MAX_PLACES || places.contains(&place) {
            return;
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.file);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{place}")) {
            log::warn!(
                "{}: {error}; after the next mount the symlink {link} is shown as one of the server",
                self.file.display()
            );
        }
        places.insert(place);
    }

    pub(super) fn has(&self, link: &RemotePath, text: &[u8]) -> bool {
        let places = self.places.lock();
        !places.is_empty() && places.contains(&place(link, text))
    }
}

/// A checksum of where the text leads: the text itself, without the directories between the symlink and the root of the mount.
fn place(link: &RemotePath, text: &[u8]) -> String {
    let mut up = link.depth().saturating_sub(1);
    let mut rest = text;
    while let Some(more) = rest.strip_prefix(b"../").filter(|_| up > 0) {
        (rest, up) = (more, up - 1);
    }
    let kept = if rest.starts_with(b"..") && up == 0 { rest } else { text };
    Sha256::digest(kept).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    #[test]
    fn a_symlink_is_known_by_its_place_and_after_a_restart() {
        let dir = tempfile::tempdir().expect("a directory");
        let links = OwnLinks::remembered(dir.path());
        links.add(&path("a/link"), b"../../there");
        links.add(&path("abs"), b"/usr/share/x");
        for links in [&links, &OwnLinks::remembered(dir.path())] {
            assert!(links.has(&path("a/link"), b"../../there") && links.has(&path("b/other"), b"../../there"));
            assert!(links.has(&path("link"), b"../there"), "the same place from the root");
            assert!(!links.has(&path("link"), b"../../there"), "one level higher");
            assert!(links.has(&path("x/y/z"), b"/usr/share/x") && !links.has(&path("x"), b"/usr/share/y"));
        }
    }
}
