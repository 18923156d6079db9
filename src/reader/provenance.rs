//! Follows which commit the environment runs, so that `content` can take bytes from the repository where they are
//! proved to be equal. One thread fetches the commit, tells whether the code is frozen, and asks the server once for
//! its checksums.
//!
//! The proofs are stored in the file `proofs` of the cache directory: a line `pantheonfs proofs 1 CRC32`, then one
//! line per proof (see `content`). A damaged file is ignored.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak, mpsc};
use std::time::{Duration, Instant};

use super::following::Learned;
use super::state::{Inner, Reader};
use crate::attr::Area;
use crate::content::{self, Proofs, Provenance};
use crate::durable;
use crate::inode::Change;
use crate::vfiles::Origin;

/// The name in the cache directory, and the beginning of the file.
const FILE: &str = "proofs";
const HEADER: &str = "pantheonfs proofs 1 ";
/// Largest file that is read (bytes).
const MAX_BYTES: u64 = 256 * 1024 * 1024;
/// How often the deployed commit is checked without an event; also the pause after a failure.
const LOOK: Duration = Duration::from_secs(30);
const RETRY: Duration = Duration::from_secs(5);
/// How often the proofs of an earlier mount are compared with what the server has listed, and how long so often.
const CONFIRM: Duration = Duration::from_secs(1);
const CONFIRM_LIMIT: Duration = Duration::from_secs(120);
/// If less than this share of the files is proved (percent), the server is asked for its checksums.
const ENOUGH_PERCENT: u64 = 90;

impl Reader {
    /// Starts to follow the deployed commit, if there is a repository.
    pub fn follow_provenance(&self) {
        if self.0.content.proofs().is_none() {
            return;
        }
        if let Some(text) = self.proofs_file().and_then(|file| load(&file)) {
            self.0.content.carry_proofs(&text);
        }
        let weak = Arc::downgrade(&self.0);
        self.0.content.on_mismatch({
            let weak = weak.clone();
            move || {
                if let Some(inner) = weak.upgrade() {
                    Reader(inner).forget_content();
                }
            }
        });
        let (wake, woken) = mpsc::channel();
        *self.0.following.wake.lock() = Some(wake);
        let run = move || run(&weak, &woken);
        if let Err(error) = std::thread::Builder::new().name("provenance".into()).spawn(run) {
            log::warn!("everything is read from the server: {error}");
        }
    }

    /// Notes that the environment changed: the deployed commit is checked soon.
    pub fn provenance_soon(&self) {
        if let Some(wake) = &*self.0.following.wake.lock() {
            // The thread ends only while unmounting.
            let _ = wake.send(());
        }
    }

    fn learn_what_runs(&self) {
        let belief = self.0.repository.belief();
        let Some(commit) = belief.target_commit.clone() else { return };
        let frozen = belief.is_frozen() && belief.running.is_empty();
        let before = self.0.following.learned.lock().clone();
        if before.as_ref().is_some_and(|before| before.commit == commit && before.frozen.is_some() == frozen) {
            return;
        }
        if before.is_some_and(|before| before.frozen.is_some()) {
            // What was proved while the code was frozen is stored, so that it can be carried on.
            self.prove_all();
        }
        if let Err(why) = self.fetch_for_proofs(&commit) {
            // Proofs of the previously deployed commit do not apply any more.
            if let Some(proofs) = self.0.content.proofs() {
                proofs.unlearn();
            }
            log::info!("nothing is read from the repository: {why}");
            *self.0.following.trouble.lock() = Some(why);
            return;
        }
        let (Some(tree), Some(proofs)) = (self.0.repository.tree(), self.0.content.proofs()) else { return };
        // The belief was read before the fetch, the clock after it: the time is late enough for both.
        let frozen = frozen.then_some(belief.learned);
        proofs.learn(tree, frozen, self.0.repository.converted());
        *self.0.following.learned.lock() = Some(Learned { commit, frozen });
        *self.0.following.trouble.lock() = None;
        self.save_proofs();
    }

