//! The arguments of the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

use super::args_rescue::Rescue;
#[cfg(feature = "sim")]
use super::args_sim;
use super::exit::{CliResult, Exit, Failure};
use super::output::Output;

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
    /// Mount the code of an environment, or any SFTP server
    Mount(Mount),
    /// Unmount, after all changes are on the server
    #[command(visible_alias = "unmount")]
    Umount(Umount),
    /// Mount an environment now and at each login (systemd)
    Enable(Enable),
    /// Unmount an environment, and do not mount it at login any more
    Disable(Disable),
    /// List your mounts with their state, and what is mounted at login
    List(Output),
    /// Show your mounts on one screen that follows them, with keys for what can be done
    Watch {
        /// The mount: a path in it, or SITE.ENV (default: all your mounts)
        mount: Option<PathBuf>,
    },
    /// Write what the files of a mount say as lines of JSON; `watch` runs this by itself
    #[command(hide = true)]
    Feed {
        /// Where it is mounted
        mountpoint: PathBuf,
    },
    /// Print the state of a mount: mode, whether code is writable, connection, unsent changes
    Status(Status),
    /// Wait until the server has all changes of a mount
    Sync(InMount),
    /// Download a directory of a mount, or all of it, to work offline
    Hydrate(Hydrate),
    /// Print or switch the connection mode of an environment
    Mode(Mode),
    /// List or change the patterns of names that stay on this machine
    Local(Local),
    /// List the uncommitted changes on the server
    Pending(InMount),
    /// Print the uncommitted changes as git does, or the difference to another commit
    Diff(Diff),
    /// Print a file, or the names of a directory, of another commit
    Show(Show),
    /// Replace files with their committed versions; a copy of each is kept
    Revert(Revert),
    /// List, compare, restore or export the copies of uncommitted work on this machine
    #[command(subcommand)]
    Rescue(Rescue),
    /// Resolve a conflict: choose a version of a file that was changed on both sides
    Resolve(Resolve),
    /// Commit all uncommitted changes on the server
    Commit(Commit),
    /// Print the history of the environment
    Log(InMount),
    /// Print how other SFTP and git clients connect to the environment
    Connection(InMount),
    /// Tell git which paths of a mount changed since it asked last; git runs this by itself
    #[command(hide = true)]
    Fsmonitor {
        /// Version of git's protocol: 2
        #[arg(value_name = "VERSION")]
        protocol: u32,
        /// The token of the last answer
        token: OsString,
    },
    /// Show programs that watch files what others changed; a mount runs this by itself
    #[command(hide = true)]
    Replay {
        /// Where it is mounted
        mountpoint: PathBuf,
    },
    /// Log in to the platform with a Personal Access Token, read from the terminal or standard input
    Login(Output),
    /// List the sites of your account and their environments
    Sites {
        /// Name or UUID of one site (default: all sites)
        site: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Check this machine, or step by step whether a source can be mounted
    Doctor(Doctor),
    /// Write versions, states and logs into a file for the report of a fault, without secrets
    Report {
        /// File to write, which must not exist (default: pantheonfs-report-TIME.txt in the current directory)
        #[arg(short = 'o', long = "output", value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
    /// Run a simulated Pantheon site on this machine
    #[cfg(feature = "sim")]
    Sim(args_sim::Sim),
    /// Start the simulator, mount its site, and print what to try
    #[cfg(feature = "sim")]
    Demo(args_sim::Demo),
    /// Put a latency and a bandwidth in front of a server, for measurements
    #[cfg(feature = "sim")]
    Link(args_sim::Link),
    /// Print a completion script for a shell
    Completions {
        /// The shell that the script is for
        shell: clap_complete::Shell,
    },
    /// Print the manual page of the program, or of one command
    Man {
        /// The words of the command, such as `rescue list` (default: the program)
        command: Vec<String>,
        /// Write the pages of the program and of all commands into this directory
        #[arg(long, value_name = "DIR", conflicts_with = "command")]
        all: Option<PathBuf>,
    },
}

#[derive(ClapArgs)]
pub(super) struct Mount {
    /// SITE.ENV, SITE (its Dev), UUID.ENV or sftp://[USER@]HOST[:PORT]/PATH; may be omitted in a git checkout of the site
    #[arg(value_name = "SOURCE")]
    pub(super) source: OsString,
    /// An empty directory to mount on (default: ~/pantheon/SITE.ENV, which is made, and removed after the mount)
    pub(super) mountpoint: Option<PathBuf>,
    /// Mount options, separated by commas; docs/REFERENCE.md lists them
    #[arg(short = 'o', value_name = "OPT[,OPT…]")]
    pub(super) options: Vec<OsString>,
    /// Stay in the foreground
    #[arg(short = 'f', long)]
    pub(super) foreground: bool,
    /// Log what happens on standard error (-vv: every request)
    #[arg(short = 'v', long, action = clap::ArgAction::Count)]
    pub(super) verbose: u8,
    /// Set for the child that becomes the daemon, whose standard output is the pipe to the parent
    #[arg(long, hide = true)]
    pub(super) report: bool,
    /// The descriptor from which the child reads the machine token
    #[arg(long, hide = true)]
    pub(super) token_fd: Option<i32>,
    /// Print nothing on success
    #[arg(long, hide = true)]
    pub(super) quiet: bool,
}

#[derive(ClapArgs)]
pub(super) struct Umount {
    /// The directory that is mounted on, or the SITE.ENV that is mounted
    #[arg(required_unless_present = "all")]
    pub(super) mountpoint: Option<PathBuf>,
    /// Unmount all your mounts
    #[arg(long, conflicts_with = "mountpoint")]
    pub(super) all: bool,
    /// Unmount even while programs use the mount, without waiting until all changes are on the server
    #[arg(long)]
    pub(super) force: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Enable {
    /// As for mount: SITE.ENV, SITE (its Dev), UUID.ENV or sftp://[USER@]HOST[:PORT]/PATH
    #[arg(value_name = "SOURCE")]
    pub(super) source: OsString,
    /// An empty directory to mount on (default: ~/pantheon/SITE.ENV)
    #[arg(value_name = "DIR")]
    pub(super) mountpoint: Option<PathBuf>,
    /// Mount options, as for mount
    #[arg(short = 'o', value_name = "OPT[,OPT…]")]
    pub(super) options: Vec<OsString>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Disable {
    /// The source that is mounted at login, as `pantheonfs list` shows it
    #[arg(value_name = "SOURCE")]
    pub(super) source: OsString,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Status {
    /// Any path in the mount (default: the current directory)
    pub(super) path: Option<PathBuf>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Mode {
    /// The mode to switch to, sftp or git (default: print the current mode)
    pub(super) mode: Option<String>,
    /// Any path in the mount
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(super) at: PathBuf,
    /// Permit a switch to Git mode to delete uncommitted changes
    #[arg(long)]
    pub(super) discard: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

/// A command about a mount that needs nothing but a path in it.
#[derive(ClapArgs)]
pub(super) struct InMount {
    /// Any path in the mount
    #[arg(default_value = ".")]
    pub(super) path: PathBuf,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Hydrate {
    /// The directory in the mount to download
    #[arg(default_value = ".")]
    pub(super) path: PathBuf,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Diff {
    /// Files or directories in the mount (default: all changes)
    pub(super) paths: Vec<PathBuf>,
    /// Compare with this commit, tag or branch, or with `live`, `test` or `dev`
    #[arg(long, value_name = "REV")]
    pub(super) at: Option<String>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Show {
    /// The commit, tag or branch, or `live`, `test` or `dev`, and the path from the root of the mount
    #[arg(value_name = "REV:PATH")]
    pub(super) object: OsString,
    /// Any path in the mount
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(super) at: PathBuf,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Local {
    #[command(subcommand)]
    pub(super) what: LocalCommand,
}

#[derive(Subcommand)]
pub(super) enum LocalCommand {
    /// Print the patterns
    List(InMount),
    /// Add patterns of gitignore
    Add(Patterns),
    /// Remove patterns; what is only here stays here
    Remove(Patterns),
}

#[derive(ClapArgs)]
pub(super) struct Patterns {
    /// Patterns, as in .gitignore
    #[arg(required = true)]
    pub(super) patterns: Vec<String>,
    /// Any path in the mount
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(super) at: PathBuf,
    /// Add patterns although the server has such names; they stay there, and are shown from there
    #[arg(long)]
    pub(super) leave: bool,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Revert {
    /// Files in the mount to replace
    #[arg(required = true)]
    pub(super) paths: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
#[command(group = clap::ArgGroup::new("whose").required(true))]
pub(super) struct Resolve {
    /// The file in the mount that has a conflict (default with --tool: every conflict, one after the other)
    #[arg(required_unless_present = "tool")]
    pub(super) path: Option<PathBuf>,
    /// Write our version over theirs; a copy of theirs is kept
    #[arg(long, group = "whose")]
    pub(super) ours: bool,
    /// Leave their version, and delete ours
    #[arg(long, group = "whose")]
    pub(super) theirs: bool,
    /// Merge both versions, if they do not change the same lines
    #[arg(long, group = "whose")]
    pub(super) merge: bool,
    /// Merge with a tool that `git mergetool` knows (default: the one that git is configured with)
    #[arg(long, group = "whose", value_name = "NAME", num_args = 0..=1)]
    pub(super) tool: Option<Option<String>>,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Commit {
    /// The commit message (default: an editor asks for it)
    #[arg(short = 'm', long)]
    pub(super) message: Option<String>,
    /// Read the commit message from a file (-: standard input)
    #[arg(short = 'F', long, value_name = "FILE", conflicts_with = "message")]
    pub(super) file: Option<PathBuf>,
    /// Any path in the mount
    #[arg(long, value_name = "PATH", default_value = ".")]
    pub(super) at: PathBuf,
    #[command(flatten)]
    pub(super) output: Output,
}

#[derive(ClapArgs)]
pub(super) struct Doctor {
    /// What to check, as for mount (default: the site of the git checkout in the current directory, or else this machine)
    pub(super) source: Option<OsString>,
    /// Mount options, as for mount
    #[arg(short = 'o', value_name = "OPT[,OPT…]")]
    pub(super) options: Vec<OsString>,
    #[command(flatten)]
    pub(super) output: Output,
}

/// Parses the arguments that mount(8) passes to a helper: `SPEC DIR [-sfnv] [-N NS] [-o OPTS] [-t TYPE]`. `None`: a dry run.
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
    fn every_command_and_option_has_a_help_text() {
        let mut commands = vec![Args::command()];
        while let Some(command) = commands.pop() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} has no description");
            for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
                assert!(arg.get_help().is_some(), "{name}: {} has no help text", arg.get_id());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn the_arguments_of_mount_are_parsed() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let mount = helper(&words("s.dev /mnt -sv -o rw,noatime -t pantheonfs")).expect("fine").expect("no dry run");
        assert_eq!((mount.source.to_str(), mount.options.len(), mount.verbose), (Some("s.dev"), 1, 1));
        assert!(helper(&words("s.dev /mnt -f")).expect("fine").is_none());
        assert!(helper(&words("s.dev")).is_err());
        assert!(helper(&words("s.dev /mnt -x")).is_err());
        assert!(helper(&words("s.dev /mnt -o")).is_err());
    }
}
