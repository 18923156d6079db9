//! Follows the environment with the `.git` of the mount: it is shown once the committed files are known, and kept at the
//! commit that runs. A thread of its own waits for the network and runs git. Also answers git what changed.

use std::collections::HashMap;
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use super::git::Shown;
use super::state::{Dot, Inner};
use crate::control::EnvKind;
use crate::env::Belief;
use crate::error::Wait;
use crate::inode::{Change, Child, ROOT};
use crate::mirror::Committed;
use crate::path::{Name, RemotePath};
use crate::reader::Reader;
use crate::upload::LOCAL_ONLY_PATTERNS;
use crate::view::{GIT_FILE, Renew};

/// How long the first index waits for proofs, which spare git reading the files.
const PROOFS_LIMIT: Duration = Duration::from_secs(20);
/// Steps with nothing on its way to the server before the tree is listed for the first index.
const QUIET_STEPS: usize = 3;
/// Pauses of the thread: while something is missing, after a failure, and when nothing happens.
const SOON: Duration = Duration::from_millis(300);
const RETRY: Duration = Duration::from_secs(3);
const IDLE: Duration = Duration::from_secs(60);

/// How far the thread has come.
struct Progress {
    began: Instant,
    /// Parts of the history that were fetched.
    deepened: usize,
    /// Steps in a row with nothing on its way to the server.
    quiet: usize,
}

impl Dot {
    /// Starts the thread that shows `.git` and follows the environment with it.
    pub fn follow_with_git(&self) {
        let Some(shown) = self.0.config.git.shown() else { return };
        let woken = shown.woken();
        let weak = Arc::downgrade(&self.0);
        let run = move || run(&weak, &woken);
        if let Err(error) = std::thread::Builder::new().name("git".into()).spawn(run) {
            shown.status.lock().trouble = Some(error.to_string());
        }
    }

    /// Whether the server has a `.git` in the code directory, as far as is known.
    pub(super) fn server_has_git(&self) -> bool {
        let known = |name| matches!(self.0.view.child(ROOT, &name), Child::Positive(_));
        Name::new(GIT_FILE).is_ok_and(known)
    }

    /// The answer to git's question what changed since a token: the next token, and paths that end with a zero byte. Each
    /// path comes as that of a file and as that of a directory, because a name may stand for both in turn.
    pub(super) fn changes_since(&self, token: &[u8], wait: Wait) -> Vec<u8> {
        self.renew_listings(wait);
        let since = self.0.view.since(token);
        let mut out = since.token.into_bytes();
        out.push(0);
        match since.paths {
            None => out.extend(b"/\0"),
            // An empty path is not in the protocol.
            Some(paths) if paths.contains(&RemotePath::root()) => out.extend(b"/\0"),
            Some(paths) => {
                // Git's own file is announced in each mount, and git does not look at it.
                for path in paths.iter().map(RemotePath::as_bytes).filter(|path| *path != GIT_FILE) {
                    out.extend([path, b"\0", path, b"/\0"].concat());
                }
            }
        }
        out
    }

    /// Lists the directories again whose names are older than the mount may show. Git would ask for each of them; if one
    /// cannot be listed, what is known is shown, as git would be shown it.
    fn renew_listings(&self, wait: Wait) {
        let view = &self.0.view;
        let Wait::Until(deadline) = wait else { return };
        if !view.is_offline() && view.sweep(Renew::Outdated, |dir| self.is_surveyed(dir), || deadline).is_err() {
            log::info!("not every directory could be listed again in time for git");
        }
    }

