//! The disk cache: blocks by content, in packs, with a byte budget. It survives the mount and the machine's restarts,
//! and may be deleted at any time. Several mounts (the environments of a site) may share a directory: each writes its
//! own packs, and reads those that existed when it started.
//!
//! When the budget is used up, the least recently used pack is removed as a whole: exact order within 32 MiB is not
//! worth a file per block.

use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::fs::{self, File, FileTimes};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::time::{Duration, SystemTime};

use super::generations::Generations;
use super::memory::BlockKey;
use super::pack::{self, Key, Pack, Record, digest};
use crate::attr::ContentId;

/// Size at which a pack is closed (bytes).
const PACK_BYTES: u64 = 32 * 1024 * 1024;
/// Number of blocks that may wait for the writer. Further blocks are not stored, and would be fetched again.
const MAX_WAITING: usize = 4096;
/// Total size of the blocks that may wait for the writer (bytes).
const MAX_WAITING_BYTES: u64 = 48 * 1024 * 1024;
/// How long the writer waits for more blocks before it writes; it writes at this size (bytes) in any case.
const LINGER: Duration = Duration::from_millis(300);
const BUFFER_BYTES: usize = 1024 * 1024;
/// How long closing waits for the writer.
const CLOSE_LIMIT: Duration = Duration::from_secs(10);

/// Figures of the disk cache, for the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskFigures {
    pub blocks: u64,
    pub bytes: u64,
    pub budget_bytes: u64,
    pub hits: u64,
}

/// See the module documentation.
pub struct Disk {
    shared: Arc<Shared>,
    generations: Arc<Generations>,
    writer: SyncSender<Job>,
}

struct Shared {
    dir: PathBuf,
    /// Part of each name: two environments may have different content under the same path and version.
    owner: Vec<u8>,
    budget_bytes: u64,
    state: Mutex<State>,
    hits: AtomicU64,
    /// Bytes that wait for the writer.
    waiting: AtomicU64,
}

#[derive(Default)]
struct State {
    packs: HashMap<u32, Known>,
    blocks: HashMap<Key, Place>,
    names: HashMap<Key, Key>,
    next_pack: u32,
    /// Counts uses, to order the packs.
    clock: u64,
    bytes: u64,
}

struct Known {
    path: PathBuf,
    file: Arc<File>,
    bytes: u64,
    /// Length of the readable part (bytes).
    end: u64,
    used: u64,
}

#[derive(Clone, Copy)]
struct Place {
    pack: u32,
    at: u64,
    len: u32,
    sum: u32,
}

enum Job {
    Keep(Key, Arc<[u8]>),
    /// Each second name leads to the block of the first one.
    Aliases(Vec<(Key, Key)>),
    Finish(mpsc::Sender<()>),
}

impl Disk {
    /// Opens or makes the directory. `owner` tells the names of this mount from those of others.
    pub fn open(dir: &Path, owner: &[u8], budget_bytes: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let name: String = digest(owner)[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let generations = Arc::new(Generations::open(&dir.join(name + ".gone"), owner)?);
        let mut state = State::default();
        let mut packs: Vec<(SystemTime, PathBuf)> = Vec::new();
        for path in pack::list(dir)? {
            let used = fs::metadata(&path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            packs.push((used, path));
        }
        packs.sort();
        for (_, path) in packs {
            match File::open(&path).and_then(|file| Ok((pack::read(&file)?, file))) {
                Ok(((records, end), file)) => state.take_in(path, file, records, end)?,
                Err(error) => {
                    log::info!("{}: {error}; it goes", path.display());
                    fs::remove_file(&path)?;
                }
            }
        }
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            owner: owner.to_vec(),
            budget_bytes,
            state: Mutex::new(state),
            hits: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
        });
        let (writer, jobs) = mpsc::sync_channel(MAX_WAITING);
        let writing = shared.clone();
        std::thread::Builder::new().name("cache-writer".into()).spawn(move || writing.write(&jobs))?;
        shared.make_room();
        Ok(Self { shared, generations, writer })
    }

    /// The generations of the paths, which are part of the names.
    pub fn generations(&self) -> &Arc<Generations> {
        &self.generations
    }

