//! pantheonfs: mounts the code directory of a Pantheon environment over SFTP.
//!
//! The map. Rooms depend only on rooms above them in this list (`tests/tidy.rs` holds the exact edges):
//!
//! | layer | rooms |
//! | --- | --- |
//! | 0 | [`path`], [`attr`], [`clock`], [`transport`] |
//! | 1 | [`gate`], [`sftp`], [`mirror`], [`control`], [`inode`], [`cache`] |
//! | 2 | [`remote`], [`env`](mod@env), [`sim`] |
//! | 3 | [`content`], [`write`](mod@write), [`vfiles`] |
//! | 4 | [`pending`] |
//! | 5 | [`fs`] |
//! | 6 | [`fuse`] |
//! | 7 | [`cli`] |

#![deny(unsafe_code)]

pub mod admit;
pub mod attr;
pub mod cache;
pub mod cli;
pub mod clock;
pub mod content;
pub mod control;
pub mod dotdir;
pub mod env;
pub mod error;
pub mod fs;
pub mod fuse;
pub mod gate;
pub mod inode;
pub mod mirror;
pub mod path;
pub mod pending;
pub mod pool;
pub mod reader;
pub mod remote;
pub mod sftp;
#[cfg(feature = "sim")]
pub mod sim;
pub mod transport;
pub mod upload;
pub mod vfiles;
pub mod view;
pub mod write;
