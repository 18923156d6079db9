//! The options that are common to commands that print a result.

use clap::Args as ClapArgs;

/// How the result is printed.
#[derive(ClapArgs)]
pub(super) struct Output {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}
