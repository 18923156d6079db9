//! Where the history that is on this machine ends.

use std::collections::{BTreeSet, HashSet};

use git2::{ObjectType, Odb, Oid, Repository};

use super::MirrorError;

/// The history that can be reached from the references of a repository.
pub(super) struct Boundary {
    /// Commits with a parent that is missing.
    pub(super) ends: BTreeSet<Oid>,
    /// Number of commits.
    pub(super) commits: usize,
}

/// Walks the whole history. Commits are read as they are stored: libgit2 would leave out the parents of those that the file
/// `shallow` names.
pub(super) fn history(repo: &Repository) -> Result<Boundary, MirrorError> {
    let odb = repo.odb()?;
    let references = repo.references()?.flatten().filter_map(|reference| reference.target());
    let mut open: Vec<Oid> = references.collect();
    open.extend(repo.refname_to_id("HEAD"));
    let (mut seen, mut ends, mut commits) = (HashSet::new(), BTreeSet::new(), 0);
    while let Some(oid) = open.pop() {
        if !seen.insert(oid) {
            continue;
        }
        let Some(next) = leads_to(&odb, oid) else { continue };
        let (is_commit, next) = next;
        commits += usize::from(is_commit);
        if is_commit && next.iter().any(|parent| !odb.exists(*parent)) {
            ends.insert(oid);
        }
        open.extend(next);
    }
    Ok(Boundary { ends, commits })
}

/// The parents of a commit, or the object of a tag; `None` for other objects and those that are missing.
fn leads_to(odb: &Odb<'_>, oid: Oid) -> Option<(bool, Vec<Oid>)> {
    let object = odb.read(oid).ok()?;
    let key: &[u8] = match object.kind() {
        ObjectType::Commit => b"parent ",
        ObjectType::Tag => b"object ",
        _ => return None,
    };
    let lines = object.data().split(|&b| b == b'\n').take_while(|line| !line.is_empty());
    let named = lines.filter_map(|line| line.strip_prefix(key));
    let next = named.filter_map(|hex| Oid::from_str(std::str::from_utf8(hex).ok()?).ok()).collect();
    Some((object.kind() == ObjectType::Commit, next))
}
