//! `pantheonfs link`: puts a latency and a bandwidth in front of any server, for measurements.

use std::time::Duration;

use super::args_sim;
use super::exit::{CliResult, Exit, Failure};
use crate::sim::{LinkConfig, run_link};

/// Carries connections until the process ends.
pub(super) fn run(args: &args_sim::Link) -> CliResult<()> {
    let link = LinkConfig::new(Duration::from_millis(args.rtt), args.mbit);
    run_link(&args.to, args.listen, &link, |at| println!("{at}"))
        .map_err(|e| Failure::caused(Exit::Failed, format!("the link to {}", args.to), e))
}