    pub fn figures(&self) -> DiskFigures {
        let state = self.shared.lock();
        DiskFigures {
            blocks: state.blocks.len() as u64,
            bytes: state.bytes,
            budget_bytes: self.shared.budget_bytes,
            hits: self.shared.hits.load(Ordering::Relaxed),
        }
    }

    pub fn contains(&self, key: &BlockKey) -> bool {
        let state = self.shared.lock();
        state.names.get(&self.shared.name(key)).is_some_and(|block| state.blocks.contains_key(block))
    }

    /// The block, read from the local disk and checked.
    pub fn get(&self, key: &BlockKey) -> Option<Arc<[u8]>> {
        let (block, place, file) = {
            let mut state = self.shared.lock();
            let block = *state.names.get(&self.shared.name(key))?;
            let place = *state.blocks.get(&block)?;
            state.clock += 1;
            let clock = state.clock;
            let pack = state.packs.get_mut(&place.pack)?;
            pack.used = clock;
            (block, place, pack.file.clone())
        };
        let mut bytes = vec![0; place.len as usize];
        let read = file.read_exact_at(&mut bytes, place.at);
        if read.is_err() || crc32fast::hash(&bytes) != place.sum {
            log::warn!("{}: a block is damaged; it will be fetched again", self.shared.dir.display());
            self.shared.lock().blocks.remove(&block);
            return None;
        }
        self.shared.hits.fetch_add(1, Ordering::Relaxed);
        Some(bytes.into())
    }

    /// Stores a block in the background.
    pub fn put(&self, key: &BlockKey, block: Arc<[u8]>) {
        let (bytes, waiting) = (block.len() as u64, &self.shared.waiting);
        // If the writer is too slow or has ended, the block is fetched again later.
        if waiting.fetch_add(bytes, Ordering::Relaxed) > MAX_WAITING_BYTES
            || self.writer.try_send(Job::Keep(self.shared.name(key), block)).is_err()
        {
            waiting.fetch_sub(bytes, Ordering::Relaxed);
        }
    }

    /// Content has new names: pairs of the old and the new one.
    pub fn renamed(&self, names: &[(BlockKey, BlockKey)]) {
        let names = names.iter().map(|(old, new)| (self.shared.name(old), self.shared.name(new))).collect();
        let _ = self.writer.try_send(Job::Aliases(names));
    }

    /// Waits until all blocks that were put are in files.
    pub fn flush(&self) {
        let (done, finished) = mpsc::channel();
        if self.writer.send(Job::Finish(done)).is_ok() {
            let _ = finished.recv_timeout(CLOSE_LIMIT);
        }
    }

