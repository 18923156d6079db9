//! Where content comes from: the repository on this machine, and why that may be believed, or the server.

use serde_json::{Value, json};

/// See the module header. Numbers of files unless they say bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// Of the commit that runs, and how many of them are proved to be on the server as they were committed.
    pub files: u64,
    pub proved: u64,
    /// By kind of proof.
    pub frozen: u64,
    pub verified: u64,
    pub attested: u64,
    pub carried: u64,
    /// Given out from the repository.
    pub read_files: u64,
    pub read_bytes: u64,
    /// Of these, compared with the server.
    pub audited: u64,
    /// Why nothing comes from the repository.
    pub off: Option<String>,
    /// Why the server gave no checksums.
    pub not_attested: Option<String>,
}

impl Origin {
    /// For one line of `status`.
    pub(super) fn text(&self) -> String {
        if let Some(why) = &self.off {
            return format!("not used: {why}");
        }
        let kinds = [
            (self.frozen, "nobody can change them"),
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
