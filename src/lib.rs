//! pantheonfs: mounts the code directory of a Pantheon environment over SFTP.
//!
//! The map. A room uses the rooms that its line names and no others: `tests/tidy.rs` holds it to that, and the map to the
//! truth. Its layer is one above the highest that it uses.
//!
//! | layer | room | uses |
//! | --- | --- | --- |
//! | 0 | [`clock`] |  |
//! | 0 | [`durable`] |  |
//! | 0 | [`path`] |  |
//! | 1 | [`attr`] | path |
//! | 1 | [`control`] | clock, durable |
//! | 1 | [`transport`] | clock, durable |
//! | 2 | [`cache`] | attr, path |
//! | 2 | [`gate`] | attr |
//! | 2 | [`inode`] | attr, durable, path |
//! | 2 | [`mirror`] | attr, path |
//! | 2 | [`sftp`] | attr, clock, transport |
//! | 2 | [`sim`] | control |
//! | 2 | [`write`](mod@write) | attr, durable, path |
//! | 3 | [`env`](mod@env) | attr, clock, control, durable, gate |
//! | 3 | [`pending`] | attr, mirror, path |
//! | 3 | [`remote`] | attr, clock, gate, path, sftp, transport |
//! | 4 | [`content`] | attr, cache, clock, mirror, path, remote |
//! | 4 | [`vfiles`] | control, env, path, pending |
//! | 5 | [`fs`] | attr, cache, clock, content, control, durable, env, gate, inode, mirror, path, pending, remote, vfiles, write |
//! | 6 | [`fuse`] | attr, fs, inode |
//! | 7 | [`cli`] | attr, clock, control, durable, env, fs, fuse, gate, mirror, path, pending, remote, sim, transport, vfiles, write |

#![deny(unsafe_code)]

pub mod attr;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod content;
pub mod control;
pub mod durable;
pub mod env;
pub mod fs;
pub mod fuse;
pub mod gate;
pub mod inode;
pub mod mirror;
pub mod path;
pub mod pending;
pub mod remote;
pub mod sftp;
#[cfg(feature = "sim")]
pub mod sim;
pub mod transport;
pub mod vfiles;
pub mod write;