    /// Writes everything, and stores the order of use for the next mount.
    pub fn close(&self) {
        self.flush();
        let state = self.shared.lock();
        let mut packs: Vec<&Known> = state.packs.values().filter(|pack| pack.used > 0).collect();
        packs.sort_by_key(|pack| pack.used);
        let now = SystemTime::now();
        let ago = |rank: usize| now - Duration::from_millis((packs.len() - rank) as u64);
        for (rank, pack) in packs.iter().enumerate() {
            let _ = pack.file.set_times(FileTimes::new().set_modified(ago(rank)));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    /// The key of a block. Content that is known by its hash has the same key for all owners.
    fn name(&self, key: &BlockKey) -> Key {
        let mut text = Vec::with_capacity(128);
        match &key.content {
            ContentId::Blob(blob) => text.extend_from_slice(&blob.0),
            ContentId::Remote(path, version, generation) => {
                text.extend_from_slice(&self.owner);
                text.push(0);
                text.extend_from_slice(path.as_bytes());
                text.push(0);
                text.extend_from_slice(&version.size.to_le_bytes());
                text.extend_from_slice(&version.mtime.to_le_bytes());
                text.extend_from_slice(&generation.to_le_bytes());
            }
        }
        text.extend_from_slice(&key.index.to_le_bytes());
        digest(&text)
    }

    fn write(&self, jobs: &mpsc::Receiver<Job>) {
        let mut out: Option<(u32, Pack)> = None;
        // Still in the buffer: they cannot be found before they are in the file.
        let mut coming: Vec<(Key, Place)> = Vec::new();
        let mut named: HashMap<Key, Key> = HashMap::new();
        loop {
            let job = match jobs.recv_timeout(LINGER) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let mut finish = None;
            let mut full = job.is_none();
            let added = match job {
                Some(Job::Keep(name, bytes)) => {
                    self.waiting.fetch_sub(bytes.len() as u64, Ordering::Relaxed);
                    self.keep(&mut out, &mut coming, &mut named, (name, &bytes))
                }
                Some(Job::Aliases(names)) => {
                    names.into_iter().try_for_each(|names| self.alias(&mut out, &mut named, names))
                }
                Some(Job::Finish(done)) => {
                    finish = Some(done);
                    Ok(())
                }
                None => Ok(()),
            };
            full |= finish.is_some() || out.as_ref().is_some_and(|(_, pack)| pack.buffered() >= BUFFER_BYTES);
            let done = added.and_then(|()| if full { self.flush(&mut out, &mut coming, &mut named) } else { Ok(()) });
            if let Err(error) = done {
                log::warn!("{}: {error}; content is not cached on disk any more", self.dir.display());
                return;
            }
            if let Some(done) = finish {
                let _ = done.send(());
            }
        }
    }

    fn keep(
        &self,
        out: &mut Option<(u32, Pack)>,
        coming: &mut Vec<(Key, Place)>,
        named: &mut HashMap<Key, Key>,
        (name, bytes): (Key, &[u8]),
    ) -> io::Result<()> {
        let block = digest(bytes);
        let (known, same) = {
            let state = self.lock();
            (state.blocks.contains_key(&block), state.names.get(&name) == Some(&block))
        };
        if known && same {
            return Ok(());
        }
        let (number, pack) = self.pack(out)?;
        if !known && !coming.iter().any(|(key, _)| *key == block) {
            let (at, sum) = pack.add(b'B', &block, bytes);
            coming.push((block, Place { pack: number, at, len: bytes.len() as u32, sum }));
        }
        pack.add(b'N', &name, &block);
        named.insert(name, block);
        Ok(())
    }

    fn alias(
        &self,
        out: &mut Option<(u32, Pack)>,
        named: &mut HashMap<Key, Key>,
        (from, to): (Key, Key),
    ) -> io::Result<()> {
        let known = self.lock().names.get(&from).copied();
        let Some(block) = known.or_else(|| named.get(&from).copied()) else { return Ok(()) };
        self.pack(out)?.1.add(b'N', &to, &block);
        named.insert(to, block);
        Ok(())
    }

    /// The pack that is being written; a new one if there is none.
    fn pack<'a>(&self, out: &'a mut Option<(u32, Pack)>) -> io::Result<(u32, &'a mut Pack)> {
        if out.is_none() {
            *out = self.not_full();
        }
        if out.is_none() {
            let made =
                tempfile::Builder::new().prefix("").suffix(".pack").rand_bytes(12).make_in(&self.dir, Pack::create)?;
            let (pack, path) = made.keep().map_err(|error| error.error)?;
            let mut state = self.lock();
            let number = state.next_pack;
            state.next_pack += 1;
            // Opened a second time, because the lock belongs to the writer's descriptor.
            let file = Arc::new(File::open(&path)?);
            state.packs.insert(number, Known { path, file, bytes: 0, end: 0, used: 0 });
            *out = Some((number, pack));
        }
        match out {
            Some((number, pack)) => Ok((*number, pack)),
            None => Err(io::Error::other("no pack")),
        }
    }

    /// A pack of an earlier mount that is not full. It is reused, so that the number of packs does not grow with each
    /// mount.
    fn not_full(&self) -> Option<(u32, Pack)> {
        let mut state = self.lock();
        let full = self.full_bytes() / 4 * 3;
        let mut found = None;
        for (number, known) in state.packs.iter().filter(|(_, known)| known.end < full) {
            match Pack::append_to(&known.path, known.end, known.bytes) {
                Ok(Some(pack)) => {
                    found = Some((*number, pack));
                    break;
                }
                Ok(None) => {}
                Err(error) => log::info!("{}: {error}", known.path.display()),
            }
        }
        if let Some(known) = found.as_ref().and_then(|(number, _)| state.packs.get_mut(number)) {
            let cut = known.bytes - known.end;
            known.bytes = known.end;
            state.bytes = state.bytes.saturating_sub(cut);
        }
        found
    }

    /// Size at which a pack is closed (bytes): smaller if the budget is small.
    fn full_bytes(&self) -> u64 {
        PACK_BYTES.min(self.budget_bytes / 8)
    }

    fn flush(
        &self,
        out: &mut Option<(u32, Pack)>,
        coming: &mut Vec<(Key, Place)>,
        named: &mut HashMap<Key, Key>,
    ) -> io::Result<()> {
        let Some((number, pack)) = out else { return Ok(()) };
        if pack.buffered() == 0 {
            return Ok(());
        }
        pack.flush()?;
        let (number, len) = (*number, pack.len());
        {
            let mut state = self.lock();
            state.blocks.extend(coming.drain(..));
            state.names.extend(named.drain());
            state.clock += 1;
            let clock = state.clock;
            if let Some(known) = state.packs.get_mut(&number) {
                let more = len.saturating_sub(known.bytes);
                (known.bytes, known.end, known.used) = (len, len, clock);
                state.bytes += more;
            }
        }
        if len >= self.full_bytes() {
            *out = None;
        }
        self.make_room();
        Ok(())
    }

    /// Removes the least recently used packs until the rest fits. A pack that another mount writes is not removed.
    fn make_room(&self) {
        let mut state = self.lock();
        let mut packs: Vec<(u64, u32)> = state.packs.iter().map(|(number, pack)| (pack.used, *number)).collect();
        packs.sort_unstable();
        for (_, number) in packs {
            if state.bytes <= self.budget_bytes {
                return;
            }
            let Some(pack) = state.packs.get(&number) else { continue };
            // The pack that is being written is locked by this mount.
            let locked = File::open(&pack.path)
                .map(|file| rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err());
            if locked.unwrap_or(false) {
                continue;
            }
            if let Err(error) = fs::remove_file(&pack.path)
                && error.kind() != io::ErrorKind::NotFound
            {
                log::warn!("{}: {error}", pack.path.display());
                continue;
            }
            let bytes = state.packs.remove(&number).map_or(0, |pack| pack.bytes);
            state.bytes = state.bytes.saturating_sub(bytes);
            state.blocks.retain(|_, place| place.pack != number);
            let State { blocks, names, .. } = &mut *state;
            names.retain(|_, block| blocks.contains_key(block));
        }
    }
}

impl State {
    fn take_in(&mut self, path: PathBuf, file: File, records: Vec<Record>, end: u64) -> io::Result<()> {
        let number = self.next_pack;
        self.next_pack += 1;
        let bytes = file.metadata()?.len();
        for record in records {
            match record {
                Record::Block { key, at, len, sum } => {
                    self.blocks.insert(key, Place { pack: number, at, len, sum });
                }
                Record::Name { key, block } => drop(self.names.insert(key, block)),
            }
        }
        self.bytes += bytes;
        self.packs.insert(number, Known { path, file: Arc::new(file), bytes, end, used: 0 });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Version;
    use crate::path::RemotePath;

    fn key(path: &str, index: u64) -> BlockKey {
        let path = RemotePath::parse(path).expect("valid");
        BlockKey { content: ContentId::Remote(path, Version { size: 9, mtime: 3 }, 0), index }
    }

    fn block(seed: u8) -> Arc<[u8]> {
        (0..10_000_u32).map(|n| (n as u8).wrapping_mul(seed).wrapping_add((n >> 8) as u8)).collect()
    }

    #[test]
    fn cached_blocks_survive_a_remount_under_their_names() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = Disk::open(dir.path(), b"dev", 1 << 30).expect("opened");
        for n in 0..20 {
            disk.put(&key("code/a", n), block(n as u8));
        }
        disk.renamed(&[(key("code/a", 3), key("code/moved", 3))]);
        disk.close();
        assert_eq!(disk.get(&key("code/a", 7)).as_deref(), Some(&*block(7)));
        drop(disk);
        let disk = Disk::open(dir.path(), b"dev", 1 << 30).expect("opened");
        for n in 0..20 {
            assert_eq!(disk.get(&key("code/a", n)).as_deref(), Some(&*block(n as u8)));
        }
        assert_eq!(disk.get(&key("code/moved", 3)).as_deref(), Some(&*block(3)));
        assert!(disk.get(&key("code/b", 0)).is_none());
        let other = Disk::open(dir.path(), b"live", 1 << 30).expect("opened beside it");
        assert!(other.get(&key("code/a", 0)).is_none(), "another environment calls something else so");
    }

