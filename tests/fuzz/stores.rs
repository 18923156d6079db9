//! What lies on the local disk: the journal, the kept copies, the packs of the cache, the saved tree. Damaged by a disk, cut
//! off by a crash, or written by somebody who means harm.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use pantheonfs::attr::{ContentId, Version};
use pantheonfs::cache::{BlockKey, Disk};
use pantheonfs::inode::{Saved, Snapshot};
use pantheonfs::path::RemotePath;
use pantheonfs::write::{Action, Backups, Expected, Journal, Next, Op, backups_in};

use super::driver::Target;
use super::{must, proportional, scratch};

#[test]
fn journal() {
    Target { name: "journal", cases: 1024, seal: records, check: check_journal, budget: with_files }.run();
}

#[test]
fn kept() {
    Target { name: "kept", cases: 1024, seal: records, check: check_kept, budget: with_files }.run();
}

#[test]
fn packs() {
    Target { name: "packs", cases: 1024, seal: pack_records, check: check_pack, budget: with_files }.run();
}

#[test]
fn tree() {
    Target { name: "tree", cases: 2048, seal: records, check: check_tree, budget: with_files }.run();
}

/// Threads and buffers for files (1 MiB) beside what is read.
fn with_files(len: usize) -> usize {
    2 * 1024 * 1024 + proportional(len)
}

/// Makes the checksums of records (length, CRC-32, payload) right again.
fn records(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let Some(len) = bytes.get(at..at + 4).and_then(|head| <[u8; 4]>::try_from(head).ok()) {
        let body = at + 8;
        let end = body.saturating_add(u32::from_le_bytes(len) as usize);
        let Some(sum) = bytes.get(body..end).map(crc32fast::hash) else { break };
        bytes[at + 4..body].copy_from_slice(&sum.to_le_bytes());
        at = end;
    }
    bytes
}

/// The same for packs: kind, key, length, CRC-32 of the body, CRC-32 of the head.
fn pack_records(mut bytes: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while at + 33 <= bytes.len() {
        let len = u32::from_le_bytes([bytes[at + 21], bytes[at + 22], bytes[at + 23], bytes[at + 24]]) as usize;
        let body = at + 33;
        if let Some(sum) = bytes.get(body..body.saturating_add(len)).map(crc32fast::hash) {
            bytes[at + 25..at + 29].copy_from_slice(&sum.to_le_bytes());
        }
        let sum = crc32fast::hash(&bytes[at..at + 29]);
        bytes[at + 29..body].copy_from_slice(&sum.to_le_bytes());
        at = body.saturating_add(len);
    }
    bytes
}

/// A state directory with another one beside it, which nothing may touch.
fn state(name: &str, bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let place = scratch();
    let dir = place.path().join("state");
    fs::create_dir_all(dir.join(name).parent().unwrap_or(&dir)).expect("made");
    fs::write(place.path().join("neighbour"), "untouched").expect("written");
    fs::write(dir.join(name), bytes).expect("written");
    (place, dir)
}

fn untouched(place: &Path) -> Result<(), String> {
    let names: Vec<_> = fs::read_dir(place).expect("listed").flatten().map(|entry| entry.file_name()).collect();
    let text = fs::read(place.join("neighbour")).unwrap_or_default();
    must(names.len() == 2 && text == b"untouched", format!("something happened outside of the state: {names:?}"))
}

fn ops(journal: &Journal) -> Vec<Op> {
    journal.queue(|queue| queue.ops().map(|(_, op)| op.clone()).collect())
}

