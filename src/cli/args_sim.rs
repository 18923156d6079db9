//! The arguments of the commands around the simulator.

use std::path::PathBuf;

use clap::Args as ClapArgs;

use super::output::Output;

#[derive(ClapArgs)]
pub(super) struct Sim {
    /// Directory with the site's code, which is copied (default: a small site that looks like WordPress)
    #[arg(long, value_name = "DIR")]
    pub(super) code: Option<PathBuf>,
    /// Simulated round trip, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) rtt: u64,
    /// Simulated bandwidth per direction, in Mbit/s (0: unlimited)
    #[arg(long, value_name = "MBIT", default_value_t = 0)]
    pub(super) mbit: u64,
    /// Quirk to start with, such as rename=refuse; may be repeated. The control URL lists all quirks
    #[arg(long = "quirk", alias = "habit", value_name = "NAME=VALUE")]
    pub(super) quirks: Vec<String>,
    /// Port of the SSH server (0: any free one)
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(super) port: u16,
    /// Print the variables for the API over HTTPS, with SSL_CERT_FILE for its certificate
    #[arg(long)]
    pub(super) https: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Demo {
    /// Where to mount (default: ./pantheon-demo, created if missing)
    pub(super) mountpoint: Option<PathBuf>,
    /// Simulated round trip, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) rtt: u64,
}

#[derive(ClapArgs)]
pub(super) struct Link {
    /// Server that connections are carried to
    #[arg(value_name = "HOST:PORT")]
    pub(super) to: String,
    /// Port on 127.0.0.1 to listen on (0: any free one); the address is printed
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(super) listen: u16,
    /// Round trip, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) rtt: u64,
    /// Bandwidth per direction, in Mbit/s (0: unlimited)
    #[arg(long, value_name = "MBIT", default_value_t = 0)]
    pub(super) mbit: u64,
}
