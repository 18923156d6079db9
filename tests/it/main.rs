//! One binary for everything that needs more than one room: real servers, the real kernel, real editors.

#![allow(unreachable_pub)]

mod common;
#[path = "../fuzz/memory.rs"]
mod memory;

mod accepted;
mod api;
mod asleep;
mod at_login;
mod bench;
mod both_sides;
mod cases;
mod cli;
mod contract;
mod copied;
mod crash;
mod deaths;
mod editors;
mod faults;
mod gateway;
mod git;
mod help;
mod host_keys;
mod hostile;
mod https;
mod json;
mod link_order;
mod links;
mod load;
mod local;
mod local_names;
mod local_only;
mod logins;
mod modes;
mod mount;
mod mount8;
mod moved;
mod notices;
mod offline;
mod packaging;
mod pending;
mod places;
mod platform;
mod power;
mod provenance;
mod readme;
mod recorded;
mod refused;
mod requests;
mod rescue;
mod resolve;
mod round_trips;
mod safety;
mod saved_mode;
mod secrets;
mod semantics;
mod sessions;
mod sftp_conformance;
mod signals;
mod steps;
mod tools;
mod trace;
mod two_way;
mod versions;
mod visible;
mod watch;
mod watchers;
mod wordpress;
mod write_bits;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
