//! The committed files: the tree of the deployed commit, in the local copy of the site's repository.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::env::{Belief, Env};
use crate::mirror::{Committed, Ignored, Mirror, Tree};
use crate::path::RemotePath;

/// Cheap to clone. Without a repository every query returns nothing.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    mirror: Option<Arc<Mirror>>,
    env: Env,
    /// The ignore rules of the commit, once they were read.
    rules: Mutex<Option<Arc<Ignored>>>,
}

impl Repository {
    pub fn new(mirror: Option<Arc<Mirror>>, env: Env) -> Self {
        Self(Arc::new(Inner { mirror, env, rules: Mutex::default() }))
    }

    pub fn mirror(&self) -> Option<&Arc<Mirror>> {
        self.0.mirror.as_ref()
    }

    /// Ends what is being fetched. What is on this machine can still be read.
    pub fn close(&self) {
        self.mirror().iter().for_each(|mirror| mirror.close());
    }

    /// What is believed of the environment, as the platform last reported it.
    pub fn belief(&self) -> Belief {
        self.0.env.belief()
    }

    /// The deployed commit, as the platform last reported it.
    pub fn commit(&self) -> Option<String> {
        self.0.env.belief().target_commit
    }

    /// The ignore rules of the commit, if they were read.
    pub fn rules(&self) -> Option<Arc<Ignored>> {
        self.0.rules.lock().clone()
    }

    /// The committed files. Fetches the commit if it is not on this machine, which may take as long as `git fetch`
    /// needs.
    pub fn tree(&self) -> Option<Arc<Tree>> {
        let (mirror, commit) = (self.mirror()?, self.commit()?);
        if !mirror.has_tree(&commit) {
            match mirror.ensure(&commit).and_then(|()| mirror.ignored(&commit)) {
                Ok(rules) => *self.0.rules.lock() = Some(Arc::new(rules)),
                Err(error) => {
                    log::info!("{error}");
                    return None;
                }
            }
        }
        mirror.tree(&commit).ok()
    }

    /// Files of the commit that git converts on checkout; all files if git fails to tell.
    pub fn converted(&self) -> Arc<BTreeSet<RemotePath>> {
        let (Some(mirror), Some(commit), Some(tree)) = (self.mirror(), self.commit(), self.tree()) else {
            return Arc::default();
        };
        mirror.converted(&commit).map(Arc::new).unwrap_or_else(|error| {
            log::info!("{error}: size and age prove nothing about the files of {commit}");
            Arc::new(tree.keys().cloned().collect())
        })
    }

    /// Whether the committed files are on this machine.
    pub fn is_known(&self) -> bool {
        self.mirror().zip(self.commit()).is_some_and(|(mirror, commit)| mirror.has_tree(&commit))
    }

    /// The content of a committed file.
    ///
    /// # Errors
    ///
    /// A text for the log: there is no repository, or it does not have the object.
    pub fn blob(&self, file: &Committed) -> Result<Vec<u8>, String> {
        let mirror = self.mirror().ok_or("there is no repository")?;
        mirror.blob(file.blob).map_err(|e| e.to_string())
    }

    /// The names directly below a committed directory, each with its file or `None` for a directory.
    pub fn children(&self, dir: &RemotePath) -> Vec<(RemotePath, Option<Committed>)> {
        let Some(tree) = self.tree() else { return Vec::new() };
        let (mut out, mut dirs) = (Vec::new(), BTreeSet::new());
        for (path, file) in tree.iter() {
            let Some(rest) = path.strip_prefix(dir) else { continue };
            let mut names = rest.names();
            let (Some(first), more) = (names.next(), names.next().is_some()) else { continue };
            let child = dir.join(&first);
            if more {
                if dirs.insert(child.clone()) {
                    out.push((child, None));
                }
            } else {
                out.push((child, Some(*file)));
            }
        }
        out
    }

    /// The object at a committed path: `Some(None)` is a directory, `None` is nothing.
    pub fn object(&self, path: &RemotePath) -> Option<Option<Committed>> {
        let tree = self.tree()?;
        if let Some(file) = tree.get(path) {
            return Some(Some(*file));
        }
        let below = tree.keys().any(|other| other != path && other.starts_with(path));
        (path.is_root() || below).then_some(None)
    }
}
