//! How to mount.

use std::path::PathBuf;

use fuser::MountOption;

/// How to mount.
#[derive(Debug, Clone, Default)]
pub struct MountConfig {
    /// Shown in the first column of `mount` and `df`.
    pub fs_name: String,
    pub allow_other: bool,
    pub default_permissions: bool,
    pub read_only: bool,
    pub noexec: bool,
    pub noatime: bool,
    /// This program, which is run to show changes of others to programs that watch files.
    pub program: Option<PathBuf>,
}

impl MountConfig {
    /// As fuser takes them.
    pub(super) fn options(&self) -> Vec<MountOption> {
        let mut options = vec![
            MountOption::FSName(self.fs_name.clone()),
            MountOption::Subtype("pantheonfs".into()),
            MountOption::NoSuid,
            MountOption::NoDev,
        ];
        let flags = [
            (self.default_permissions, MountOption::DefaultPermissions),
            (self.read_only, MountOption::RO),
            (self.noexec, MountOption::NoExec),
            (self.noatime, MountOption::NoAtime),
        ];
        options.extend(flags.into_iter().filter(|(wanted, _)| *wanted).map(|(_, option)| option));
        options
    }
}
