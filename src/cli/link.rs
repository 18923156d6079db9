//! `pantheonfs link`: a latency and a bandwidth in front of any server, for measuring and for trying things out.

use std::time::Duration;

use super::args;
use super::exit::{CliResult, Exit, Failure};
use crate::sim::{LinkConfig, run_link};

/// Runs until it is killed.
pub(super) fn run(args: &args::Link) -> CliResult<()> {
    let link = LinkConfig::new(Duration::from_millis(args.rtt), args.mbit);
    run_link(&args.to, args.listen, &link, |at| println!("{at}"))
        .map_err(|e| Failure::new(Exit::Failed, format!("the link to {}: {e}", args.to)))
}
