//! A small Pantheon on loopback: SSH with SFTP, the API, git repositories, and a control URL for what teammates and
//! failures do. Ships in `pantheonfs demo` and drives the tests; the client learns about it only over the wire.
//!
//! A simulated site is unmistakable: its name starts with `sim-`, and everything listens on 127.0.0.1 only.

mod api;
mod binding;
mod calls;
mod codeserver;
mod config;
mod control;
mod demo_site;
mod exec;
mod health;
mod job;
mod keys;
mod link;
mod quirks;
mod round_trips;
mod sftp;
mod sftp_reply;
mod sftp_session;
mod simulator;
mod site;
mod ssh;
mod state;
mod tls;
mod workflows;

pub use config::{ENVIRONMENTS, SimConfig};
pub use link::{LinkConfig, run_link};
pub use simulator::Sim;
