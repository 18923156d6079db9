//! `.pantheon/at`: the tree of any commit, tag or branch of the repository, by its name.

use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use super::inodes::{Object, Version};
use super::state::{Dot, must_wait};
use crate::attr::{Attr, BlobId, FileKind};
use crate::control::EnvKind;
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::mirror::{Mirror, MirrorError, Revision, TreeEntry, is_whole_hash};
use crate::path::{Name, RemotePath};
use crate::pool;

/// The directory in `.pantheon`.
pub(super) const AT_DIR: &str = "at";
/// Names of environments, which stand for what runs there, or was deployed there last. These are listed.
const DEPLOYED: [&str; 2] = ["live", "test"];
const DEV: &str = "dev";
/// The branch that Dev runs.
const DEV_BRANCH: &str = "refs/heads/master";
/// How old the known branches and tags may be.
const NAMES_FRESH: Duration = Duration::from_secs(60);
/// How long the kernel may remember that there is no such name.
pub(super) const NO_NAME_VALID: Duration = Duration::from_secs(10);

impl Dot {
    /// The object of a name in `at`, or in a directory of names with slashes.
    pub(super) fn named_version(&self, above: &RemotePath, name: &[u8], wait: Wait) -> FsResult<Option<Object>> {
        // No name of git begins with a dot; programs look for such names in every directory.
        let Some(name) = Name::new(name).ok().filter(|name| !name.as_bytes().starts_with(b".")) else {
            return Ok(None);
        };
        must_wait("lookup", ".pantheon/at", wait)?;
        let path = above.join(&name);
        if let Some(revision) = self.revision(&path, wait)? {
            return Ok(Some(Object::Version(Version::root(path, revision))));
        }
        let goes_on = self.mirror()?.has_names_below(&path);
        Ok(goes_on.then_some(Object::At(path)))
    }

    /// The commit of a name. What is missing is fetched, within the caller's time limit.
    pub(super) fn revision(&self, name: &RemotePath, wait: Wait) -> FsResult<Option<Revision>> {
        let mirror = self.mirror()?;
        let found = self.known_revision(mirror, name)?;
        let full = self.full_name(mirror, name);
        if let Some(hash) = full.filter(is_whole_hash) {
            if found.is_some() {
                return Ok(found);
            }
            limited(wait, mirror, move |mirror| mirror.fetch_commit(&hash.to_string()));
            return self.known_revision(mirror, name);
        }
        let age = mirror.names_age();
        if age.is_some_and(|age| age < NAMES_FRESH) {
            return Ok(found);
        }
        if found.is_some() && age.is_some() {
            // What is known is shown at once; the next caller sees what is new.
            let mirror = mirror.clone();
            pool::background().run(move || logged(mirror.renew_names(NAMES_FRESH)));
            return Ok(found);
        }
        limited(wait, mirror, |mirror| mirror.renew_names(NAMES_FRESH));
        self.known_revision(mirror, name)
    }

    /// The commit of a name, if it is on this machine.
    fn known_revision(&self, mirror: &Mirror, name: &RemotePath) -> FsResult<Option<Revision>> {
        let Some(full) = self.full_name(mirror, name) else { return Ok(None) };
        mirror.revision(&full).map_err(|error| platform("lookup", name, &error))
    }

    /// What git calls the name of an environment; other names stay as they are.
    fn full_name(&self, mirror: &Mirror, name: &RemotePath) -> Option<RemotePath> {
        match std::str::from_utf8(name.as_bytes()).ok()? {
            text if DEPLOYED.contains(&text) => mirror.newest_deploy(text),
            DEV => {
                let belief = self.0.env.belief();
                let running = belief.target_commit.filter(|_| belief.kind == Some(EnvKind::Dev));
                RemotePath::parse(running.as_deref().unwrap_or(DEV_BRANCH)).ok()
            }
            _ => Some(name.clone()),
        }
    }

