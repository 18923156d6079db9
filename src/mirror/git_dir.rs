//! The git directory of a mount: what git uses as the repository of the mounted tree. It is on the local disk and reads the
//! objects of the mirror, so that it costs no traffic.
//!
//! What is in it belongs to the user: branches, the stash, the index, `config`, `hooks`. Ours are the settings in
//! `config.worktree`, which win over `config`, a part of `info/exclude`, and the directory [`HOOKS`], whose links run this
//! program, which then runs the user's own hook.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use git2::{Oid, Repository};

use super::boundary::{Boundary, history};
use super::worktree::REMOVED_VARIABLES;
use super::{Mirror, MirrorError};
use crate::durable;

/// The directory of the hooks that run this program.
pub const HOOKS: &str = "pantheonfs-hooks";
/// Hooks that git runs on the side of the user.
const HOOK_NAMES: [&str; 15] = [
    "applypatch-msg",
    "pre-applypatch",
    "post-applypatch",
    "pre-commit",
    "pre-merge-commit",
    "prepare-commit-msg",
    "commit-msg",
    "post-commit",
    "pre-rebase",
    "post-checkout",
    "post-merge",
    "pre-push",
    "post-rewrite",
    "reference-transaction",
    "pre-auto-gc",
];
/// The lines around our part of `info/exclude`.
const BEGIN: &str = "# From here on kept by pantheonfs: what is shown in the mount and never committed.";
const END: &str = "# Until here kept by pantheonfs.";

/// Where the git directory is, and what git runs.
#[derive(Debug, Clone)]
pub struct GitDirConfig {
    pub dir: PathBuf,
    /// This program.
    pub program: PathBuf,
}

/// See the module documentation.
pub struct GitDir {
    config: GitDirConfig,
    mirror: Arc<Mirror>,
}

impl GitDir {
    pub fn new(config: GitDirConfig, mirror: Arc<Mirror>) -> Self {
        Self { config, mirror }
    }

    pub fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Whether the git directory can be used: it has an index.
    pub fn is_complete(&self) -> bool {
        self.config.dir.join("index").exists()
    }

    pub(super) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Makes the git directory if it is missing, and puts our part of it in order. `branch`: that of the environment, `None`
    /// if it runs a tag; `exclude`: patterns of `gitignore`.
    ///
    /// # Errors
    ///
    /// Of the local disk.
    pub fn prepare(&self, branch: Option<&str>, exclude: &[String]) -> Result<(), MirrorError> {
        let dir = &self.config.dir;
        for below in ["objects/info", "refs/heads", "refs/tags", "info", "hooks", HOOKS] {
            fs::create_dir_all(dir.join(below))?;
        }
        let objects = fs::canonicalize(self.mirror.config.dir.join("objects"))?;
        write(&dir.join("objects/info/alternates"), &[objects.as_os_str().as_bytes(), b"\n"].concat())?;
        if !dir.join("HEAD").exists() {
            let branch = branch.unwrap_or("master");
            write(&dir.join("HEAD"), format!("ref: refs/heads/{branch}\n").as_bytes())?;
        }
        if !dir.join("config").exists() {
            self.first_config(branch)?;
        }
        self.settings()?;
        self.link_hooks()?;
        self.exclude(exclude)?;
        Ok(())
    }

    fn first_config(&self, branch: Option<&str>) -> Result<(), MirrorError> {
        let mut config = git2::Config::open(&self.config.dir.join("config"))?;
        config.set_i32("core.repositoryformatversion", 0)?;
        config.set_bool("core.bare", false)?;
        config.set_bool("core.filemode", true)?;
        config.set_bool("core.logallrefupdates", true)?;
        config.set_bool("extensions.worktreeconfig", true)?;
        config.set_str("remote.origin.url", &self.mirror.config.url)?;
        config.set_str("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")?;
        if let Some(branch) = branch {
            config.set_str(&format!("branch.{branch}.remote"), "origin")?;
            config.set_str(&format!("branch.{branch}.merge"), &format!("refs/heads/{branch}"))?;
        }
        Ok(())
    }

    /// The settings without which git is slow or would commit past the platform. They win over those of the user, because
    /// programs set `core.hooksPath` unasked; its hooks are run all the same.
    fn settings(&self) -> Result<(), MirrorError> {
        let mut config = git2::Config::open(&self.config.dir.join("config.worktree"))?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        config.set_str("core.hookspath", &text(&self.config.dir.join(HOOKS)))?;
        // Git passes it to a shell.
        let program = text(&self.config.program).replace('\'', r"'\''");
        config.set_str("core.fsmonitor", &format!("'{program}' fsmonitor"))?;
        config.set_i32("core.fsmonitorhookversion", 2)?;
        // SFTP has whole seconds, and a mount has other inode numbers each time.
        config.set_str("core.checkstat", "minimal")?;
        config.set_bool("core.trustctime", false)?;
        config.set_bool("core.untrackedcache", true)?;
        config.set_str("core.sshcommand", &self.mirror.config.ssh_command)?;
        Ok(())
    }

