//! Applies git's rules to the paths of the server's work tree: which files are ignored, which are converted for a commit,
//! and what a commit would contain. Git itself answers, in a temporary local work tree that has only the rules of the
//! server's: its current `.gitignore` and `.gitattributes` files, committed or not, and some settings.
//!
//! Nothing from the server is executed. The configuration is written by this room and never contains filter drivers, and
//! the user's own settings are not read.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use git2::{Oid, Repository};
use tempfile::TempDir;

use super::{Mirror, MirrorError};
use crate::attr::BlobId;
use crate::path::RemotePath;

/// Time limit of a git command: matching some patterns takes very long.
const LIMIT: Duration = Duration::from_secs(120);
/// Settings of the server's repository that are applied; only alphanumeric values are accepted.
const SETTINGS: [&str; 4] = ["autocrlf", "eol", "filemode", "ignorecase"];
/// Attributes that convert content between a work tree and a commit.
const ATTRIBUTES: [&str; 6] = ["text", "eol", "crlf", "ident", "filter", "working-tree-encoding"];

/// Environment variables that are removed, because they would change the result.
pub(super) const REMOVED_VARIABLES: [&str; 10] = [
    "GIT_INDEX_FILE",
    "GIT_OBJECT_DIRECTORY",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_NAMESPACE",
    "GIT_CONFIG",
    "GIT_CONFIG_PARAMETERS",
    "GIT_CONFIG_COUNT",
    "GIT_ATTR_SOURCE",
    "GIT_TRACE",
];

/// How a file is converted between a commit and the work tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Conversion {
    /// Line endings, only when committed.
    LinesIn,
    /// Line endings, when committed and checked out.
    Lines,
    /// Any conversion.
    Any,
}

/// See the module documentation.
pub struct WorkTree {
    dir: TempDir,
    /// Whether there are rules or settings for conversions.
    converts: bool,
    /// Whether there are rules for ignored files.
    ignores: bool,
    autocrlf: Option<String>,
    modes: bool,
}

/// The known settings of the section `core` in a `.git/config`.
fn settings(config: &[u8]) -> Vec<(&'static str, String)> {
    let (mut core, mut found) = (false, Vec::new());
    for line in String::from_utf8_lossy(config).lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[') {
            core = section.split(']').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("core"));
        } else if let (true, Some((key, value))) = (core, line.split_once('=')) {
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_ascii_lowercase());
            let word = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric());
            if let Some(known) = SETTINGS.into_iter().find(|known| *known == key).filter(|_| word) {
                found.push((known, value));
            }
        }
    }
    found
}

fn is_off(value: &str) -> bool {
    ["false", "no", "off", "0"].contains(&value)
}

impl Mirror {
    /// A work tree of the commit with these files of rules: `.gitignore` and `.gitattributes` in any directory, and
    /// `.git/config`, `.git/info/exclude` and `.git/info/attributes`, if they are readable on the server.
    pub fn work_tree(&self, commit: &str, rules: &[(RemotePath, Vec<u8>)]) -> Result<WorkTree, MirrorError> {
        let dir = tempfile::Builder::new().prefix("rules-").tempdir_in(&self.config.dir)?;
        let git = dir.path().join(".git");
        for below in ["objects/info", "refs", "info"] {
            fs::create_dir_all(git.join(below))?;
        }
        let mut objects = fs::canonicalize(self.config.dir.join("objects"))?.into_os_string().into_vec();
        objects.push(b'\n');
        fs::write(git.join("objects/info/alternates"), objects)?;
        fs::write(git.join("HEAD"), "ref: refs/heads/none\n")?;
        let config = rules.iter().find(|(path, _)| path.as_bytes() == b".git/config");
        let set = config.map(|(_, text)| settings(text)).unwrap_or_default();
        let mut text = String::from("[core]\nrepositoryformatversion = 0\nbare = false\ncompression = 0\n");
        set.iter().for_each(|(key, value)| text += &format!("{key} = {value}\n"));
        fs::write(git.join("config"), text)?;
        let modes = !set.iter().any(|(key, value)| *key == "filemode" && is_off(value));
        let autocrlf = set.into_iter().rev().find(|(key, _)| *key == "autocrlf").map(|(_, value)| value);
        let autocrlf = autocrlf.filter(|value| !is_off(value));
        let (mut converts, mut ignores) = (autocrlf.is_some(), false);
        for (path, content) in rules {
            let name = path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
            let inside = path.names().next().is_some_and(|first| first.as_bytes() == b".git");
            let hidden = path.names().any(|name| name.as_bytes().eq_ignore_ascii_case(b".git"));
            match (inside, path.as_bytes()) {
                (true, b".git/info/exclude") => ignores = true,
                (true, b".git/info/attributes") => converts = true,
                (false, _) if hidden => continue,
                (false, _) if name == b".gitignore" => ignores = true,
                (false, _) if name == b".gitattributes" => converts = true,
                _ => continue,
            }
            let place = dir.path().join(path.to_os_string());
            place.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(place, content)?;
        }
        // If the work tree has no attributes, git uses the committed ones.
        converts |= self.tree(commit)?.keys().any(|path| is_named(path, b".gitattributes"));
        let tree = WorkTree { dir, converts, ignores, autocrlf, modes };
        if converts {
            tree.git(&["read-tree", commit], &[])?;
        }
        Ok(tree)
    }
}

