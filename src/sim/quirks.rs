//! The platform's bad quirks, each a switch by name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Name, what it may be (the first is the default), what it does.
const TABLE: [(&str, &[&str], &str); 18] = [
    ("rename", &["allow", "refuse", "refuse-directories", "refuse-replace"], "what SFTP renames are answered with"),
    ("extensions", &["on", "off"], "posix-rename, statvfs and limits, for connections made from now on"),
    (
        "second-connection",
        &["allow", "refuse", "replace"],
        "a second SFTP session beside a running one; replace: the older connections end at once",
    ),
    ("pages", &["full", "single"], "single: an answer to READDIR has one entry"),
    ("reads", &["full", "short"], "short: an answer to READ has 4 KiB at most"),
    ("rsync", &["allow", "refuse"], "rsync over SSH, beside SFTP"),
    ("chmod", &["obey", "ignore"], "permissions set by the client"),
    ("auth", &["all", "keyboard-interactive"], "how users may log in; the password is the same"),
    ("ed25519-keys", &["refuse", "accept"], "user keys of that type"),
    ("diffstat", &["fresh", "stale"], "stale: frozen until somebody asks for the fresh one"),
    (
        "api",
        &["ok", "error", "burst", "malformed", "html", "slow"],
        "what the API answers; burst: 503 to two calls of three",
    ),
    ("workflow", &["succeed", "fail", "abort", "slow"], "how mode switches and commits end; slow: after 4 s"),
    ("build", &["none", "composer"], "composer: a build runs, and SFTP mode is refused meanwhile"),
    ("site", &["active", "frozen"], "frozen: the platform has put the site to rest"),
    (
        "sleep",
        &["off", "closed", "sftp"],
        "asleep until the health check is asked, and a second more; closed: connections end at once; sftp: the login works, SFTP does not",
    ),
    ("lock", &["open", "locked"], "locked: the web site asks for a password, the health check too"),
    ("test-env", &["created", "missing"], "missing: nothing was deployed to test and live yet"),
    ("host-key", &["ed25519", "rsa-sha1"], "only at the start: rsa-sha1 offers nothing but ssh-rsa"),
];

/// How the simulator behaves.
#[derive(Debug, Clone, Default)]
pub(super) struct Quirks(BTreeMap<&'static str, &'static str>);

impl Quirks {
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let names = || TABLE.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ");
        let (name, values, _) = TABLE
            .iter()
            .find(|(known, _, _)| *known == name)
            .ok_or_else(|| format!("no quirk '{name}'; there are {}", names()))?;
        let value = values
            .iter()
            .find(|known| **known == value)
            .ok_or_else(|| format!("quirk {name}: one of {}", values.join(", ")))?;
        self.0.insert(name, value);
        Ok(())
    }

    pub(super) fn get(&self, name: &str) -> &'static str {
        let default = TABLE.iter().find(|(known, _, _)| *known == name).map_or("", |(_, values, _)| values[0]);
        self.0.get(name).copied().unwrap_or(default)
    }

    /// Whether a quirk has this value.
    pub(super) fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == value
    }

    pub(super) fn describe(&self) -> Value {
        let all = TABLE.iter().map(|(name, values, text)| {
            ((*name).to_owned(), json!({ "now": self.get(name), "one_of": values, "what": text }))
        });
        Value::Object(all.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn habits_have_defaults_and_refuse_nonsense() {
        let mut quirks = Quirks::default();
        assert!(quirks.is("rename", "allow"));
        quirks.set("rename", "refuse").expect("known");
        assert!(quirks.is("rename", "refuse"));
        assert!(quirks.set("rename", "perhaps").is_err());
        assert!(quirks.set("nonsense", "on").expect_err("unknown").contains("rename"));
    }
}