    fn link_hooks(&self) -> io::Result<()> {
        for name in HOOK_NAMES {
            let link = self.config.dir.join(HOOKS).join(name);
            if fs::read_link(&link).is_ok_and(|target| target == self.config.program) {
                continue;
            }
            match fs::remove_file(&link) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => symlink(&self.config.program, &link)?,
            }
        }
        Ok(())
    }

    /// Sets the patterns that git leaves out beside the user's own.
    ///
    /// # Errors
    ///
    /// Of the local disk.
    pub fn exclude(&self, patterns: &[String]) -> io::Result<()> {
        let file = self.config.dir.join("info/exclude");
        let before = fs::read_to_string(&file).unwrap_or_default();
        let after = with_part(&before, patterns);
        if before == after { Ok(()) } else { write(&file, after.as_bytes()) }
    }

    /// Takes over the mirror's branches and tags, and notes where its history ends.
    pub(super) fn take_refs(&self) -> Result<(), MirrorError> {
        let (ours, theirs) = (Repository::open(&self.config.dir)?, self.mirror.repo()?);
        let mut names = BTreeSet::new();
        for reference in theirs.references()?.flatten() {
            let (Ok(name), Some(target)) = (reference.name(), reference.target()) else { continue };
            let name = match name.strip_prefix("refs/heads/") {
                Some(branch) => format!("refs/remotes/origin/{branch}"),
                None => name.to_owned(),
            };
            if ours.refname_to_id(&name).ok() != Some(target) {
                ours.reference(&name, target, true, "as on the platform")?;
            }
            names.insert(name);
        }
        for mut reference in ours.references_glob("refs/remotes/origin/*")?.flatten() {
            let gone = reference.name().is_ok_and(|name| !names.contains(name) && !name.ends_with("/HEAD"));
            if gone {
                reference.delete()?;
            }
        }
        self.note_boundary(&ours)
    }

    /// Git demands the parents of every commit that is not listed in the file `shallow`.
    fn note_boundary(&self, ours: &Repository) -> Result<(), MirrorError> {
        let Boundary { ends, .. } = history(ours)?;
        let file = self.config.dir.join("shallow");
        let text: String = ends.iter().map(|oid| format!("{oid}\n")).collect();
        match fs::read_to_string(&file) {
            Ok(before) if before == text => {}
            _ if !text.is_empty() => write(&file, text.as_bytes())?,
            Ok(_) => fs::remove_file(&file)?,
            Err(_) => {}
        }
        Ok(())
    }

    /// The number of commits that can be shown, and whether the history is complete.
    ///
    /// # Errors
    ///
    /// The repository cannot be read.
    pub fn history(&self) -> Result<(usize, bool), MirrorError> {
        let Boundary { ends, commits } = history(&Repository::open(&self.config.dir)?)?;
        Ok((commits, ends.is_empty()))
    }

    pub(super) fn resolve(&self, reference: &str) -> Option<Oid> {
        Repository::open(&self.config.dir).ok()?.refname_to_id(reference).ok()
    }

    /// Runs git in the git directory, without hooks and without a look at the mount, which this process serves.
    pub(super) fn git(&self, args: &[&str]) -> Result<(), MirrorError> {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.config.dir);
        command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "gc.auto=0"]);
        command.args(args).current_dir("/").stdin(Stdio::null());
        for name in REMOVED_VARIABLES.into_iter().chain(["GIT_DIR", "GIT_WORK_TREE"]) {
            command.env_remove(name);
        }
        let output = command.output()?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("git failed");
        Err(MirrorError::Git(format!("git {}: {last}", args.first().copied().unwrap_or_default())))
    }
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    durable::replace_unsynced(path, |file| file.write_all(bytes)).map(drop)
}

/// The text of `info/exclude` with our part replaced.
fn with_part(text: &str, patterns: &[String]) -> String {
    let (before, rest) = text.split_once(BEGIN).unwrap_or((text, ""));
    let after = rest.split_once(END).map_or("", |(_, after)| after.trim_start_matches('\n'));
    let part: String = patterns.iter().map(|pattern| format!("{pattern}\n")).collect();
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    format!("{before}{gap}{BEGIN}\n{part}{END}\n{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_users_lines_of_exclude_stay() {
        let patterns = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let once = with_part("*.log", &patterns(&["/.pantheon/"]));
        assert_eq!(once, format!("*.log\n{BEGIN}\n/.pantheon/\n{END}\n"));
        let twice = with_part(&format!("{once}notes\n"), &patterns(&["/.pantheon/", "*~"]));
        assert_eq!(twice, format!("*.log\n{BEGIN}\n/.pantheon/\n*~\n{END}\nnotes\n"));
        assert_eq!(with_part(&twice, &patterns(&["/.pantheon/", "*~"])), twice);
    }

    #[test]
    fn our_settings_win_and_the_users_stay() {
        let (_repository, mirror, commit) = super::super::sample(b"x");
        let home = tempfile::tempdir().expect("a temporary directory");
        let config = GitDirConfig { dir: home.path().join("it's git"), program: "/bin/it's here".into() };
        let git = GitDir::new(config, Arc::new(mirror));
        git.prepare(Some("master"), &[]).expect("made");
        let own = git.dir().join("config");
        fs::write(&own, format!("{}[core]\n\thooksPath = .husky\n", fs::read_to_string(&own).expect("there")))
            .expect("written");
        git.prepare(Some("master"), &[]).expect("repeated");
        assert!(fs::read_to_string(&own).expect("there").contains("hooksPath = .husky"));
        let asked = Command::new("git")
            .arg("--git-dir")
            .arg(git.dir())
            .args(["config", "core.hooksPath"])
            .output()
            .expect("git runs");
        assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), git.dir().join(HOOKS).to_string_lossy());
        git.follow(Some("master"), &commit).expect("followed");
        assert_eq!(git.resolve("HEAD").map(|oid| oid.to_string()), Some(commit));
    }
}
