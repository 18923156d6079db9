//! Environment variables and what follows from them. The only place that reads them.

use parking_lot::Mutex;
use std::env;
use std::fs::DirBuilder;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};
use super::sites::Sites;
use crate::control::ControlConfig;
use crate::path::RemotePath;
use crate::write::keep_reverted;

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

    /// The state directory of an environment that was mounted before, be it where older versions had it.
    pub(super) fn known_state_dir(&self, source: &super::source::Source) -> Option<PathBuf> {
        let keys = std::iter::once(self.sites.key(source)).chain(self.sites.former_keys(source));
        let is_dir = |dir: &PathBuf| dir.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        keys.map(|key| self.state_path(&key)).find(is_dir)
    }

    /// Where the state of all environments is.
    pub(super) fn state_root(&self) -> CliResult<PathBuf> {
        private_dir(&self.state_root, &[])
    }

    pub(super) fn cache_path(&self, key: &str) -> PathBuf {
        self.cache_root.join(key)
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
        let state_dir = self.state_dir(&key)?;
        let failed = |e: std::io::Error| {
            let text = format!("{}: no copy could be kept in {}: {e}", inside.display(), state_dir.display());
            Failure::new(Exit::Failed, text)
        };
        let path = RemotePath::parse(inside.as_os_str().as_bytes()).map_err(|e| failed(std::io::Error::other(e)))?;
        keep_reverted(&state_dir, &path, content).map_err(failed)
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

/// The content of a file that belongs to us, below a directory that does, and when it was written. No symlink is followed on
/// the way.
pub(super) fn read_own(dir: &Path, below: &Path) -> std::io::Result<(Vec<u8>, std::time::SystemTime)> {
    use rustix::fs::{Mode, OFlags, openat};
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let mut at = open_own(dir)?;
    let mut names = below.components().peekable();
    while let Some(name) = names.next() {
        let std::path::Component::Normal(name) = name else {
            return Err(std::io::Error::other("its path leads out of the directory"));
        };
        let more = if names.peek().is_some() { OFlags::DIRECTORY } else { OFlags::empty() };
        at = openat(&at, name, flags | more, Mode::empty()).map_err(no_symlink)?;
    }
    let mut file = std::fs::File::from(at);
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(std::io::Error::other("it is no regular file"));
    }
    is_own(&file)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok((bytes, meta.modified()?))
}

fn no_symlink(error: rustix::io::Errno) -> std::io::Error {
    match error {
        rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => std::io::Error::other("it is a symlink"),
        other => other.into(),
    }
}

fn is_own(opened: impl std::os::fd::AsFd) -> std::io::Result<()> {
    if rustix::fs::fstat(opened)?.st_uid != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other("it belongs to somebody else"));
    }
    Ok(())
}

/// A directory that belongs to us and is no symlink.
pub(super) fn open_own(dir: &Path) -> std::io::Result<OwnedFd> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(dir, flags, Mode::empty()).map_err(no_symlink)?;
    is_own(&opened)?;
    Ok(opened)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{chown, symlink};

    use super::*;

    #[test]
    fn only_own_files_are_read_and_no_symlink_is_followed() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (root, secret) = (dir.path().join("state"), dir.path().join("secret"));
        fs::create_dir_all(root.join("conflicts/code")).expect("made");
        fs::write(root.join("conflicts/code/a"), "mine").expect("written");
        fs::write(&secret, "secret").expect("written");
        let read = |below: &str| read_own(&root, Path::new(below)).map(|(bytes, _)| bytes);
        assert_eq!(read("conflicts/code/a").expect("own"), b"mine");
        symlink(&secret, root.join("conflicts/code/link")).expect("linked");
        symlink(dir.path(), root.join("conflicts/elsewhere")).expect("linked");
        symlink(&root, dir.path().join("state-link")).expect("linked");
        for below in ["conflicts/code/link", "conflicts/elsewhere/secret", "../secret", "conflicts/code"] {
            assert!(read(below).is_err(), "{below}");
        }
        assert!(read_own(&dir.path().join("state-link"), Path::new("conflicts/code/a")).is_err());
        if rustix::process::geteuid().is_root() {
            chown(root.join("conflicts/code/a"), Some(65534), None).expect("given away");
            assert!(read("conflicts/code/a").is_err(), "somebody else's file");
        }
    }
}
