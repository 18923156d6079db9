//! One directory per environment, whatever the site is called: `UUID.ENV`. The readable name beside it (`mysite.dev`) is a
//! link. Directories that older versions named by the site are moved over before the environment is mounted.

use std::fs;
use std::io;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::lock::lock;
use super::plan::Plan;
use super::private_dir::open_own;
use crate::durable;
use crate::write::{Backups, Rejects, has_unsent, rejects_in};

/// Makes the state and the cache of an environment be where its id says. The names in `plan.names` are those that the site
/// has or had, the present one first.
///
/// # Errors
///
/// Where an older directory is mounted now, or cannot be moved: nothing is lost then, and nothing may be mounted.
pub(super) fn take_over(around: &Environ, plan: &Plan) -> CliResult<()> {
    let Some(present) = plan.names.first() else { return Ok(()) };
    let root = around.state_root()?;
    let failed = |e: io::Error| Failure::new(Exit::Failed, format!("{}: {e}", root.display()));
    // Two mounts that begin at a time must not both move.
    let moving = fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(root.join("moving"))
        .map_err(failed)?;
    rustix::fs::flock(&moving, rustix::fs::FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
    for name in &plan.names {
        let (old, new) = (root.join(name), root.join(&plan.key));
        if is_own_dir(&old) && old != new {
            move_state(&old, &new, plan)?;
        }
        move_cache(&around.cache_path(name), &around.cache_path(&plan.key));
    }
    if let Err(error) = link(&root, present, &plan.key) {
        log::info!("{}: {error}", root.join(present).display());
    }
    Ok(())
}

/// Whether it is a directory of this user, and not a symbolic link to one.
fn is_own_dir(dir: &Path) -> bool {
    dir.symlink_metadata().is_ok_and(|meta| meta.is_dir()) && open_own(dir).is_ok()
}

fn move_state(old: &Path, new: &Path, plan: &Plan) -> CliResult<()> {
    let failed = |e: io::Error| {
        let text = format!("{}: cannot be moved to {}: {e}", old.display(), new.display());
        Failure::new(Exit::Failed, text)
    };
    let _unused = lock(old, &plan.source)?;
    if new.symlink_metadata().is_err() {
        fs::rename(old, new).and_then(|()| durable::sync_dir(parent(new))).map_err(failed)?;
        log::info!("{}: is now {}", old.display(), new.display());
        return Ok(());
    }
    if !is_own_dir(new) {
        return Ok(());
    }
    let _unused = lock(new, &plan.source)?;
    if waits(old) && waits(new) {
        log::warn!(
            "{}: changes of this environment wait there, too; they are sent by the mount after this one",
            old.display()
        );
        return Ok(());
    }
    merge(old, new).map_err(failed)
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// Whether something was not sent yet, or cannot be told not to be.
fn waits(dir: &Path) -> bool {
    has_unsent(dir).unwrap_or(true)
}

/// Brings everything of `old` into `new`, step by step, so that what was interrupted can be done again. One of the two has
/// nothing to send.
fn merge(old: &Path, new: &Path) -> io::Result<()> {
    let rejects = Rejects::new(new);
    for copy in rejects_in(old) {
        let file = old.join(&copy.file);
        rejects.keep(copy.kind, &copy.path, &fs::File::open(&file)?)?;
        fs::remove_file(file)?;
    }
    Backups::open(new)?.adopt(old)?;
    if waits(old) {
        let spool = old.join("spool");
        if spool.is_dir() {
            if new.join("spool").is_dir() {
                fs::rename(new.join("spool"), free_name(new, "spool-unused"))?;
            }
            fs::rename(spool, new.join("spool"))?;
        }
        fs::rename(old.join("journal"), new.join("journal"))?;
    }
    // The rest is of no use but to people: copies that were reverted, the log.
    let name = old.file_name().unwrap_or_default().to_string_lossy();
    fs::rename(old, free_name(new, &format!("was-{name}")))?;
    durable::sync_dir(new)?;
    durable::sync_dir(parent(new))?;
    log::warn!("{}: its copies and unsent changes are in {} now", old.display(), new.display());
    Ok(())
}

fn free_name(dir: &Path, name: &str) -> PathBuf {
    let numbered = |n: u32| dir.join(if n == 0 { name.to_owned() } else { format!("{name}.{n}") });
    (0..).map(numbered).find(|path| path.symlink_metadata().is_err()).unwrap_or_else(|| dir.join(name))
}

/// A cache may be deleted at any time.
fn move_cache(old: &Path, new: &Path) {
    if old == new || !is_own_dir(old) {
        return;
    }
    let done = if new.symlink_metadata().is_err() { fs::rename(old, new) } else { fs::remove_dir_all(old) };
    if let Err(error) = done {
        log::info!("{}: {error}", old.display());
    }
}

/// Beside the directory, the name that people know; former ones go.
fn link(root: &Path, name: &str, key: &str) -> io::Result<()> {
    for entry in fs::read_dir(root)?.flatten() {
        let leads_here = fs::read_link(entry.path()).is_ok_and(|to| to == Path::new(key));
        if leads_here && entry.file_name() != name {
            fs::remove_file(entry.path())?;
        }
    }
    let link = root.join(name);
    match fs::read_link(&link) {
        Ok(to) if to == Path::new(key) => return Ok(()),
        // The name of another site before.
        Ok(_) => fs::remove_file(&link)?,
        Err(_) => {}
    }
    symlink(key, link)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Area;
    use crate::path::RemotePath;
    use crate::write::{Action, Journal, Op, RejectKind, backups_in};

    fn state(root: &Path, name: &str) -> PathBuf {
        let dir = root.join(name);
        fs::create_dir_all(&dir).expect("made");
        drop(Journal::open(&dir).expect("opened"));
        dir
    }

    #[test]
    fn two_directories_of_one_environment_become_one() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let (old, new) = (state(root.path(), "mysite.dev"), state(root.path(), "id.dev"));
        let path = |text: &str| RemotePath::parse(text).expect("valid");
        for (dir, text) in [(&old, "old"), (&new, "new")] {
            let file = root.path().join("content");
            fs::write(&file, text).expect("written");
            let opened = fs::File::open(&file).expect("opened");
            Rejects::new(dir).keep(RejectKind::Conflict, &path("code/a"), &opened).expect("kept");
            let backups = Backups::open(dir).expect("opened");
            let at = if text == "old" { 2 } else { 1 };
            backups.bytes(&path(text), b"same", 0o100_644, at, None).expect("kept");
            backups.bytes(&path("both"), text.as_bytes(), 0o100_644, at, None).expect("kept");
        }
        let journal = Journal::open(&old).expect("opened");
        let op =
            Op { area: Area::Code, path: path("code/dir"), action: Action::MakeDir { perm: 0o755 }, ino: 0, at: 1 };
        journal.add(op).expect("recorded");
        fs::write(old.join("spool/1"), "unsent").expect("written");
        merge(&old, &new).expect("merged");
        assert!(!old.exists() && new.join("was-mysite.dev").is_dir());
        assert_eq!(fs::read(new.join("spool/1")).expect("there"), b"unsent");
        assert!(waits(&new));
        assert_eq!(rejects_in(&new).iter().filter(|copy| copy.path == path("code/a")).count(), 2);
        let (copies, _) = backups_in(&new).expect("read");
        assert_eq!(
            copies.iter().map(|copy| (copy.path.to_string(), copy.at)).collect::<Vec<_>>(),
            [("both".to_owned(), 2), ("new".to_owned(), 1), ("old".to_owned(), 2)]
        );
        assert_eq!(fs::read_dir(new.join("kept/blobs")).expect("listed").count(), 2, "'same' and the newer of both");
    }

    #[test]
    fn the_readable_name_follows_the_site() {
        let root = tempfile::tempdir().expect("a temporary directory");
        let names = || {
            let all = fs::read_dir(root.path()).expect("listed").flatten();
            let mut all: Vec<_> = all.map(|entry| (entry.file_name(), fs::read_link(entry.path()).ok())).collect();
            all.sort();
            all
        };
        link(root.path(), "mysite.dev", "id.dev").expect("linked");
        link(root.path(), "renamed.dev", "id.dev").expect("linked");
        assert_eq!(names(), [("renamed.dev".into(), Some("id.dev".into()))]);
        link(root.path(), "renamed.dev", "other.dev").expect("linked");
        assert_eq!(names(), [("renamed.dev".into(), Some("other.dev".into()))]);
        // Only links are replaced.
        fs::create_dir(root.path().join("old.dev")).expect("made");
        assert!(link(root.path(), "old.dev", "id.dev").is_err());
    }
}