fn check_journal(bytes: &[u8]) -> Result<(), String> {
    let (place, dir) = state("journal", bytes);
    let Ok(first) = Journal::open(&dir) else { return untouched(place.path()) };
    let found = ops(&first);
    for op in &found {
        let _ = (op.describe(), op.reaches_below(), op.paths().count());
        if let Action::Put(put) = &op.action {
            let _ = first.is_whole(put);
        }
    }
    drop(first);
    let second = Journal::open(&dir).map_err(|error| format!("it was opened once: {error}"))?;
    must(ops(&second) == found, "another content the second time")?;
    // All of it can be carried out, and what is added is there the next time.
    for _ in 0..found.len().min(100) {
        let Next::Run(id, ..) = second.next(Instant::now() + Duration::from_millis(1)) else { break };
        drop(second.finish(id, Expected::Unknown));
    }
    let before = ops(&second).len();
    if let Some(op) = found.first().filter(|op| matches!(op.action, Action::MakeDir { .. })) {
        let path = RemotePath::parse("code/added").map_err(|error| error.to_string())?;
        second.add(Op { path, ..op.clone() }).map_err(|error| format!("nothing can be added: {error}"))?;
        let third = Journal::open(&dir).map_err(|error| format!("after an addition: {error}"))?;
        must(ops(&third).len() == before + 1, "what was added is not there")?;
    }
    untouched(place.path())
}

fn check_kept(bytes: &[u8]) -> Result<(), String> {
    let (place, dir) = state("kept/log", bytes);
    let before = backups_in(&dir).map(|(copies, _)| copies).map_err(drop);
    match (Backups::open(&dir), before) {
        (Ok(kept), Ok(copies)) => must(kept.copies() == copies, "two readers see two things")?,
        (Err(_), Err(())) => {}
        (kept, copies) => return Err(format!("opened: {}, read: {}", kept.is_ok(), copies.is_ok())),
    }
    untouched(place.path())
}

fn block_key(index: u64) -> BlockKey {
    let path = RemotePath::parse("code/a").expect("valid");
    BlockKey { content: ContentId::Remote(path, Version { size: 9, mtime: 3 }, 0), index }
}

fn check_pack(bytes: &[u8]) -> Result<(), String> {
    let (place, dir) = state("1.pack", bytes);
    let disk = Disk::open(&dir, b"dev", 1 << 30).map_err(|error| format!("not opened: {error}"))?;
    for index in 0..4 {
        let _ = (disk.contains(&block_key(index)), disk.get(&block_key(index)));
    }
    let new: std::sync::Arc<[u8]> = b"what is kept after the damage".as_slice().into();
    disk.put(&block_key(77), new.clone());
    disk.close();
    must(disk.get(&block_key(77)).as_deref() == Some(&*new), "nothing can be kept any more")?;
    drop(disk);
    let again = Disk::open(&dir, b"dev", 1 << 30).map_err(|error| format!("not opened again: {error}"))?;
    must(again.get(&block_key(77)).as_deref() == Some(&*new), "what was kept is not there")?;
    untouched(place.path())
}

fn check_tree(bytes: &[u8]) -> Result<(), String> {
    let (parsed, good) = Saved::parse(bytes.to_vec());
    must(good <= bytes.len(), "more is good than there is")?;
    let (again, _) = Saved::parse(bytes[..good].to_vec());
    must(again.len() == parsed.len(), "the good part says something else")?;
    let (place, dir) = state("tree", bytes);
    let file = dir.join("tree");
    let (snapshot, saved) = Snapshot::open(&file).map_err(|error| format!("not opened: {error}"))?;
    must(saved.len() == parsed.len(), "two readers see two things")?;
    let path = RemotePath::parse("code/added").map_err(|error| error.to_string())?;
    let known = usize::from(saved.dir(&path).is_some());
    snapshot.append("c0ffee", &[(path.clone(), Vec::new())]).map_err(|error| format!("not appended: {error}"))?;
    let (_, next) = Snapshot::open(&file).map_err(|error| format!("not opened again: {error}"))?;
    must(next.len() == parsed.len() + 1 - known, "what was known or added is not there")?;
    must(next.dir(&path).is_some_and(|dir| &*dir.commit == "c0ffee"), "nobody vouches for what was added")?;
    untouched(place.path())
}
