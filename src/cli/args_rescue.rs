//! The arguments of `pantheonfs rescue`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::output::Output;

#[derive(Subcommand)]
pub(super) enum Rescue {
    /// List the copies and, if the environment is mounted, whether the server has them
    List {
        #[command(flatten)]
        at: RescueAt,
        #[command(flatten)]
        output: Output,
    },
    /// Print how the copies differ from the server, or from the commit if the environment is not mounted
    Diff {
        /// Paths as `list` shows them (default: all)
        paths: Vec<PathBuf>,
        #[command(flatten)]
        at: RescueAt,
    },
    /// Write copies back into the mount, or into another directory
    Restore {
        /// Paths as `list` shows them
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Write below this directory instead of the mount
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
        #[command(flatten)]
        at: RescueAt,
    },
    /// Write the copies as one patch (for git apply) or one tar archive
    Export {
        /// Paths as `list` shows them (default: all)
        paths: Vec<PathBuf>,
        /// Format of the output
        #[arg(long, value_enum, default_value_t = ExportForm::Patch)]
        format: ExportForm,
        /// File to write to (default: standard output)
        #[arg(short = 'o', long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        at: RescueAt,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ExportForm {
    /// A patch for git apply
    Patch,
    /// A tar archive, without deleted files
    Tar,
}

#[derive(ClapArgs)]
pub(super) struct RescueAt {
    /// A path in the mount, or SITE.ENV if the environment is not mounted
    #[arg(long, value_name = "PATH|SITE.ENV", default_value = ".")]
    pub(super) at: PathBuf,
}
