//! What can be said on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::exit::{CliResult, Exit, Failure};

/// Mount the code directory of a Pantheon environment over SFTP.
#[derive(Parser)]
#[command(name = "pantheonfs", version, max_term_width = 100, propagate_version = true)]
#[command(after_help = "Exit codes: docs/EXIT-CODES.md. Promises: docs/SEMANTICS.md.")]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Mount SITE.ENV, UUID.ENV or an sftp:// URL
    Mount(Mount),
    /// Unmount; waits until everything is on the server
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    /// Say how a mount stands: mode, writability, link, what waits
    Status(Status),
    /// Wait until the server has everything that was changed in a mount
    Sync(Look),
    /// Bring a directory of a mount, or all of it, to this machine, for working offline
    Hydrate(Look),
    /// Read or switch the connection mode of a mount
    Mode(Mode),
    /// List what is uncommitted
    Pending(Look),
    /// Show the difference to what is committed, as git prints it
    Diff(Diff),
    /// Put files back as they are committed; what they were is kept
    Revert(Revert),
    /// Uncommitted work that is kept on this machine: list it, compare it, put it back, take it along
    #[command(subcommand)]
    Rescue(Rescue),
    /// Decide about a file that was changed on both sides
    Resolve(Resolve),
    /// Commit everything that is uncommitted on the server
    Commit(Commit),
    /// Show the history of the environment
    Log(Look),
    /// Say how other clients connect
    Connection(Look),
    /// Log in to the platform with a machine token (read from the terminal or standard input)
    Login {
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// List the sites of your account and their environments
    Sites {
        /// Only this one
        site: Option<String>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Check step by step why SITE.ENV or an sftp:// URL can be mounted or cannot
    Doctor(Doctor),
    /// Run a small Pantheon on this machine
    #[cfg(feature = "sim")]
    Sim(Sim),
    /// Start the simulator with a small site, mount it, and say what to try
    #[cfg(feature = "sim")]
    Demo(Demo),
    /// Put a latency and a bandwidth in front of a server (for measuring)
    #[cfg(feature = "sim")]
    Link(Link),
    /// Print a completion script
    Completions { shell: clap_complete::Shell },
    /// Print the manual page
    Man,
}

#[derive(ClapArgs)]
pub(super) struct Mount {
    /// mysite.dev, <uuid>.dev, or sftp://[user@]host[:port]/path; may be left out in a git checkout of the site
    #[arg(value_name = "SOURCE")]
    pub(super) source: OsString,
    /// An empty directory
    pub(super) mountpoint: Option<PathBuf>,
    /// Options, separated by commas (README, "Options")
    #[arg(short = 'o', value_name = "OPT[,OPT…]")]
    pub(super) options: Vec<OsString>,
    /// Stay in the foreground
    #[arg(short = 'f', long)]
    pub(super) foreground: bool,
    /// Say more on standard error (twice: everything)
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// We are the child that becomes the daemon: standard output is the pipe to the parent
    #[arg(long, hide = true)]
    pub(super) report: bool,
    /// The descriptor from which the child reads the machine token
    #[arg(long, hide = true)]
    pub(super) token_fd: Option<i32>,
    /// Say nothing on success
    #[arg(long, hide = true)]
    pub(super) quiet: bool,
}

#[derive(ClapArgs)]
pub(super) struct Umount {
    pub(super) mountpoint: PathBuf,
    /// Take it away even while programs use it
    #[arg(long)]
    pub(super) force: bool,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(ClapArgs)]
pub(super) struct Status {
    /// Any path in the mount (default: the current directory)
    pub(super) path: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(ClapArgs)]
pub(super) struct Mode {
    /// `sftp` or `git`; without it the mode is printed
    pub(super) mode: Option<String>,
    /// Any path in the mount
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(super) at: PathBuf,
    /// Going to Git mode: delete what is uncommitted
    #[arg(long)]
    pub(super) discard: bool,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

/// Looking at something of a mount.
#[derive(ClapArgs)]
pub(super) struct Look {
    /// Any path in the mount
    #[arg(default_value = ".")]
    pub(super) path: PathBuf,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(ClapArgs)]
pub(super) struct Diff {
    /// Only these files or directories in the mount
    pub(super) paths: Vec<PathBuf>,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(ClapArgs)]
pub(super) struct Revert {
    /// Files in the mount
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(ClapArgs)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub(super) struct Resolve {
    /// The file in the mount
    pub(super) path: PathBuf,
    /// Write ours over theirs (a copy of theirs is kept)
    #[arg(long, group = "whose")]
    pub(super) ours: bool,
    /// Leave theirs, and drop ours
    #[arg(long, group = "whose")]
    pub(super) theirs: bool,
    /// Merge both with the committed version as the base, if that goes without conflicts
    #[arg(long, group = "whose")]
    pub(super) merge: bool,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Subcommand)]
pub(super) enum Rescue {
    /// List what is kept and, where it is mounted, whether the server has it
    List {
        #[command(flatten)]
        at: RescueAt,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Show how what is kept differs from the server (or from the commit, where it is not mounted)
    Diff {
        /// Paths as `list` shows them (default: all)
        paths: Vec<PathBuf>,
        #[command(flatten)]
        at: RescueAt,
    },
    /// Write kept files back into the mount, or into another directory
    Restore {
        /// Paths as `list` shows them
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Write below this directory instead
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        at: RescueAt,
    },
    /// Everything that is kept as one patch (for `git apply`) or tar archive
    Export {
        /// Paths as `list` shows them (default: all)
        paths: Vec<PathBuf>,
        /// The form
        #[arg(long, value_enum, default_value_t = ExportForm::Patch)]
        format: ExportForm,
        /// Where to (default: standard output)
        #[arg(short = 'o', long, value_name = "FILE")]
        output: Option<PathBuf>,
        #[command(flatten)]
        at: RescueAt,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum ExportForm {
    Patch,
    Tar,
}

#[derive(ClapArgs)]
pub(super) struct RescueAt {
    /// A path in the mount, or SITE.ENV where nothing is mounted
    #[arg(long, value_name = "PATH|SITE.ENV", default_value = ".")]
    pub(super) at: PathBuf,
}

#[derive(ClapArgs)]
pub(super) struct Commit {
    /// The message; an editor asks for it if neither -m nor -F is given
    #[arg(short = 'm', long)]
    pub(super) message: Option<String>,
    /// Take the message from a file (`-`: standard input)
    #[arg(short = 'F', long, value_name = "FILE", conflicts_with = "message")]
    pub(super) file: Option<PathBuf>,
    /// Any path in the mount
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(super) at: PathBuf,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(ClapArgs)]
pub(super) struct Doctor {
    /// As for mount
    pub(super) source: Option<OsString>,
    /// As for mount
    #[arg(short = 'o', value_name = "OPT[,OPT…]")]
    pub(super) options: Vec<OsString>,
    /// For programs
    #[arg(long)]
    pub(super) json: bool,
}

#[cfg(feature = "sim")]
#[derive(ClapArgs)]
pub(super) struct Sim {
    /// The site's code, copied (default: a small WordPress-like site)
    #[arg(long, value_name = "DIR")]
    pub(super) code: Option<PathBuf>,
    /// Round trip to simulate, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) rtt: u64,
    /// Bandwidth of SSH per direction to simulate, Mbit/s (default: unlimited)
    #[arg(long, value_name = "MBIT", default_value_t = 0)]
    pub(super) mbit: u64,
    /// A habit to begin with (GET {control} lists them); may be repeated
    #[arg(long = "habit", value_name = "NAME[=VALUE]")]
    pub(super) habits: Vec<String>,
    /// Port of the SSH server (default: any free one)
    #[arg(long, default_value_t = 0)]
    pub(super) port: u16,
    /// Print one line of JSON when ready
    #[arg(long)]
    pub(super) json: bool,
}

#[cfg(feature = "sim")]
#[derive(ClapArgs)]
pub(super) struct Demo {
    /// Where to mount (default: ./pantheon-demo, made if missing)
    pub(super) mountpoint: Option<PathBuf>,
    /// Round trip to simulate, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) rtt: u64,
}

#[cfg(feature = "sim")]
#[derive(ClapArgs)]
pub(super) struct Link {
    /// Where it leads: HOST:PORT
    pub(super) to: String,
    /// Port on 127.0.0.1 (default: any free one; printed)
    #[arg(long, default_value_t = 0)]
    pub(super) listen: u16,
    /// Round trip, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(super) rtt: u64,
    /// Bandwidth per direction, Mbit/s (default: unlimited)
    #[arg(long, value_name = "MBIT", default_value_t = 0)]
    pub(super) mbit: u64,
}

/// The conventions of mount(8) for helpers: `SPEC DIR [-sfnv] [-N NS] [-o OPTS] [-t TYPE]`. `None`: a dry run.
pub(super) fn helper(words: &[OsString]) -> CliResult<Option<Mount>> {
    let usage = |text: String| Failure::new(Exit::Usage, format!("mount.pantheonfs: {text}"));
    let (mut places, mut options, mut fake, mut verbose) = (Vec::new(), Vec::new(), false, 0);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = |flag: &str| words.next().cloned().ok_or_else(|| usage(format!("{flag} needs a value")));
        match word.to_str() {
            Some("-o") => options.push(value("-o")?),
            Some("-t" | "-N") => drop(value("-t")?),
            Some(flags) if flags.len() > 1 && flags.starts_with('-') => {
                for flag in flags[1..].chars() {
                    match flag {
                        'f' => fake = true,
                        'v' => verbose += 1,
                        's' | 'n' | 'r' | 'w' => {}
                        other => return Err(usage(format!("unknown flag -{other}"))),
                    }
                }
            }
            _ => places.push(word.clone()),
        }
    }
    let [source, mountpoint] = <[OsString; 2]>::try_from(places)
        .map_err(|_| usage("usage: mount.pantheonfs SOURCE MOUNTPOINT [-o OPTIONS]".into()))?;
    let mountpoint = Some(PathBuf::from(mountpoint));
    let mount =
        Mount { source, mountpoint, options, foreground: false, verbose, report: false, quiet: true, token_fd: None };
    Ok((!fake).then_some(mount))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn mount_calls_us_its_own_way() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let mount = helper(&words("s.dev /mnt -sv -o rw,noatime -t pantheonfs")).expect("fine").expect("no dry run");
        assert_eq!((mount.source.to_str(), mount.options.len(), mount.verbose), (Some("s.dev"), 1, 1));
        assert!(helper(&words("s.dev /mnt -f")).expect("fine").is_none());
        assert!(helper(&words("s.dev")).is_err());
        assert!(helper(&words("s.dev /mnt -x")).is_err());
        assert!(helper(&words("s.dev /mnt -o")).is_err());
    }
}
