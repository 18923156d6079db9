//! Environment variables and what follows from them. The only place that reads them.

use parking_lot::Mutex;
use std::env;
use std::fs::DirBuilder;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};
use super::sites::Sites;
use crate::control::ControlConfig;

/// What the process was started with.
pub(super) struct Environ {
    pub(super) home: Option<PathBuf>,
    pub(super) here: PathBuf,
    /// `SSH_AUTH_SOCK`.
    pub(super) agent: Option<PathBuf>,
    pub(super) control: ControlConfig,
    /// `TERMINUS_SSH_HOST`: one host for all sites.
    pub(super) ssh_host: Option<String>,
    /// `PANTHEONFS_WAKE_URL`: where a simulator answers the health checks of its environments.
    pub(super) wake_url: Option<String>,
    pub(super) sites: Sites,
    state_root: PathBuf,
    cache_root: PathBuf,
}

/// Variables that may hold a machine token, in this order.
const TOKEN_VARIABLES: [&str; 3] = ["TERMINUS_MACHINE_TOKEN", "PANTHEON_MACHINE_TOKEN", "TERMINUS_TOKEN"];

/// The token that was taken out of the environment.
static TOKEN: Mutex<Option<Zeroizing<String>>> = Mutex::new(None);
/// Longer than any token (bytes).
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Takes the machine token out of the environment, so that no child inherits it: not ssh, not git, no editor. The first
/// thing that the program does.
#[expect(unsafe_code, reason = "the environment can be changed by no other call")]
pub(super) fn hide_token() {
    let found = TOKEN_VARIABLES.iter().find_map(|name| text(name)).map(Zeroizing::new);
    for name in TOKEN_VARIABLES {
        // SAFETY: no thread has been started yet, so nobody reads the environment meanwhile.
        unsafe { env::remove_var(name) };
    }
    keep_token(found);
}

/// The token that the process which started us passes through a pipe.
pub(super) fn receive_token(descriptor: i32) -> CliResult<()> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("the token cannot be passed on: {e}"));
    let pipe = std::fs::File::open(format!("/proc/self/fd/{descriptor}")).map_err(failed)?;
    let mut token = Zeroizing::new(String::new());
    pipe.take(MAX_TOKEN_BYTES).read_to_string(&mut token).map_err(failed)?;
    keep_token(Some(token).filter(|token| !token.is_empty()));
    Ok(())
}

fn keep_token(token: Option<Zeroizing<String>>) {
    *TOKEN.lock() = token;
}

/// The token that was given for this run.
pub(super) fn token() -> Option<Zeroizing<String>> {
    TOKEN.lock().clone()
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn path(name: &str) -> Option<PathBuf> {
    env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

impl Environ {
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
            token: token(),
            cache_dir: path("TERMINUS_CACHE_DIR").or(terminus),
            user: text("TERMINUS_USER"),
            api: text("PANTHEONFS_API"),
        };
        let state_root = root("XDG_STATE_HOME", ".local/state").ok_or_else(homeless)?;
        Ok(Self {
            sites: Sites::below(&state_root),
            here: env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            agent: path("SSH_AUTH_SOCK"),
            control,
            ssh_host: text("TERMINUS_SSH_HOST"),
            wake_url: text("PANTHEONFS_WAKE_URL"),
            state_root,
            cache_root: root("XDG_CACHE_HOME", ".cache").ok_or_else(homeless)?,
            home,
        })
    }

    /// Where what must survive is kept for one environment.
    pub(super) fn state_dir(&self, key: &str) -> CliResult<PathBuf> {
        private_dir(&self.state_root, &[key])
    }

    pub(super) fn state_path(&self, key: &str) -> PathBuf {
        self.state_root.join(key)
    }

    /// The state directory of an environment that was mounted before.
    pub(super) fn known_state_dir(&self, key: &str) -> Option<PathBuf> {
        Some(self.state_path(key)).filter(|dir| dir.is_dir())
    }

    /// Where what is known of one environment's tree is kept. Free to delete.
    pub(super) fn cache_dir(&self, key: &str) -> CliResult<PathBuf> {
        private_dir(&self.cache_root, &[key])
    }

    /// Where the content of a site's files is kept. Free to delete.
    pub(super) fn content_dir(&self, key: &str) -> CliResult<PathBuf> {
        private_dir(&self.cache_root, &["content", key])
    }

    /// Where a site's repository is kept. Free to delete.
    pub(super) fn mirror_dir(&self, site: &str) -> CliResult<PathBuf> {
        private_dir(&self.cache_root, &["mirror", &format!("{site}.git")])
    }

    /// A copy of what a revert takes away, under a name that is free.
    pub(super) fn keep_reverted(&self, source: &std::ffi::OsStr, inside: &Path, content: &[u8]) -> CliResult<PathBuf> {
        let key = self.sites.key(&super::source::Source::parse(source)?);
        let wanted = self.state_dir(&key)?.join("reverted").join(inside);
        let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("{}: {e}", wanted.display()));
        DirBuilder::new().recursive(true).mode(0o700).create(wanted.parent().unwrap_or(&wanted)).map_err(failed)?;
        for n in 0..10_000 {
            let mut name = wanted.clone().into_os_string();
            name.push(if n == 0 { String::new() } else { format!(".{n}") });
            match std::fs::File::options().write(true).create_new(true).mode(0o600).open(&name) {
                Ok(mut file) => {
                    std::io::Write::write_all(&mut file, content).and_then(|()| file.sync_all()).map_err(failed)?;
                    return Ok(name.into());
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::new(Exit::Failed, format!("{}: {error}", wanted.display()))),
            }
        }
        Err(Failure::new(Exit::Failed, format!("{}: too many copies", wanted.display())))
    }
}

/// Makes a directory below one of ours that only its owner can look into.
fn private_dir(root: &Path, below: &[&str]) -> CliResult<PathBuf> {
    let failed = |dir: &Path, e: std::io::Error| {
        let text =
            format!("{}: cannot be used: {e}; move it away, or set XDG_STATE_HOME and XDG_CACHE_HOME", dir.display());
        Failure::new(Exit::Failed, text)
    };
    let mut dir = root.to_owned();
    make_private(&dir).map_err(|e| failed(&dir, e))?;
    for name in below {
        dir.push(name);
        make_private(&dir).map_err(|e| failed(&dir, e))?;
    }
    Ok(dir)
}

/// Makes one directory private. One that somebody else put there, or that leads elsewhere, is refused: what is sent to the
/// server is read from it. Looked at through a descriptor, so that nobody exchanges it in between.
pub(super) fn make_private(dir: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    Ok(rustix::fs::fchmod(open_own(dir)?, rustix::fs::Mode::RWXU)?)
}

/// A directory that belongs to us and is no symlink.
pub(super) fn open_own(dir: &Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(|error| match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => std::io::Error::other("it is a symlink"),
        other => other.into(),
    })?;
    if rustix::fs::fstat(&opened)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("it belongs to somebody else"));
    }
    Ok(opened)
}
