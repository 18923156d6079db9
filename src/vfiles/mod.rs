//! The virtual files `.pantheon/*`: their text and their commands. The room is pure: it renders a [`Status`] to text,
//! and parses bytes to a [`Command`]. `dotdir` carries commands out.

mod file;
mod git;
mod hydration;
mod json;
mod origin;
mod render;
mod status;

pub use file::{FILES, File};
pub use git::GitStatus;
pub use hydration::Hydration;
pub use origin::Origin;
pub use render::{render, span};
pub use status::{Connection, LinkStatus, LocalChanges, LocalNames, Status, Traffic, Write};

use crate::control::ConnectionMode;
use crate::path::RemotePath;

/// A parsed command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    Switch {
        mode: ConnectionMode,
        discard: bool,
    },
    /// Commit everything, with this message.
    Commit(String),
    /// Send everything to the server.
    Sync,
    /// Names that stay on this machine: lines that are added to the patterns, or take their place.
    LocalNames(String),
    /// Copy everything below this path of the mount to the local disk.
    Hydrate(RemotePath),
}

/// Longest command (bytes).
pub const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// Parses a command; the error text says what would be valid.
pub fn parse(file: File, bytes: &[u8]) -> Result<Command, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "the command is not text".to_owned())?;
    if file == File::Commit {
        let message = text.trim();
        return if message.is_empty() {
            Err("write the message of the commit".into())
        } else {
            Ok(Command::Commit(message.into()))
        };
    }
    if file == File::Hydrate {
        let path = text.trim_end_matches('\n');
        let path = if path == "." { "" } else { path };
        let bad =
            |what: String| format!("'{}': {what}; write a path below the mount, or '.' for everything", short(path));
        if path.starts_with('/') {
            return Err(bad("it is an absolute path of this machine".into()));
        }
        return RemotePath::parse(path).map(Command::Hydrate).map_err(|error| bad(error.to_string()));
    }
    if file == File::Local {
        return Ok(Command::LocalNames(text.to_owned()));
    }
    if file == File::Sync {
        return Ok(Command::Sync);
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    match (file, words.as_slice()) {
        (File::Mode, [mode]) => match ConnectionMode::parse(mode) {
            Some(mode) => Ok(Command::Switch { mode, discard: false }),
            None => Err(format!("'{}' is not a mode: write 'sftp' or 'git'", short(mode))),
        },
        (File::Mode, [mode, "--discard"]) if ConnectionMode::parse(mode) == Some(ConnectionMode::Git) => {
            Ok(Command::Switch { mode: ConnectionMode::Git, discard: true })
        }
        (File::Mode, _) => Err("write 'sftp', 'git', or 'git --discard'".into()),
        _ => Err(format!(".pantheon/{} takes no commands", file.name())),
    }
}

fn short(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn written_commands_are_parsed_leniently() {
        let switch = |mode, discard| Ok(Command::Switch { mode, discard });
        assert_eq!(parse(File::Mode, b"sftp\n"), switch(ConnectionMode::Sftp, false));
        assert_eq!(parse(File::Mode, b"  GIT "), switch(ConnectionMode::Git, false));
        assert_eq!(parse(File::Mode, b"git --discard\n"), switch(ConnectionMode::Git, true));
        for bad in [&b""[..], b"\n", b"ftp", b"sftp --discard", b"git --force", b"sftp git", b"\xff\xfe"] {
            assert!(parse(File::Mode, bad).is_err(), "{bad:?}");
        }
        assert!(parse(File::Status, b"sftp").is_err());
        assert_eq!(parse(File::Commit, b" Fix it\n\nBecause.\n"), Ok(Command::Commit("Fix it\n\nBecause.".into())));
        assert!(parse(File::Commit, b" \n").is_err());
        assert_eq!(parse(File::Sync, b"now\n"), Ok(Command::Sync));
        assert_eq!(parse(File::Hydrate, b".\n"), Ok(Command::Hydrate(RemotePath::root())));
        assert!(parse(File::Hydrate, b"../x\n").is_err() && parse(File::Hydrate, b"/etc\n").is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_written(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(File::Mode, &bytes);
        }
    }
}
