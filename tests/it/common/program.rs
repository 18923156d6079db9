//! Running the program as a user would, in environ of its own.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A home directory, state and cache of our own, and the variables that lead to a simulator.
pub struct Environ {
    dir: TempDir,
    env: Vec<(String, String)>,
}

impl Environ {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join("home")).expect("made");
        Self { dir, env: Vec::new() }
    }

    pub fn with(mut self, env: impl IntoIterator<Item = (String, String)>) -> Self {
        self.env.extend(env);
        self
    }

    pub fn home(&self) -> PathBuf {
        self.dir.path().join("home")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pantheonfs"));
        self.dress(&mut command);
        command
    }

    /// Gives any program these environ and nothing of the developer's own.
    pub fn dress(&self, command: &mut Command) {
        let kept = ["PATH", "TERM", "LANG", "RUST_BACKTRACE"];
        let kept = kept.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command.env_clear().envs(kept).env("HOME", self.home());
        command.env("XDG_STATE_HOME", self.path("state")).env("XDG_CACHE_HOME", self.path("cache"));
        command.envs(self.env.iter().map(|(name, value)| (name, value))).stdin(Stdio::null());
    }

    pub fn run(&self, args: &[&str]) -> Ran {
        Ran(self.command().args(args).output().expect("the program runs"))
    }

    /// Everything that a test's mounts have put aside.
    /// What the drivers of all mounts have logged.
    pub fn driver_logs(&self) -> String {
        let dirs = std::fs::read_dir(self.state()).into_iter().flatten().flatten();
        dirs.filter_map(|dir| std::fs::read_to_string(dir.path().join("log")).ok()).collect()
    }

    pub fn state(&self) -> PathBuf {
        self.path("state/pantheonfs")
    }
}

/// What a run said.
pub struct Ran(pub Output);

impl Ran {
    pub fn code(&self) -> i32 {
        self.0.status.code().unwrap_or(-1)
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code(), 0, "{}{}", self.out(), self.err());
        self
    }

    /// A failure with this code whose one line says all of this.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &[&str]) {
        let text = self.err();
        assert_eq!(self.code(), code, "{}{text}", self.out());
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        for word in says {
            assert!(text.contains(word), "'{word}' is not said in: {text}");
        }
    }
}

/// Whether something is mounted on `dir`, by the kernel's own list.
pub fn is_mounted(dir: &Path) -> bool {
    let list = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let dir = dir.to_string_lossy();
    list.lines().any(|line| line.split(' ').nth(4) == Some(&*dir))
}