    /// Whether the files of the commit that runs are known.
    pub fn is_learned(&self, commit: &str) -> bool {
        self.0.following.learned.lock().as_ref().is_some_and(|learned| learned.commit == commit)
    }

    /// Whether no more proofs are to be expected than those that reading gives.
    pub fn is_proved_as_far_as_it_goes(&self) -> bool {
        let frozen = self.0.following.learned.lock().as_ref().is_some_and(|learned| learned.frozen.is_some());
        let figures = self.0.content.proof_figures().unwrap_or_default();
        let asked = self.0.config.attest.is_none() || self.0.following.attested.lock().is_some();
        frozen || asked || figures.proved * 100 >= figures.files * ENOUGH_PERCENT
    }

    /// Compares the proofs of an earlier mount with what the server has, as far as it has listed that to this mount, and
    /// asks for its checksums if too few files are proved.
    fn review_proofs(&self) {
        let (Some(proofs), Some(learned)) = (self.0.content.proofs(), self.0.following.learned.lock().clone()) else {
            return;
        };
        // Those whose version is shown as an earlier mount saw it: the listing that decides about them is on its way.
        let mut likely = 0;
        for (path, version) in proofs.unconfirmed() {
            let node = self.0.view.find(&path).and_then(|ino| self.0.view.node(ino));
            let there = node.as_ref().filter(|node| node.attr.is_file()).and_then(|node| node.server);
            let listed = |dir| self.0.view.listed(dir).is_some();
            if !path.parent().and_then(|dir| self.0.view.find(&dir)).is_some_and(listed) {
                likely += u64::from(there == Some(version));
            } else if node.is_none_or(|node| !node.pinned) {
                // While local changes wait, the listing says nothing about the file.
                proofs.confirm(&path, there);
            }
        }
        if learned.frozen.is_none() {
            self.attest_once(likely);
        }
        self.save_proofs();
    }

    /// The repository is fetched unasked only with an SSH key: wrong passwords or keys count as an intrusion attempt.
    fn fetch_for_proofs(&self, commit: &str) -> Result<(), String> {
        let mirror = self.0.repository.mirror().ok_or("there is no repository")?;
        let login = self.0.remote.session_info().map(|info| info.transport.login);
        match login {
            _ if mirror.has(commit) => Ok(()),
            None => Err("the connection is down, and the deployed commit is not on this machine".to_owned()),
            Some(login) if login.starts_with("password") => Err("the repository is fetched with an SSH key".to_owned()),
            Some(_) => mirror.ensure(commit).map_err(|error| error.to_string()),
        }
    }

    /// Looks up the proof of every known file, which stores it.
    fn prove_all(&self) {
        for (_, _, ino) in self.0.view.walk() {
            if let Some(node) = self.0.view.node(ino).filter(|node| node.attr.is_file() && !node.pinned)
                && let (Some(version), Some(path), Some(Area::Code)) =
                    (node.server, self.0.view.path(ino), self.0.view.area(ino))
            {
                self.0.content.proved(&path, version);
            }
        }
    }

    fn attest_once(&self, likely: u64) {
        let figures = self.0.content.proof_figures().unwrap_or_default();
        let enough = (figures.proved + likely) * 100 >= figures.files * ENOUGH_PERCENT;
        let (Some(config), false, false) = (&self.0.config.attest, enough, self.0.following.attested.lock().is_some())
        else {
            return;
        };
        let began = Instant::now();
        let server_secs = self.0.view.clock().server_floor();
        let asked = content::attest(config).map_err(|error| error.to_string());
        let result = asked.map(|said| self.0.content.take_attested(&said, server_secs));
        match &result {
            Ok(proved) => log::info!("the server's checksums prove {proved} files, in {:?}", began.elapsed()),
            Err(why) => log::info!("the server gives no checksums ({why}): files are proved as they are read"),
        }
        *self.0.following.attested.lock() = Some(result);
    }

