//! pantheonfs: mounts the code directory of a Pantheon environment over SFTP.
//!
//! The map. A room uses the rooms that its line names and no others: `tests/tidy.rs` holds it to that, and the map to the
//! truth. Its layer is one above the highest that it uses.
//!
//! | layer | room | uses |
//! | --- | --- | --- |
//! | 0 | [`call`] |  |
//! | 0 | [`clock`] |  |
//! | 0 | [`durable`] |  |
//! | 0 | [`path`] |  |
//! | 0 | [`pool`] |  |
//! | 0 | [`text`] |  |
//! | 1 | [`attr`] | path |
//! | 1 | [`control`] | clock, durable |
//! | 1 | [`transport`] | clock, durable |
//! | 2 | [`cache`] | attr, durable, path |
//! | 2 | [`gate`] | attr |
//! | 2 | [`inode`] | attr, durable, path |
//! | 2 | [`mirror`] | attr, durable, path |
//! | 2 | [`sftp`] | attr, clock, transport |
//! | 2 | [`sim`] | control |
//! | 2 | [`write`](mod@write) | attr, durable, path |
//! | 3 | [`env`](mod@env) | attr, clock, control, durable, gate |
//! | 3 | [`pending`] | attr, mirror, path |
//! | 3 | [`remote`] | attr, clock, gate, path, sftp, transport |
//! | 4 | [`content`] | attr, cache, clock, mirror, path, pool, remote |
//! | 4 | [`vfiles`] | control, env, path, pending, text |
//! | 5 | [`error`] | clock, content, gate, path, remote |
//! | 6 | [`admit`] | attr, env, error, gate, path, remote |
//! | 7 | [`view`] | admit, attr, cache, clock, content, error, inode, path, pool, remote |
//! | 8 | [`upload`] | admit, attr, cache, call, clock, content, durable, error, gate, inode, path, pool, remote, view, write |
//! | 9 | [`reader`] | attr, cache, clock, content, durable, env, error, inode, mirror, path, pending, remote, upload, vfiles, view |
//! | 10 | [`dotdir`] | admit, attr, control, durable, env, error, gate, inode, mirror, path, pending, pool, reader, remote, upload, vfiles, view, write |
//! | 11 | [`fs`] | admit, attr, clock, content, dotdir, env, error, gate, inode, mirror, path, reader, remote, upload, vfiles, view, write |
//! | 12 | [`fuse`] | attr, call, fs, inode, pool |
//! | 12 | [`notify`] | clock, control, env, fs, gate, remote, text, write |
//! | 13 | [`cli`] | attr, clock, control, durable, env, fs, fuse, gate, mirror, notify, path, pending, remote, sim, text, transport, vfiles, write |

#![deny(unsafe_code)]

pub mod admit;
pub mod attr;
pub mod cache;
pub mod call;
pub mod cli;
pub mod clock;
pub mod content;
pub mod control;
pub mod dotdir;
pub mod durable;
pub mod env;
pub mod error;
pub mod fs;
pub mod fuse;
pub mod gate;
pub mod inode;
pub mod mirror;
pub mod notify;
pub mod path;
pub mod pending;
pub mod pool;
pub mod reader;
pub mod remote;
pub mod sftp;
#[cfg(feature = "sim")]
pub mod sim;
pub mod text;
pub mod transport;
pub mod upload;
pub mod vfiles;
pub mod view;
pub mod write;
