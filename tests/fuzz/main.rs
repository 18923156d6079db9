//! Everything that reads what others wrote, given what nobody would write: no panic, no hang, no memory for lengths that
//! lie, and round trips where there is a way back. One target per reader; `scripts/fuzz` runs them for long.

#![allow(unreachable_pub)]

mod driver;
mod engine;
mod memory;
mod mutate;
mod replies;
mod samples;
mod settings;
mod stores;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// No checksum to repair.
fn as_it_is(bytes: Vec<u8>) -> Vec<u8> {
    bytes
}

/// Input is kept a few times over while it is read, as entries that are larger than their bytes; a length that lies would
/// be megabytes.
fn proportional(len: usize) -> usize {
    256 * 1024 + 100 * len
}

/// Says what does not hold.
fn must(holds: bool, what: impl Into<String>) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what.into()) }
}

/// Files are made in memory where there is such a place.
fn scratch() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    let dir = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
    dir.expect("a temporary directory")
}

#[test]
fn peaks_are_counted() {
    let _one = driver::one_at_a_time();
    let (len, peak) = memory::peak_of(|| vec![0_u8; 3_000_000].len());
    // What the test harness frees meanwhile is counted, too.
    assert!(len == 3_000_000 && (2_900_000..3_100_000).contains(&peak), "{peak}");
}
