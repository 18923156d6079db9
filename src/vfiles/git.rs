//! The `.git` of the mount, for the status.

use std::path::PathBuf;

use serde_json::{Value, json};

/// What is known of it.
#[derive(Debug, Clone, Default)]
pub struct GitStatus {
    /// The git directory on this machine.
    pub dir: PathBuf,
    /// Whether the mount shows `.git`.
    pub shown: bool,
    /// The branch of the environment; `None`: it runs a tag.
    pub branch: Option<String>,
    /// Whether the server has a `.git` in the code directory, in whose place the one of this machine is shown.
    pub hides: bool,
    /// Number of commits that `git log` can show, and whether these are all.
    pub commits: usize,
    pub complete: bool,
    /// Why `.git` is not shown, or not at the commit that runs.
    pub trouble: Option<String>,
}

impl GitStatus {
    pub(super) fn text(&self) -> String {
        let mut parts = Vec::new();
        match (self.shown, &self.branch) {
            (false, _) => parts.push("not ready".to_owned()),
            (true, Some(branch)) => parts.push(format!("on {branch}")),
            (true, None) => parts.push("on the tag that runs".to_owned()),
        }
        if self.commits > 0 {
            let more = if self.complete { "" } else { " so far; older ones are being fetched" };
            parts.push(format!("{} commit(s){more}", self.commits));
        }
        parts.extend(self.trouble.clone());
        if self.hides {
            parts.push("the server's .git is hidden by this one".to_owned());
        }
        parts.join("; ")
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "dir": self.dir, "shown": self.shown, "branch": self.branch, "hides": self.hides,
            "commits": self.commits, "complete": self.complete, "trouble": self.trouble,
        })
    }
}
