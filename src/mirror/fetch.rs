//! Fetching, by the `git` program. Only one fetch runs in a directory at a time, across processes: the git of a killed
//! mount keeps running for a moment, and a killed git leaves locks that would block every later one.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process_group};

use super::{Mirror, MirrorError};

/// Time limit of a fetch, and of the wait for another one.
const FETCH_LIMIT: Duration = Duration::from_secs(120);
/// Time limit of fetching the whole history.
const HISTORY_LIMIT: Duration = Duration::from_secs(3600);
/// How long git may take to remove its locks when it is told to end.
const END_LIMIT: Duration = Duration::from_secs(2);
/// Depths of the parts in which the history is fetched; the last part is the rest.
const HISTORY_DEPTHS: [u32; 3] = [100, 1000, 10_000];
/// The depth that git takes for all of the history.
const WHOLE_HISTORY: u32 = i32::MAX as u32;
/// Depths of the fetches of branches and tags: the deployed commit is usually the last one. If it is not (more
/// commits were pushed just now), the larger depth is fetched.
const DEPTHS: [u32; 2] = [1, 50];
/// More packs are merged: each fetch adds one, and each is searched for each object.
const MAX_PACKS: usize = 16;
/// Why nothing is fetched after [`Mirror::close`].
const ENDS: &str = "the mount ends";
/// All branches and tags.
const ALL_NAMES: [&str; 2] = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];

impl Mirror {
    /// Makes sure that the commit is in the local copy, and fetches it if it is not.
    pub fn ensure(&self, commit: &str) -> Result<(), MirrorError> {
        if self.has(commit) {
            return Ok(());
        }
        let _one = self.fetching.lock();
        if self.has(commit) {
            return Ok(());
        }
        let lock = self.lock_dir()?;
        for depth in self.depths() {
            if self.has(commit) {
                break;
            }
            self.fetch(depth, &ALL_NAMES, FETCH_LIMIT, &lock)?;
        }
        if self.has(commit) {
            return Ok(());
        }
        Err(MirrorError::NoCommit(commit.to_owned()))
    }

    /// The depths of the fetches of branches and tags. A depth would cut off the history of a complete copy.
    fn depths(&self) -> Vec<Option<u32>> {
        if self.is_shallow() { DEPTHS.map(Some).to_vec() } else { vec![None] }
    }

    /// Fetches branches and tags, each with its last commit at least. The caller holds `fetching`.
    pub(super) fn fetch_names(&self) -> Result<(), MirrorError> {
        let lock = self.lock_dir()?;
        self.fetch(self.depths().first().copied().flatten(), &ALL_NAMES, FETCH_LIMIT, &lock)
    }

    /// Fetches one commit by its hash, of whatever branch or of none, without its history. A platform that gives only what
    /// branches and tags name is asked for these, and the commit is found if it is not old.
    ///
    /// # Errors
    ///
    /// The platform does not have or give it, or cannot be reached.
    pub fn fetch_commit(&self, hash: &str) -> Result<(), MirrorError> {
        {
            let _one = self.fetching.lock();
            if self.has(hash) {
                return Ok(());
            }
            let lock = self.lock_dir()?;
            // A complete copy stays one: what is missing of the history comes along.
            let depth = self.is_shallow().then_some(1);
            if let Err(error) = self.fetch(depth, &[hash], FETCH_LIMIT, &lock) {
                log::debug!("{hash}: {error}");
            }
        }
        self.ensure(hash)
    }

    /// Whether parts of the history are missing. An empty copy has none.
    fn is_shallow(&self) -> bool {
        self.config.dir.join("shallow").exists() || self.repo().is_ok_and(|repo| repo.is_empty().unwrap_or(true))
    }

