//! The changes that are still to be sent, on the local disk and in memory: the queue of operations, the journal with
//! its records, and the spools with the new contents. A recorded change survives a crash of the process.
//!
//! `journal` in the state directory holds records of kind `J` (layout: `records`). Each is one of
//!
//! - `{"op": [ID, OP]}`: an operation as it is now, new or changed by a later one that was folded into it;
//! - `{"gone": ID}`: it will never be carried out;
//! - `{"done": [ID, LEFT]}`: the server acknowledged its last step, and this is what it left at its path;
//! - `{"litter": [SPOOL, PATH, PERM]}`: a file that stays on this machine is here now;
//! - `{"swept": SPOOL}`: it is not any more;
//! - `{"shown": [PATH, VERSION, SUMS]}`: checksums of the content that changes of this path are based on, if another content
//!   may have the same version;
//! - `{"all": [RECORD…]}`: records that hold together.
//!
//! `spool/N` holds the content that operations name by number; it is never changed once an operation names it.

mod barrier;
mod durable;
mod open;
mod state;

pub use open::has_unsent;
pub use state::{Journal, Next};

#[cfg(test)]
pub(in crate::write) use state::KIND;

#[cfg(test)]
mod tests;
