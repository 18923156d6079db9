//! The sources of content, for the status: the local repository, with the kinds of proof, or the server.

use serde_json::{Value, json};

/// See the module documentation. Counts are files unless a field says bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Number of files in the deployed commit, and how many are proved to be unchanged on the server.
    pub files: u64,
    pub proved: u64,
    /// Files by kind of proof.
    pub frozen: u64,
    pub verified: u64,
    pub attested: u64,
    pub carried: u64,
    /// Files and bytes read from the repository.
    pub read_files: u64,
    pub read_bytes: u64,
    /// How many of them were compared with the server.
    pub audited: u64,
    /// Why nothing is read from the repository.
    pub off: Option<String>,
    /// Why the server gave no checksums.
    pub not_attested: Option<String>,
}

impl Origin {
    /// The text of the line in `status`.
    pub(super) fn text(&self) -> String {
        if let Some(why) = &self.off {
            return format!("not used: {why}");
        }
        let kinds = [
            (self.frozen, "in frozen code"),
            (self.attested, "the server's checksums"),
            (self.verified, "read once"),
            (self.carried, "unchanged since an earlier mount"),
        ];
        let kinds: Vec<String> = kinds.iter().filter(|(n, _)| *n > 0).map(|(n, kind)| format!("{n} {kind}")).collect();
        let why = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
        format!(
            "{} of {} files are as committed{why}; {} read from there ({} bytes), {} of them compared with the server",
            self.proved, self.files, self.read_files, self.read_bytes, self.audited
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "files": self.files,
            "proved": self.proved,
            "proofs": {
                "frozen": self.frozen,
                "verified": self.verified,
                "attested": self.attested,
                "carried": self.carried,
            },
            "read_files": self.read_files,
            "read_bytes": self.read_bytes,
            "audited": self.audited,
            "off": self.off,
            "not_attested": self.not_attested,
        })
    }
}
