//! Client of the platform's API (the one that Terminus uses): log in, find a site, ask how an environment stands, start
//! workflows. Knows nothing of files, mounts or SSH. Every wait has a limit, every answer a maximal size.

mod board;
mod client;
mod config;
mod environment;
mod error;
mod history;
mod http;
mod json;
mod login;
mod routes;
mod session;
mod site;
mod throttle;
mod tls;
mod wake;
mod workflow;

pub use client::Control;
pub use config::ControlConfig;
pub use environment::{ConnectionMode, Diffstat, EnvKind, Environment, FileDiff, Lock};
pub use error::{ControlError, ControlSource};
pub use history::Commit;
pub use site::{Profile, Site};
pub use wake::{WakeConfig, Waker};
pub use workflow::{Outcome, Workflow};
