//! The command line: arguments in, exit code out. The only room that reads environment variables, prints, and puts the
//! other rooms together.

mod account;
mod args;
mod args_rescue;
#[cfg(feature = "sim")]
mod args_sim;
mod ask;
mod bug_report;
mod commands;
mod commit;
mod connect;
mod daemon;
#[cfg(feature = "sim")]
mod demo;
mod dispatch;
mod doctor;
mod early;
mod enable;
mod environ;
mod exit;
mod git_commit;
mod git_hook;
mod grammar;
mod hydrate;
mod identity;
#[cfg(feature = "sim")]
mod link;
mod list;
mod local_names;
mod lock;
mod logging;
mod machine;
mod manual;
mod mount;
mod mountpoint;
mod nearest;
mod notices;
mod object;
mod options;
mod output;
mod place;
mod plan;
mod private_dir;
mod progress;
mod prompt;
mod record;
mod redact;
mod replay;
mod report;
mod rescue;
mod rescue_items;
mod resolve;
mod resolve_tool;
mod revert;
#[cfg(feature = "sim")]
mod simulate;
mod sites;
mod source;
mod start;
mod terminus;
mod umount;
mod unit;
mod versions;
mod wake;
mod watch;

pub use dispatch::{main, understand};