    /// What is listed in `at`. Asks nobody.
    pub(super) fn listed_versions(&self) -> Vec<(Name, Object)> {
        let Ok(mirror) = self.mirror() else { return Vec::new() };
        let listed = DEPLOYED.into_iter().chain([DEV]);
        let object = |text: &str| {
            let name = Name::new(text).ok()?;
            let path = RemotePath::root().join(&name);
            let revision = self.known_revision(mirror, &path).ok()??;
            Some((name, Object::Version(Version::root(path, revision))))
        };
        listed.filter_map(object).collect()
    }

    /// The names of a directory of a version.
    pub(super) fn version_children(&self, dir: &Version) -> Vec<(Name, Object)> {
        let TreeEntry::Directory(tree) = dir.entry else { return Vec::new() };
        let entries =
            self.mirror().and_then(|mirror| mirror.entries(tree).map_err(|error| platform("readdir", dir, &error)));
        let entries = entries.unwrap_or_else(|error| {
            self.0.errors.noted(error);
            Vec::new()
        });
        entries.into_iter().map(|(name, entry)| (name.clone(), Object::Version(dir.child(&name, entry)))).collect()
    }

    /// The object of a name in a directory of a version.
    pub(super) fn version_child(&self, dir: &Version, name: &[u8]) -> FsResult<Option<Object>> {
        let (TreeEntry::Directory(tree), Ok(name)) = (dir.entry, Name::new(name)) else { return Ok(None) };
        let found = self.mirror()?.entry(tree, &name).map_err(|error| platform("lookup", dir, &error))?;
        Ok(found.map(|entry| Object::Version(dir.child(&name, entry))))
    }

    /// The text of a link of a version, as it is committed.
    pub(super) fn version_link(&self, link: &Version) -> FsResult<Vec<u8>> {
        match link.entry {
            TreeEntry::Link { blob, .. } => self.version_blob(link, blob),
            _ => Err(FsError::new("readlink", link, Cause::Invalid("not a symlink".into()))),
        }
    }

    pub(super) fn version_blob(&self, of: &Version, blob: BlobId) -> FsResult<Vec<u8>> {
        self.mirror()?.blob(blob).map_err(|error| platform("read", of, &error))
    }

    pub(super) fn mirror(&self) -> FsResult<&Arc<Mirror>> {
        let mirror = self.0.reader.repository().mirror();
        mirror.ok_or_else(|| FsError::new("lookup", ".pantheon/at", Cause::NotFound))
    }
}

/// The attributes of an object of a version. The times are those of the commit.
pub(super) fn version_attr(version: &Version) -> Attr {
    let (perm, size) = match version.entry {
        TreeEntry::Directory(_) | TreeEntry::Submodule => (0o555, 0),
        TreeEntry::File { executable: true, size, .. } => (0o555, size),
        TreeEntry::File { size, .. } => (0o444, size),
        TreeEntry::Link { size, .. } => (0o777, size),
    };
    let kind: FileKind = version.entry.kind();
    Attr { kind, size, perm, mtime: version.shown.time, atime: version.shown.time }
}

fn platform(op: &'static str, object: impl std::fmt::Display, error: &MirrorError) -> FsError {
    FsError::new(op, object, Cause::Platform(error.to_string()))
}

/// A failed fetch is logged: what is known counts.
fn logged(fetched: Result<(), MirrorError>) {
    if let Err(error) = fetched {
        log::info!("{error}");
    }
}

/// Runs a fetch in the background, and waits for it as long as the caller may.
fn limited(wait: Wait, mirror: &Arc<Mirror>, fetch: impl FnOnce(&Mirror) -> Result<(), MirrorError> + Send + 'static) {
    let Wait::Until(deadline) = wait else { return };
    let (done, ended) = mpsc::channel();
    let mirror = mirror.clone();
    pool::background().run(move || {
        logged(fetch(&mirror));
        // Nobody waits any more if the time limit was reached.
        let _ = done.send(());
    });
    if ended.recv_timeout(deadline.0.saturating_duration_since(Instant::now())).is_err() {
        log::info!("the repository was not fetched in time; what is on this machine is shown");
    }
}
