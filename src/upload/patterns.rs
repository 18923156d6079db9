//! The patterns of names that stay on this machine (`.pantheon/local`), in the syntax of `gitignore`. They are kept in a file
//! of the state directory.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use parking_lot::Mutex;

use crate::durable;
use crate::path::RemotePath;

/// The name in the state directory.
const FILE: &str = "local-names";
/// What is in the file as long as the user has not changed it: what programs keep beside the code for themselves.
const FIRST: &str = "\
# Names that are made here and stay on this machine: one pattern of gitignore in a line.
# What the server has under such a name is shown and changed there.
.git
.idea/
.vscode/
.fleet/
*.code-workspace
";

/// See the module documentation.
pub(super) struct Patterns {
    file: PathBuf,
    now: Mutex<(String, Gitignore)>,
}

impl Patterns {
    /// `first`: whether there are patterns before the user gives any.
    pub(super) fn open(state_dir: &Path, first: bool) -> Self {
        let file = state_dir.join(FILE);
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => (if first { FIRST } else { "" }).to_owned(),
            Err(error) => {
                log::error!("{}: {error}; no pattern of names that stay here is used", file.display());
                String::new()
            }
        };
        let rules = rules(&text).unwrap_or_else(|error| {
            log::error!("{}: {error}; no pattern of names that stay here is used", file.display());
            Gitignore::empty()
        });
        Self { file, now: Mutex::new((text, rules)) }
    }

    pub(super) fn text(&self) -> String {
        self.now.lock().0.clone()
    }

    /// Replaces all patterns, or adds lines.
    ///
    /// # Errors
    ///
    /// A line is no pattern ([`io::ErrorKind::InvalidInput`]), or the local disk fails. The patterns are as before.
    pub(super) fn change(&self, lines: &str, replace: bool) -> io::Result<()> {
        let mut now = self.now.lock();
        let mut text = if replace { String::new() } else { now.0.clone() };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(lines);
        let rules = rules(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        durable::replace(&self.file, |file| file.write_all(text.as_bytes()))?;
        *now = (text, rules);
        Ok(())
    }

    /// Whether a name that is made at this path below the code directory stays here.
    pub(super) fn match_path(&self, path: &RemotePath, is_dir: bool) -> bool {
        self.now.lock().1.matched(Path::new("/").join(path.to_os_string()), is_dir).is_ignore()
    }
}

fn rules(text: &str) -> Result<Gitignore, String> {
    let mut builder = GitignoreBuilder::new("/");
    for line in text.lines() {
        let added = match problem(line) {
            Some(problem) => Err(problem.to_owned()),
            None => builder.add_line(None, line).map(drop).map_err(|error| error.to_string()),
        };
        added.map_err(|error| format!("'{line}' is no pattern of gitignore: {error}"))?;
    }
    builder.build().map_err(|error| error.to_string())
}

/// What makes a line match no name, although the library accepts it.
fn problem(line: &str) -> Option<&'static str> {
    let class = line.rfind('[').is_some_and(|at| !line[at..].contains(']') && !line[..at].ends_with('\\'));
    match line {
        _ if line.contains('\0') => Some("no name has a zero byte"),
        _ if line.starts_with(['/', '!']) && line.trim_matches(['/', '!']).is_empty() => Some("it has no name"),
        _ if class && !line.starts_with('#') => Some("']' is missing"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_gitignore_and_are_kept() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = |text: &str| RemotePath::parse(text).expect("valid");
        let patterns = Patterns::open(dir.path(), true);
        assert!(patterns.match_path(&path(".idea"), true) && patterns.match_path(&path("a/b/.git"), true));
        assert!(!patterns.match_path(&path(".idea"), false) && !patterns.match_path(&path("index.php"), false));
        patterns.change("node_modules/\n!/keep/node_modules/\n", false).expect("added");
        patterns.change("/build", false).expect("added");
        for line in ["a{b\n", "/", "!/", "[", "x[a-", "a\0b"] {
            let error = patterns.change(line, false).expect_err("no pattern");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{line}");
        }
        drop(patterns);
        let patterns = Patterns::open(dir.path(), true);
        assert!(patterns.text().ends_with("node_modules/\n!/keep/node_modules/\n/build"), "{}", patterns.text());
        assert!(
            patterns.match_path(&path("a/node_modules"), true)
                && !patterns.match_path(&path("keep/node_modules"), true)
        );
        assert!(patterns.match_path(&path("build"), false) && !patterns.match_path(&path("a/build"), false));
        patterns.change("", true).expect("emptied");
        assert!(!Patterns::open(dir.path(), true).match_path(&path(".git"), true), "the user has removed it");
        assert!(!Patterns::open(&dir.path().join("other"), false).match_path(&path(".git"), true));
    }
}