impl Mirror {
    /// Files of the commit that may be converted on checkout, according to the committed attributes.
    pub fn converted(&self, commit: &str) -> Result<BTreeSet<RemotePath>, MirrorError> {
        let tree = self.tree(commit)?;
        if !tree.keys().any(|path| is_named(path, b".gitattributes")) {
            return Ok(BTreeSet::new());
        }
        let found = self.work_tree(commit, &[])?.converted(tree.keys())?;
        Ok(found.into_iter().filter(|(_, how)| *how != Conversion::LinesIn).map(|(path, _)| path).collect())
    }
}

/// Whether the path is a file with rules: see [`Mirror::work_tree`].
pub fn has_rules(path: &RemotePath) -> bool {
    let parts: [&[u8]; 3] = [b".git/config", b".git/info/exclude", b".git/info/attributes"];
    parts.contains(&path.as_bytes())
        || (!is_git(path) && (is_named(path, b".gitignore") || is_named(path, b".gitattributes")))
}

/// Whether the path is a git directory or in one; git never tracks these.
pub fn is_git(path: &RemotePath) -> bool {
    path.names().any(|name| name.as_bytes() == b".git")
}

fn is_named(path: &RemotePath, name: &[u8]) -> bool {
    path.file_name().is_some_and(|own| own.as_bytes() == name)
}

impl WorkTree {
    /// Whether permission bits are compared (`core.fileMode`).
    pub fn compares_modes(&self) -> bool {
        self.modes
    }