    /// One step of the thread. Returns the pause until the next one.
    fn git_step(&self, shown: &Shown, progress: &mut Progress) -> Result<Duration, String> {
        let belief = self.0.env.belief();
        let branch = branch(&belief);
        shown.status.lock().branch.clone_from(&branch);
        if !shown.status.lock().shown && shown.dir.is_complete() {
            // Of an earlier mount: there is something to work with at once, without the network, too.
            self.show_git(shown, branch.as_deref())?;
        }
        if shown.status.lock().shown {
            shown.dir.exclude(&self.excluded()).map_err(|error| error.to_string())?;
        }
        let commit = belief.target_commit.ok_or("the platform has not said which commit runs")?;
        if !self.0.reader.is_learned(&commit) {
            shown.status.lock().trouble = Some("the commit that runs is not on this machine yet".into());
            return Ok(SOON);
        }
        if !shown.dir.is_complete() {
            let waits = !self.0.reader.is_proved_as_far_as_it_goes() && progress.began.elapsed() < PROOFS_LIMIT;
            // What is on its way to the server would be listed half way.
            let busy = !self.0.upload.waiting().is_empty() || !self.0.upload.dirty_files().is_empty();
            progress.quiet = if busy { 0 } else { progress.quiet + 1 };
            if waits || progress.quiet < QUIET_STEPS {
                return Ok(SOON);
            }
            self.make_git(shown, branch.as_deref(), &commit)?;
        }
        let said = |error: crate::mirror::MirrorError| error.to_string();
        shown.dir.follow(branch.as_deref(), &commit).map_err(said)?;
        let (commits, complete) = shown.dir.history().map_err(said)?;
        {
            let mut status = shown.status.lock();
            (status.commits, status.complete, status.trouble) = (commits, complete, None);
        }
        if complete {
            return Ok(IDLE);
        }
        let mirror = self.0.reader.repository().mirror().ok_or("there is no repository")?;
        match mirror.deepen(progress.deepened) {
            Ok(_) => progress.deepened += 1,
            Err(error) => {
                shown.status.lock().trouble = Some(format!("older commits cannot be fetched: {error}"));
                return Ok(IDLE);
            }
        }
        Ok(SOON)
    }

    /// What git leaves out of `status`: what is never sent.
    fn excluded(&self) -> Vec<String> {
        let users = self.0.upload.local_names();
        let ours = ["/.pantheon/"].into_iter().chain(LOCAL_ONLY_PATTERNS);
        ours.chain(users.lines()).filter(|line| !line.starts_with("# ")).map(str::to_owned).collect()
    }

    fn make_git(&self, shown: &Shown, branch: Option<&str>, commit: &str) -> Result<(), String> {
        self.survey()?;
        shown.dir.prepare(branch, &self.excluded()).map_err(|error| error.to_string())?;
        shown.dir.follow(branch, commit).map_err(|error| error.to_string())?;
        let times = self.proved_times();
        let seen = |path: &RemotePath, _: &Committed| times.get(path).copied();
        shown.dir.first_index(commit, seen).map_err(|error| error.to_string())?;
        self.show_git(shown, branch)
    }

    fn show_git(&self, shown: &Shown, branch: Option<&str>) -> Result<(), String> {
        shown.dir.prepare(branch, &self.excluded()).map_err(|error| error.to_string())?;
        shown.status.lock().shown = true;
        if let Ok(name) = Name::new(GIT_FILE) {
            // The kernel may have cached the names of the root without it.
            self.0.view.touch_parents([&self.0.view.in_code(&RemotePath::root().join(&name))]);
            self.0.view.announce([Change::Entry { parent: ROOT, name }]);
        }
        Ok(())
    }

    /// The times of the files that are proved to have the committed content, as the mount shows them.
    fn proved_times(&self) -> HashMap<RemotePath, u32> {
        let (view, reader): (_, &Reader) = (&self.0.view, &self.0.reader);
        let proved = |ino| {
            let node = view.node(ino).filter(|node| node.attr.is_file() && !node.pinned)?;
            let version = node.server.filter(|version| *version == node.attr.version())?;
            reader.content().proved(&view.path(ino)?, version)?;
            Some((view.below_code(ino)?, node.attr.mtime))
        };
        view.walk().into_iter().filter_map(|(_, _, ino)| proved(ino)).collect()
    }
}

/// The branch whose commits the environment runs; `None` for Test and Live, which run tags.
fn branch(belief: &Belief) -> Option<String> {
    match belief.kind? {
        EnvKind::Dev => Some("master".into()),
        EnvKind::Multidev => belief.environment.clone(),
        EnvKind::Test | EnvKind::Live => None,
    }
}

fn run(weak: &Weak<Inner>, woken: &mpsc::Receiver<()>) {
    let mut progress = Progress { began: Instant::now(), deepened: 0, quiet: 0 };
    loop {
        let pause = match weak.upgrade().map(Dot) {
            Some(dot) if !dot.0.view.is_closing() => {
                let Some(shown) = dot.0.config.git.shown() else { return };
                dot.git_step(shown, &mut progress).unwrap_or_else(|why| {
                    log::debug!("git: {why}");
                    shown.status.lock().trouble = Some(why);
                    if shown.status.lock().shown { RETRY } else { SOON }
                })
            }
            _ => return,
        };
        if matches!(woken.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Disconnected)) {
            return;
        }
    }
}
