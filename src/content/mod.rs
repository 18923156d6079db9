//! The bytes of a version, from the cache, from the local repository if they are proved to be equal, or from the
//! server.
//!
//! If the server has another version, the result is an error of its own
//! ([`ErrorKind::Changed`](crate::remote::ErrorKind)): bytes of two versions are never mixed. The room does not know
//! inodes or handles; content that was written locally and not sent is in `write`.

mod attest;
mod blocks;
mod fetch_limit;
mod proved;
mod provenance;
mod racy;
mod read;
mod readahead;
mod sent;
mod state;
mod stream;
mod trust;

pub use attest::{AttestConfig, ask as attest};
pub use provenance::{ProofFigures, Proofs, Provenance};
pub use read::{Fetching, ReadError};
pub use readahead::ReadAhead;
pub use state::{Content, SharedError};