    /// Those of the paths that git ignores. None of them may be committed.
    pub fn ignored<'a>(
        &self,
        paths: impl Iterator<Item = &'a RemotePath>,
    ) -> Result<BTreeSet<RemotePath>, MirrorError> {
        if !self.ignores {
            return Ok(BTreeSet::new());
        }
        let asked = joined(paths);
        if asked.is_empty() {
            return Ok(BTreeSet::new());
        }
        let said = self.git(&["check-ignore", "--no-index", "-z", "--stdin"], &asked)?;
        Ok(said.split(|&b| b == 0).filter(|name| !name.is_empty()).filter_map(|n| RemotePath::parse(n).ok()).collect())
    }

    /// Those of the paths that git converts.
    pub fn converted<'a>(
        &self,
        paths: impl Iterator<Item = &'a RemotePath>,
    ) -> Result<BTreeMap<RemotePath, Conversion>, MirrorError> {
        let mut out = BTreeMap::new();
        if !self.converts {
            return Ok(out);
        }
        let asked = joined(paths);
        let said = self.git(&[&["check-attr", "-z", "--stdin"][..], &ATTRIBUTES].concat(), &asked)?;
        let words: Vec<&[u8]> = said.split(|&b| b == 0).collect();
        for about in words.chunks_exact(3 * ATTRIBUTES.len()) {
            let Ok(path) = RemotePath::parse(about[0]) else { continue };
            let values: Vec<&[u8]> = about.chunks_exact(3).map(|three| three[2]).collect();
            if let Some(conversion) = self.conversion(&values) {
                out.insert(path, conversion);
            }
        }
        Ok(out)
    }

    /// The conversion for these attribute values, in the order of [`ATTRIBUTES`].
    fn conversion(&self, values: &[&[u8]]) -> Option<Conversion> {
        let is = |at: usize, value: &[u8]| values.get(at).is_some_and(|found| *found == value);
        let off = |at: usize| is(at, b"unset") || is(at, b"unspecified");
        if !off(3) || !off(4) || !off(5) {
            return Some(Conversion::Any);
        }
        let old = if is(0, b"unspecified") { 2 } else { 0 };
        if is(old, b"unset") {
            return None;
        }
        let auto = self.autocrlf.as_deref().is_some_and(|value| value != "input");
        if is(1, b"crlf") || (auto && !is(1, b"lf")) {
            return Some(Conversion::Lines);
        }
        let text = !is(old, b"unspecified") || is(1, b"lf") || self.autocrlf.is_some();
        text.then_some(Conversion::LinesIn)
    }

    /// Creates a file for the server's content, to be converted by [`WorkTree::clean`].
    pub fn create(&self, path: &RemotePath, executable: bool) -> io::Result<File> {
        let place = self.dir.path().join(path.to_os_string());
        place.parent().map_or(Ok(()), fs::create_dir_all)?;
        let mode = if executable { 0o700 } else { 0o600 };
        File::options().read(true).write(true).create(true).truncate(true).mode(mode).open(place)
    }

    /// The blobs that a commit would have of the created files. A file that git cannot convert has none.
    pub fn clean(&self, paths: &[RemotePath]) -> Result<BTreeMap<RemotePath, BlobId>, MirrorError> {
        let mut out = BTreeMap::new();
        if paths.is_empty() {
            return Ok(out);
        }
        let update = ["update-index", "--add", "--replace", "-z", "--stdin"];
        if self.git(&update, &joined(paths.iter())).is_err() {
            // If one cannot be converted, the others still can.
            for path in paths {
                if let Err(error) = self.git(&update, &joined(std::iter::once(path))) {
                    log::info!("{path}: {error}");
                }
            }
        }
        let wanted: BTreeSet<&RemotePath> = paths.iter().collect();
        // `MODE OBJECT STAGE TAB PATH`.
        for line in self.git(&["ls-files", "-s", "-z"], &[])?.split(|&b| b == 0) {
            let Some(tab) = line.iter().position(|&b| b == b'\t') else { continue };
            let object = line.get(7..47).and_then(|hex| BlobId::parse(std::str::from_utf8(hex).ok()?));
            if let (Some(blob), Ok(path)) = (object, RemotePath::parse(&line[tab + 1..]))
                && wanted.contains(&path)
            {
                out.insert(path, blob);
            }
        }
        Ok(out)
    }

    /// The unconverted content of a created file.
    pub fn raw(&self, path: &RemotePath) -> io::Result<Vec<u8>> {
        fs::read(self.dir.path().join(path.to_os_string()))
    }

    /// The bytes of a blob of the commit or of [`WorkTree::clean`].
    pub fn blob(&self, blob: BlobId) -> Result<Vec<u8>, MirrorError> {
        let repo = Repository::open(self.dir.path())?;
        Ok(repo.find_blob(Oid::from_bytes(&blob.0)?)?.content().to_vec())
    }

    /// Runs git in this work tree, within [`LIMIT`]; returns its output.
    fn git(&self, args: &[&str], input: &[u8]) -> Result<Vec<u8>, MirrorError> {
        let failed = |what: String| MirrorError::Git(format!("git {}: {what}", args.first().unwrap_or(&"")));
        let (mut given, mut said, mut trouble) = (tempfile::tempfile()?, tempfile::tempfile()?, tempfile::tempfile()?);
        given.write_all(input)?;
        given.rewind()?;
        let mut command = Command::new("git");
        for name in REMOVED_VARIABLES {
            command.env_remove(name);
        }
        let nowhere: PathBuf = self.dir.path().join(".git/none");
        command.env("HOME", &nowhere).env("XDG_CONFIG_HOME", &nowhere).env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1").env("LC_ALL", "C");
        command.env("GIT_DIR", self.dir.path().join(".git")).env("GIT_WORK_TREE", self.dir.path());
        command.args(args).current_dir(self.dir.path());
        command.stdin(given).stdout(said.try_clone()?).stderr(Stdio::from(trouble.try_clone()?));
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let (until, mut pause) = (Instant::now() + LIMIT, Duration::from_micros(500));
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() > until {
                // It may have ended meanwhile.
                let _ = child.kill();
                child.wait()?;
                return Err(failed(format!("not done within {} s", LIMIT.as_secs())));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        };
        let mut out = Vec::new();
        said.rewind()?;
        said.read_to_end(&mut out)?;
        // check-ignore exits with 1 if nothing is ignored.
        let nothing = args.first() == Some(&"check-ignore") && status.code() == Some(1);
        if status.success() || nothing {
            return Ok(out);
        }
        let mut text = String::new();
        trouble.rewind()?;
        // If the message cannot be read, the error says only `failed`.
        let _ = trouble.take(4096).read_to_string(&mut text);
        Err(failed(text.lines().next_back().unwrap_or("failed").to_owned()))
    }
}

