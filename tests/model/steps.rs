//! The steps of a sequence whose outcome is known exactly.

use proptest::prelude::*;

#[derive(Debug, Clone)]
pub enum Step {
    Write(usize, u8, u16),
    Append(usize, u8, u16),
    Truncate(usize, u16),
    Open(usize),
    WriteOpen(usize, u8, u16),
    CloseOpen(usize),
    Mkdir(usize),
    Rmdir(usize),
    Unlink(usize),
    Rename(usize, usize),
    Symlink(usize),
    Chmod(usize, bool),
    Read(usize),
    Barrier,
    Theirs(usize, u8, u16),
    TheirsRemoved(usize),
    Cut(u16, u16),
    /// The answer after so many others is lost: the server has done what was asked.
    LoseAnswer(u8),
    /// The server is silent, and the deadline of the call passes.
    Late(Box<Step>),
    /// The caller was interrupted before the call began to have an effect.
    GivenUp(Call, usize, usize),
    /// The local disk is full for the call.
    Full(Box<Step>),
    CloseOnAFullDisk(usize, u8),
    /// A workflow of the platform holds writes.
    CloseInAJob(usize, u8),
    Crash,
}

/// Calls that a signal can interrupt.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    Create,
    Write,
    Truncate,
    Mkdir,
    Rmdir,
    Unlink,
    Rename,
    Symlink,
    Chmod,
}

const CALLS: [Call; 9] = [
    Call::Create,
    Call::Write,
    Call::Truncate,
    Call::Mkdir,
    Call::Rmdir,
    Call::Unlink,
    Call::Rename,
    Call::Symlink,
    Call::Chmod,
];

/// A step that is one call.
fn single() -> impl Strategy<Value = Box<Step>> {
    let path = 0..PATHS.len();
    let step = prop_oneof![
        (path.clone(), 0..4000_u16).prop_map(|(p, n)| Step::Truncate(p, n)),
        path.clone().prop_map(Step::Mkdir),
        path.clone().prop_map(Step::Rmdir),
        path.clone().prop_map(Step::Unlink),
        (path.clone(), path.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        path.clone().prop_map(Step::Symlink),
        (path, any::<bool>()).prop_map(|(p, x)| Step::Chmod(p, x)),
    ];
    step.prop_map(Box::new)
}

/// Few names, so that they meet.
pub const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/b", "d/e", "d/e/a", "g", "g/a"];

pub fn step() -> impl Strategy<Value = Step> {
    let path = 0..PATHS.len();
    let bytes = || (any::<u8>(), 0..3000_u16);
    prop_oneof![
        8 => (path.clone(), bytes()).prop_map(|(p, (b, n))| Step::Write(p, b, n)),
        3 => (path.clone(), bytes()).prop_map(|(p, (b, n))| Step::Append(p, b, n)),
        2 => (path.clone(), 0..4000_u16).prop_map(|(p, n)| Step::Truncate(p, n)),
        3 => path.clone().prop_map(Step::Open),
        3 => (0..MAX_OPEN, bytes()).prop_map(|(at, (b, n))| Step::WriteOpen(at, b, n)),
        2 => (0..MAX_OPEN).prop_map(Step::CloseOpen),
        5 => path.clone().prop_map(Step::Mkdir),
        2 => path.clone().prop_map(Step::Rmdir),
        4 => path.clone().prop_map(Step::Unlink),
        6 => (path.clone(), path.clone()).prop_map(|(a, b)| Step::Rename(a, b)),
        1 => path.clone().prop_map(Step::Symlink),
        1 => (path.clone(), any::<bool>()).prop_map(|(p, x)| Step::Chmod(p, x)),
        3 => path.clone().prop_map(Step::Read),
        2 => Just(Step::Barrier),
        1 => (path.clone(), bytes()).prop_map(|(p, (b, n))| Step::Theirs(p, b, n)),
        1 => path.clone().prop_map(Step::TheirsRemoved),
        1 => (0..24_u8).prop_map(Step::LoseAnswer),
        1 => single().prop_map(Step::Late),
        1 => single().prop_map(Step::Full),
        1 => (0..CALLS.len(), path.clone(), path.clone()).prop_map(|(n, p, q)| Step::GivenUp(CALLS[n], p, q)),
        1 => (path.clone(), any::<u8>()).prop_map(|(p, b)| Step::CloseOnAFullDisk(p, b)),
        1 => (path, any::<u8>()).prop_map(|(p, b)| Step::CloseInAJob(p, b)),
        1 => (1..6000_u16, 1..6000_u16).prop_map(|(a, b)| Step::Cut(a, b)),
        1 => Just(Step::Crash),
    ]
}

/// Handles that a sequence holds at most.
pub const MAX_OPEN: usize = 4;
