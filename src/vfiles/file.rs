//! The files of `.pantheon`.

/// The files of `.pantheon`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum File {
    Readme,
    Mode,
    Status,
    StatusJson,
    Pending,
    Connection,
    Commit,
    Log,
    Activity,
    Diff,
    Hydrate,
    Ignored,
    Local,
    Sync,
}

/// In the order of a directory listing.
pub const FILES: [File; 14] = [
    File::Readme,
    File::Activity,
    File::Commit,
    File::Connection,
    File::Diff,
    File::Hydrate,
    File::Ignored,
    File::Local,
    File::Log,
    File::Mode,
    File::Pending,
    File::Status,
    File::StatusJson,
    File::Sync,
];

impl File {
    pub fn name(self) -> &'static str {
        match self {
            Self::Readme => "README",
            Self::Mode => "mode",
            Self::Status => "status",
            Self::StatusJson => "status.json",
            Self::Pending => "pending",
            Self::Connection => "connection",
            Self::Commit => "commit",
            Self::Log => "log",
            Self::Activity => "activity",
            Self::Diff => "diff",
            Self::Ignored => "ignored",
            Self::Local => "local",
            Self::Sync => "sync",
            Self::Hydrate => "hydrate",
        }
    }

    pub fn named(name: &[u8]) -> Option<Self> {
        FILES.into_iter().find(|file| file.name().as_bytes() == name)
    }

    /// Whether the file shows the comparison of the server with the repository.
    pub fn needs_a_look(self) -> bool {
        matches!(self, Self::Pending | Self::Diff | Self::Ignored)
    }

    /// Whether commands can be written to the file.
    pub fn takes_commands(self) -> bool {
        matches!(self, Self::Mode | Self::Commit | Self::Sync | Self::Hydrate | Self::Local)
    }
}