/// The names, each followed by a zero byte.
fn joined<'a>(paths: impl Iterator<Item = &'a RemotePath>) -> Vec<u8> {
    paths.flat_map(|path| [path.as_bytes(), b"\0"].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).expect("valid")
    }

    fn tree(rules: &[(&str, &str)]) -> (TempDir, WorkTree) {
        let (dir, mirror, commit) = super::super::sample(b"one\n");
        let rules: Vec<_> = rules.iter().map(|(name, text)| (path(name), text.as_bytes().to_vec())).collect();
        let tree = mirror.work_tree(&commit, &rules).expect("made");
        (dir, tree)
    }

    #[test]
    fn nested_rules_ignore_as_git_does() {
        let rules =
            [(".gitignore", "*.log\nbuild/\n"), ("sub/.gitignore", "!keep.log\n"), ("build/.gitignore", "!in.txt\n")];
        let (_dir, tree) = tree(&rules);
        let asked = ["a.log", "sub/keep.log", "sub/b.log", "build/in.txt", "a.php"].map(path);
        let ignored = tree.ignored(asked.iter()).expect("said");
        assert_eq!(ignored.into_iter().collect::<Vec<_>>(), ["a.log", "build/in.txt", "sub/b.log"].map(path));
    }

    #[test]
    fn attributes_and_settings_define_conversions() {
        let text = "*.txt text eol=crlf\n*.php text eol=lf\n*.bin -text\n*.id ident\n*.x filter=lfs\n\
                    *.w working-tree-encoding=UTF-16\n";
        let (_dir, tree_of) = tree(&[(".gitattributes", text)]);
        let asked = ["a.txt", "b.php", "c.bin", "d.id", "e.x", "f.w", "g.css"].map(path);
        let found: Vec<_> = tree_of.converted(asked.iter()).expect("said").into_values().collect();
        use Conversion::{Any, Lines, LinesIn};
        assert_eq!(found, [Lines, LinesIn, Any, Any, Any]);
        let (_dir, tree) = tree(&[(".git/config", "[user]\nautocrlf = x\n[core]\n\tautoCRLF = true\n"), ("x", "")]);
        let asked = [path("g.css")];
        assert_eq!(tree.converted(asked.iter()).expect("said").into_values().collect::<Vec<_>>(), [Lines]);
    }

    #[test]
    fn clean_returns_the_blobs_of_a_commit() {
        let (_dir, tree) = tree(&[(".gitattributes", "*.txt text eol=crlf\n*.id ident\n")]);
        let files = [("a.txt", "one\r\ntwo\r\n", "one\ntwo\n"), ("b.id", "$Id: 12 $\n", "$Id$\n")];
        for (name, there, _) in files {
            tree.create(&path(name), false).expect("made").write_all(there.as_bytes()).expect("written");
        }
        let clean = tree.clean(&files.map(|(name, ..)| path(name))).expect("said");
        for (name, _, committed) in files {
            assert_eq!(tree.blob(clean[&path(name)]).expect("there"), committed.as_bytes(), "{name}");
        }
    }

    #[test]
    fn only_known_words_of_the_servers_configuration_are_used() {
        let found =
            settings(b"[core]\n fsmonitor = evil\n eol = lf; rm\n filemode=false\n[filter \"x\"]\n clean = evil\n");
        assert_eq!(found, [("filemode", "false".to_owned())]);
    }
}