    #[test]
    fn the_same_bytes_are_kept_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = Disk::open(dir.path(), b"dev", 1 << 30).expect("opened");
        for n in 0..50 {
            disk.put(&key("code/a", n), block(1));
        }
        disk.close();
        assert_eq!(disk.figures().blocks, 1);
        assert!(disk.figures().bytes < 20_000, "{:?}", disk.figures());
        let live = Disk::open(dir.path(), b"live", 1 << 30).expect("opened beside it");
        live.put(&key("code/a", 0), block(1));
        live.close();
        assert!(live.figures().bytes < 20_000, "shared between environments: {:?}", live.figures());
    }

    #[test]
    fn the_budget_is_kept_and_what_was_used_last_stays() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let budget = 400_000;
        let disk = Disk::open(dir.path(), b"dev", budget).expect("opened");
        for n in 0..100 {
            disk.put(&key("code/a", n), block(n as u8));
            disk.close();
            if n > 2 {
                disk.get(&key("code/a", 0));
            }
        }
        assert!(disk.figures().bytes <= budget + 60_000, "{:?}", disk.figures());
        assert!(disk.get(&key("code/a", 0)).is_some(), "in use all the time");
        assert!(disk.get(&key("code/a", 99)).is_some(), "the newest");
        assert!(disk.get(&key("code/a", 20)).is_none(), "long ago");
        let on_disk: u64 =
            pack::list(dir.path()).expect("listed").iter().map(|path| fs::metadata(path).expect("there").len()).sum();
        assert!(on_disk <= budget + 60_000, "{on_disk}");
    }

    #[test]
    fn packs_are_reused_by_the_next_mount() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        for n in 0..20 {
            let disk = Disk::open(dir.path(), b"dev", 1 << 30).expect("opened");
            disk.put(&key("code/a", n), block(n as u8));
            disk.close();
        }
        // The previous mount may release its lock a moment later.
        assert!(pack::list(dir.path()).expect("listed").len() < 10);
        let (one, two) = (Disk::open(dir.path(), b"dev", 1 << 30), Disk::open(dir.path(), b"live", 1 << 30));
        for disk in [one.expect("opened"), two.expect("opened beside it")] {
            disk.put(&key("code/b", 0), block(77));
            disk.flush();
            disk.close();
        }
        let disk = Disk::open(dir.path(), b"dev", 1 << 30).expect("opened");
        assert!((0..20).all(|n| disk.get(&key("code/a", n)).as_deref() == Some(&*block(n as u8))));
        assert!(pack::list(dir.path()).expect("listed").len() < 12);
    }

    #[test]
    fn a_damaged_block_is_no_block() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let disk = Disk::open(dir.path(), b"dev", 1 << 30).expect("opened");
        disk.put(&key("code/a", 0), block(1));
        disk.close();
        let path = pack::list(dir.path()).expect("listed").remove(0);
        let mut bytes = fs::read(&path).expect("read");
        bytes[100] ^= 1;
        fs::write(&path, &bytes).expect("damaged");
        assert!(disk.get(&key("code/a", 0)).is_none());
        assert!(!disk.contains(&key("code/a", 0)));
        fs::write(&path, b"nonsense").expect("damaged");
        drop(disk);
        let disk = Disk::open(dir.path(), b"dev", 1 << 30).expect("opened all the same");
        assert_eq!(disk.figures().blocks, 0);
    }
}