    /// Fetches the next part of the history, and says whether all of it is here. In parts, because other fetches wait.
    pub fn deepen(&self, part: usize) -> Result<bool, MirrorError> {
        let _one = self.fetching.lock();
        if self.is_shallow() {
            let lock = self.lock_dir()?;
            let depth = HISTORY_DEPTHS.get(part).copied().unwrap_or(WHOLE_HISTORY);
            self.fetch(Some(depth), &ALL_NAMES, HISTORY_LIMIT, &lock)?;
        }
        Ok(!self.is_shallow())
    }

    /// Ends the fetch that runs, and allows no other. When this returns, nothing of the mount writes into the local copy.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Relaxed);
        drop(self.fetching.try_lock_for(2 * END_LIMIT));
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// Waits for other fetches, and removes the locks of killed ones.
    fn lock_dir(&self) -> Result<File, MirrorError> {
        drop(self.repo()?);
        let path = self.config.dir.join("fetching");
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        let until = Instant::now() + FETCH_LIMIT;
        while let Err(error) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if error != rustix::io::Errno::WOULDBLOCK || Instant::now() > until || self.is_closing() {
                return Err(io::Error::from(error).into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        remove_locks(&self.config.dir, 0)?;
        Ok(file)
    }

    /// Fetches references or commits with their history: of this many commits, or all that is new.
    fn fetch(&self, depth: Option<u32>, wanted: &[&str], limit: Duration, lock: &File) -> Result<(), MirrorError> {
        drop(self.repo()?);
        // As a pack, what is fetched is there as a whole or not at all. Single objects are visible one after another, the
        // commit before its files.
        let mut fetch = self.git(&["-c", "fetch.unpackLimit=1", "fetch"]);
        fetch.args(["--quiet", "--prune", "--no-tags", "--no-write-fetch-head"]);
        fetch.args(depth.map(|depth| format!("--depth={depth}"))).arg("--").arg(&self.config.url).args(wanted);
        fetch.env("GIT_SSH_COMMAND", &self.config.ssh_command).env("GIT_TERMINAL_PROMPT", "0");
        self.run(fetch, limit, lock)?;
        if packs(&self.config.dir) > MAX_PACKS {
            // Only the small ones: those who read now find the objects where they are.
            let repack = self.git(&["repack", "--geometric=2", "-d", "-q"]);
            if let Err(error) = self.run(repack, limit, lock) {
                log::info!("packs were not merged: {error}");
            }
        }
        Ok(())
    }

    fn git(&self, args: &[&str]) -> Command {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.config.dir).args(["-c", "gc.auto=0"]).args(args).current_dir("/");
        command
    }

    /// Runs git until it ends, the time is over, or the mount ends.
    fn run(&self, mut command: Command, limit: Duration, lock: &File) -> Result<(), MirrorError> {
        let failed = |detail: String| MirrorError::Fetch { url: self.config.url.clone(), detail };
        if self.is_closing() {
            return Err(failed(ENDS.to_owned()));
        }
        // Git does not read its stdin; as an open descriptor it keeps the lock as long as git runs, also after this
        // process ends.
        command.stdin(lock.try_clone()?).stdout(Stdio::null()).stderr(Stdio::piped());
        // Its own group, so that ssh and what git starts end with it.
        let mut child = command.process_group(0).spawn().map_err(|e| failed(format!("git: {e}")))?;
        let until = Instant::now() + limit;
        loop {
            match child.try_wait().map_err(|e| failed(e.to_string()))? {
                Some(status) if status.success() => return Ok(()),
                Some(_) => {
                    let mut said = String::new();
                    if let Some(mut errors) = child.stderr.take() {
                        // If reading fails, the part that was read is used.
                        let _ = io::Read::read_to_string(&mut errors, &mut said);
                    }
                    let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("git failed");
                    return Err(failed(last.to_owned()));
                }
                None if self.is_closing() => {
                    end(&mut child);
                    return Err(failed(ENDS.to_owned()));
                }
                None if Instant::now() > until => {
                    end(&mut child);
                    return Err(failed(format!("not done within {} s", limit.as_secs())));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }
}

/// Number of packs in a local copy.
fn packs(dir: &Path) -> usize {
    let entries = fs::read_dir(dir.join("objects/pack")).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|ext| ext == "pack")).count()
}

/// Has git and all that it started end: first with the signal at which it removes its locks.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    for (signal, limit) in [(Signal::TERM, END_LIMIT), (Signal::KILL, Duration::MAX)] {
        // It may have ended by itself meanwhile.
        let _ = group.map(|group| kill_process_group(group, signal));
        let began = Instant::now();
        while began.elapsed() < limit {
            if !matches!(child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Removes git's locks, at the top and beside the refs. The processes that made them have ended.
fn remove_locks(dir: &Path, depth: u32) -> io::Result<()> {
    for entry in fs::read_dir(dir)?.flatten() {
        let (path, kind) = (entry.path(), entry.file_type()?);
        if kind.is_file() && path.extension().is_some_and(|ext| ext == "lock") {
            log::info!("{}: this lock was left by a killed git and is removed", path.display());
            fs::remove_file(path)?;
        } else if kind.is_dir() && (depth > 0 || entry.file_name() == "refs") && depth < 8 {
            remove_locks(&path, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use git2::Repository;

    use super::*;
    use crate::mirror::MirrorConfig;
    use crate::path::RemotePath;

    #[test]
    fn no_fetch_outlives_the_mount() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (ssh, pid) = (dir.path().join("ssh"), dir.path().join("pid"));
        // A server that never answers.
        let script = format!("#!/bin/sh\necho $$ > {0}.new && mv {0}.new {0}\nexec sleep 100\n", pid.display());
        fs::write(&ssh, script).expect("written");
        let config = MirrorConfig {
            dir: dir.path().join("mirror"),
            url: "ssh://example.com/repository.git".to_owned(),
            ssh_command: format!("sh {}", ssh.display()),
        };
        let mirror = Mirror::new(config);
        std::thread::scope(|scope| {
            let fetching = scope.spawn(|| mirror.ensure(&"1".repeat(40)));
            let began = Instant::now();
            while !pid.exists() {
                assert!(began.elapsed() < Duration::from_secs(30), "git did not start ssh");
                std::thread::sleep(Duration::from_millis(5));
            }
            mirror.close();
            let error = fetching.join().expect("no panic").expect_err("it was ended");
            assert!(error.to_string().contains("the mount ends"), "{error}");
        });
        let pid = fs::read_to_string(pid).expect("a process");
        // Its parent may not have asked yet how it ended.
        let state = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "{state}");
        assert!(mirror.ensure(&"1".repeat(40)).is_err(), "and none begins");
    }

    #[test]
    fn commits_are_fetched_by_their_hash_and_branches_by_their_names() {
        let (there, _, commit) = super::super::sample(b"x");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let config = MirrorConfig {
            dir: dir.path().join("mirror"),
            url: there.path().to_string_lossy().into_owned(),
            ssh_command: String::new(),
        };
        let mirror = Mirror::new(config);
        mirror.fetch_commit(&commit).expect("of no branch");
        assert!(mirror.has(&commit));
        assert!(mirror.fetch_commit(&"1".repeat(40)).is_err(), "there is none");
        let name = RemotePath::parse("feature/x").expect("valid");
        assert!(mirror.names_age().is_none() && mirror.revision(&name).expect("readable").is_none());
        let repo = git2::Repository::open(there.path()).expect("there");
        let id = git2::Oid::from_str(&commit).expect("a hash");
        for branch in ["refs/heads/feature/x", "refs/heads/master"] {
            repo.reference(branch, id, false, "made").expect("made");
        }
        mirror.renew_names(Duration::from_secs(60)).expect("fetched");
        assert!(mirror.revision(&name).expect("readable").is_some());
        repo.find_reference("refs/heads/feature/x").and_then(|mut found| found.delete()).expect("deleted");
        mirror.renew_names(Duration::from_secs(60)).expect("nothing to do");
        assert!(mirror.revision(&name).expect("readable").is_some(), "not asked again within a minute");
        mirror.renew_names(Duration::ZERO).expect("fetched");
        assert!(mirror.revision(&name).expect("readable").is_none());
    }

    #[test]
    fn what_is_fetched_is_there_as_a_whole_or_not_at_all() {
        let (there, _, commit) = super::super::sample(b"x");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = there.path().to_string_lossy().into_owned();
        let mirror =
            Mirror::new(MirrorConfig { dir: dir.path().to_owned(), url: url.clone(), ssh_command: String::new() });
        mirror.fetch_commit(&commit).expect("fetched");
        let objects = dir.path().join("objects");
        let single = fs::read_dir(&objects).expect("listed").filter(|entry| {
            entry.as_ref().is_ok_and(|entry| !["pack", "info"].map(Into::into).contains(&entry.file_name()))
        });
        assert_eq!(single.count(), 0, "objects outside of packs");
    }

    #[test]
    fn the_packs_of_many_fetches_are_merged_while_they_are_read() {
        let (there, _, first) = super::super::sample(b"x");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let url = there.path().to_string_lossy().into_owned();
        let mirror = Mirror::new(MirrorConfig { dir: dir.path().to_owned(), url, ssh_command: String::new() });
        let repo = Repository::open(there.path()).expect("there");
        let mut commits = vec![first];
        for n in 0..MAX_PACKS + 4 {
            let mut tree = repo.treebuilder(None).expect("begun");
            tree.insert("a.php", repo.blob(format!("{n}").as_bytes()).expect("written"), 0o100_644).expect("added");
            let tree = repo.find_tree(tree.write().expect("written")).expect("there");
            let who = git2::Signature::now("x", "x@x").expect("valid");
            commits.push(repo.commit(None, &who, &who, "next", &tree, &[]).expect("committed").to_string());
        }
        for commit in &commits {
            mirror.fetch_commit(commit).expect("fetched");
            assert_eq!(mirror.tree(commit).expect("complete").len(), 1);
        }
        assert!((1..=MAX_PACKS).contains(&packs(dir.path())), "{}", packs(dir.path()));
        for commit in &commits {
            assert_eq!(mirror.tree(commit).expect("complete").len(), 1);
        }
    }

    #[test]
    fn a_tree_that_lacks_a_file_is_an_error_until_it_is_there() {
        let (dir, mirror, commit) = super::super::sample(b"x");
        let blob = crate::mirror::hash(b"x").expect("hashed").to_string();
        let object = dir.path().join("objects").join(&blob[..2]).join(&blob[2..]);
        let aside = dir.path().join("aside");
        fs::rename(&object, &aside).expect("moved");
        let error = mirror.tree(&commit).expect_err("incomplete");
        assert!(error.to_string().contains("a.php"), "{error}");
        fs::rename(&aside, &object).expect("moved back");
        assert_eq!(mirror.tree(&commit).expect("complete").len(), 1);
    }

    #[test]
    fn locks_of_dead_gits_go_and_one_fetches_at_a_time() {
        let (dir, mirror, _) = super::super::sample(b"x");
        fs::create_dir_all(dir.path().join("refs/heads")).expect("made");
        let left = ["shallow.lock", "packed-refs.lock", "refs/heads/master.lock"].map(|name| dir.path().join(name));
        left.iter().for_each(|path| fs::write(path, "").expect("written"));
        let lock = mirror.lock_dir().expect("free");
        assert!(left.iter().all(|path| !path.exists()));
        let other = File::open(dir.path().join("fetching")).expect("there");
        assert!(flock(&other, FlockOperation::NonBlockingLockExclusive).is_err());
        drop(lock);
        // A child process that another thread is starting holds the lock until its exec.
        let until = Instant::now() + Duration::from_secs(10);
        while flock(&other, FlockOperation::NonBlockingLockExclusive).is_err() {
            assert!(Instant::now() < until, "it is free again");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