    fn proofs_file(&self) -> Option<PathBuf> {
        self.0.config.cache_dir.as_ref().map(|dir| dir.join(FILE))
    }

    /// Stores the proofs, and the cached content that is not on the disk yet.
    pub fn close(&self) {
        self.save_proofs();
        self.0.content.close();
        self.0.repository.close();
    }

    /// Stores what was proved since the last time.
    pub fn save_proofs(&self) {
        let Some(file) = self.proofs_file() else { return };
        if self.0.view.is_closing() && self.0.following.learned.lock().as_ref().is_some_and(|now| now.frozen.is_some())
        {
            self.prove_all();
        }
        if let Some(text) = self.0.content.changed_proofs()
            && let Err(error) = save(&file, &text)
        {
            log::warn!("{}: {error}; the next mount has to prove again", file.display());
        }
    }

    /// What was shown may have been wrong: has the kernel drop it, and renews everything.
    fn forget_content(&self) {
        let known = self.0.view.walk();
        self.0.view.announce(known.into_iter().map(|(_, _, ino)| Change::Content(ino)));
        self.0.view.renew_everything();
    }

    /// Where content is read from, for the status.
    pub fn origin(&self) -> Option<Origin> {
        let figures = self.0.content.proof_figures()?;
        let kinds = self.0.content.proofs().map(Proofs::kinds).unwrap_or_default();
        let count = |kind: Provenance| kinds.iter().find(|(k, _)| *k == kind).map_or(0, |(_, n)| *n);
        let refused = self.0.following.attested.lock().clone().and_then(Result::err);
        Some(Origin {
            files: figures.files,
            proved: figures.proved,
            frozen: count(Provenance::Frozen),
            verified: count(Provenance::Verified),
            attested: count(Provenance::Attested),
            carried: count(Provenance::Carried),
            read_files: figures.read_files,
            read_bytes: figures.read_bytes,
            audited: figures.audited,
            off: figures.off.or_else(|| self.0.following.trouble.lock().clone()),
            not_attested: refused,
        })
    }
}

fn run(weak: &Weak<Inner>, woken: &mpsc::Receiver<()>) {
    let began = Instant::now();
    loop {
        let pause = match weak.upgrade().map(Reader) {
            Some(reader) if !reader.0.view.is_closing() => {
                reader.learn_what_runs();
                reader.review_proofs();
                let unconfirmed = reader.0.content.proof_figures().is_some_and(|figures| figures.unconfirmed > 0);
                match reader.0.following.learned.lock().is_some() {
                    true if unconfirmed && began.elapsed() < CONFIRM_LIMIT => CONFIRM,
                    true => LOOK,
                    false => RETRY,
                }
            }
            _ => return,
        };
        if matches!(woken.recv_timeout(pause), Err(mpsc::RecvTimeoutError::Disconnected)) {
            return;
        }
    }
}

fn load(file: &Path) -> Option<String> {
    if std::fs::metadata(file).ok()?.len() > MAX_BYTES {
        return None;
    }
    let text = std::fs::read_to_string(file).ok()?;
    let (head, lines) = text.split_once('\n')?;
    let sum = u32::from_str_radix(head.strip_prefix(HEADER)?, 16).ok()?;
    (crc32fast::hash(lines.as_bytes()) == sum).then(|| lines.to_owned())
}

fn save(file: &Path, lines: &str) -> std::io::Result<()> {
    let text = format!("{HEADER}{:08x}\n{lines}", crc32fast::hash(lines.as_bytes()));
    durable::replace_unsynced(file, |new| new.write_all(text.as_bytes())).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_file_is_no_file() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join(FILE);
        assert_eq!(load(&file), None);
        save(&file, "one\ntwo\n").expect("saved");
        assert_eq!(load(&file).as_deref(), Some("one\ntwo\n"));
        let whole = std::fs::read(&file).expect("there");
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&file, &bytes).expect("damaged");
            assert_eq!(load(&file), None, "byte {at}");
        }
    }
}
