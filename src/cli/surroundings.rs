//! Environment variables and what follows from them. The only place that reads them.

use std::env;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};
use crate::control::ControlConfig;

/// What the process was started with.
pub(super) struct Surroundings {
    pub(super) home: Option<PathBuf>,
    pub(super) here: PathBuf,
    /// `SSH_AUTH_SOCK`.
    pub(super) agent: Option<PathBuf>,
    pub(super) control: ControlConfig,
    /// `TERMINUS_SSH_HOST`: one host for all sites.
    pub(super) ssh_host: Option<String>,
    state_root: PathBuf,
    cache_root: PathBuf,
}

/// Variables that may hold a machine token, in this order.
const TOKEN_VARIABLES: [&str; 3] = ["TERMINUS_MACHINE_TOKEN", "PANTHEON_MACHINE_TOKEN", "TERMINUS_TOKEN"];

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Surroundings {
    pub(super) fn look() -> CliResult<Self> {
        let home = env::home_dir().filter(|home| home.is_absolute());
        let below_home = |tail: &str| home.as_ref().map(|home| home.join(tail));
        let root = |variable: &str, tail: &str| {
            let given = path(variable).filter(|path| path.is_absolute());
            given.or_else(|| below_home(tail)).map(|path| path.join("pantheonfs"))
        };
        let homeless =
            || Failure::new(Exit::Failed, "there is no home directory; set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME");
        let port = match text("TERMINUS_PORT") {
            Some(port) => Some(
                port.parse()
                    .map_err(|_| Failure::new(Exit::Usage, format!("TERMINUS_PORT={port} is not a port number")))?,
            ),
            None => None,
        };
        let terminus = path("TERMINUS_BASE_DIR").map(|dir| dir.join("cache")).or_else(|| below_home(".terminus/cache"));
        let control = ControlConfig {
            protocol: text("TERMINUS_PROTOCOL"),
            host: text("TERMINUS_HOST"),
            port,
            token: TOKEN_VARIABLES.iter().find_map(|name| text(name)).map(Zeroizing::new),
            cache_dir: path("TERMINUS_CACHE_DIR").or(terminus),
            user: text("TERMINUS_USER"),
        };
        Ok(Self {
            here: env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            agent: path("SSH_AUTH_SOCK"),
            control,
            ssh_host: text("TERMINUS_SSH_HOST"),
            state_root: root("XDG_STATE_HOME", ".local/state").ok_or_else(homeless)?,
            cache_root: root("XDG_CACHE_HOME", ".cache").ok_or_else(homeless)?,
            home,
        })
    }

    /// Where what must survive is kept for one environment.
    pub(super) fn state_dir(&self, key: &str) -> CliResult<PathBuf> {
        private_dir(&self.state_root.join(key))
    }

    /// Where content is gathered before it is sent. Free to delete while nothing is mounted.
    pub(super) fn spool_dir(&self) -> CliResult<PathBuf> {
        private_dir(&self.cache_root.join("spool"))
    }
}

/// Makes a directory that only its owner can look into.
fn private_dir(dir: &Path) -> CliResult<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.and_then(|()| std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700)))
        .map_err(|e| Failure::new(Exit::Failed, format!("{}: cannot be made: {e}", dir.display())))?;
    Ok(dir.to_owned())
}
