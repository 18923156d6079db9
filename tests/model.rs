//! Random sequences of operations against reference models. Whatever is cut, killed, refused and edited by others in between:
//!
//! - `exact`: one client, of which the outcome of each step is known; the server, the view here and the model agree;
//! - `shared`: two clients and another writer change the same names at any moment; every content that was accepted is kept,
//!   or was replaced by somebody who had been shown it.

#![allow(unreachable_pub)]

#[allow(dead_code)]
#[path = "it/common/mod.rs"]
mod common;
#[path = "model/exact.rs"]
mod exact;
#[path = "model/ledger.rs"]
mod ledger;
#[path = "model/others.rs"]
mod others;
#[path = "model/runs.rs"]
mod runs;
#[path = "model/shared.rs"]
mod shared;
#[path = "model/skewed.rs"]
mod skewed;
#[path = "model/steps.rs"]
mod steps;
#[path = "model/tree.rs"]
mod tree;
#[path = "model/trouble.rs"]
mod trouble;

use runs::{run, sequences};

/// Sequences in a run; `PANTHEONFS_MODEL_SEQUENCES` asks for more.
const SEQUENCES: u32 = 3_000;
/// Sequences with two clients.
const SHARED_SEQUENCES: u32 = 600;
/// Most of the time is waiting: for lost connections to be made again, for dead processes to be replaced.
const AT_A_TIME: u32 = 8;
const SHARED_AT_A_TIME: u32 = 12;

fn side_by_side(threads: u32, run: impl Fn(u32) + Copy + Send + 'static) {
    let runs: Vec<_> = (0..threads).map(|nth| std::thread::spawn(move || run(nth))).collect();
    for run in runs {
        if let Err(panic) = run.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn server_view_and_model_agree() {
    side_by_side(AT_A_TIME, |nth| run(&[], sequences(SEQUENCES) / AT_A_TIME, false, nth.into()));
}

#[test]
fn server_view_and_model_agree_where_nothing_can_be_renamed() {
    run(&["-P", "posix-rename,rename"], sequences(SEQUENCES) / 10, false, 0);
}

#[test]
fn server_view_and_model_agree_through_the_kernel() {
    if common::has_fuse() {
        run(&[], sequences(SEQUENCES) / 20, true, 0);
    }
}

#[test]
fn nothing_is_lost_between_two_clients_and_another_writer() {
    side_by_side(SHARED_AT_A_TIME, |nth| shared::run(sequences(SHARED_SEQUENCES) / SHARED_AT_A_TIME, nth.into()));
}
