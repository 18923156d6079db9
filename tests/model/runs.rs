//! Runs of many sequences: how many, from which random numbers, and what is said of one that fails.

use std::any::Any;
use std::hash::BuildHasher;

use parking_lot::Mutex;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::common::inner::Inner;
use super::exact::Run;
use super::steps::step;

/// Where the random numbers of the sequences begin.
const SEED: u64 = 14_553_753_927_218_239_746;
/// Sequences that share a server, each in a directory of its own.
const PER_SERVER: u32 = 500;

/// A server and a filesystem on it.
fn fresh(args: &[&'static str], kernel: bool) -> Option<Inner> {
    let inner = Inner::with(args, std::time::Duration::from_secs(3600))?;
    Some(if kernel { inner.through_the_kernel() } else { inner })
}

pub fn run(args: &[&'static str], sequences: u32, kernel: bool, nth: u64) {
    let Some(first) = fresh(args, kernel) else { return };
    let state = Mutex::new((first, 0_u32));
    let seed = seed().wrapping_add(nth);
    let mut runner = runner(sequences, seed);
    let result = runner.run(&(-3..=3_i64, proptest::collection::vec(step(), 1..25)), |(skew, steps)| {
        let mut state = state.lock();
        let (inner, count) = &mut *state;
        *count += 1;
        // After a failure the old one may be in any state, and old directories make the root's listing long.
        if *count % PER_SERVER == 0 || std::thread::panicking() {
            *inner = fresh(args, kernel).expect("it started before");
        }
        let root = format!("s{count}");
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let mut run = Run::new(inner, root, skew);
            steps.iter().for_each(|step| run.step(step));
            run.barrier();
        }));
        if let Err(panic) = failed {
            *inner = fresh(args, kernel).expect("it started before");
            return Err(TestCaseError::fail(text_of(&*panic)));
        }
        Ok(())
    });
    if let Err(error) = result {
        panic!("PANTHEONFS_MODEL_SEED={seed}: {error}");
    }
    let how = if kernel { "through the kernel" } else { "in process" };
    eprintln!("survived: {sequences} random sequences {how}, server {args:?}, seed {seed}");
}

/// Draws sequences from a seed, and shortens one that fails.
pub fn runner(sequences: u32, seed: u64) -> TestRunner {
    TestRunner::new(Config {
        cases: sequences,
        max_shrink_iters: 2000,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    })
}

/// What a panic said.
pub fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.into())).unwrap_or_else(|| "a panic".into())
}

/// The same sequences in every run of the tests: what breaks there was broken by the change. `PANTHEONFS_MODEL_SEED` asks for
/// those of another number, or for `random` ones.
pub fn seed() -> u64 {
    match std::env::var("PANTHEONFS_MODEL_SEED").as_deref() {
        Ok("random") => std::collections::hash_map::RandomState::new().hash_one(std::time::Instant::now()),
        Ok(number) => number.parse().expect("a number or `random`"),
        Err(_) => SEED,
    }
}

/// How many sequences are asked for, and otherwise `standard`.
pub fn sequences(standard: u32) -> u32 {
    std::env::var("PANTHEONFS_MODEL_SEQUENCES").ok().and_then(|n| n.parse().ok()).unwrap_or(standard)
}
