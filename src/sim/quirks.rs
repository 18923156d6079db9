//! Quirks: how servers behave in practice, each a switch with a name.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Name, possible values (the first is the default), and meaning.
const TABLE: [(&str, &[&str], &str); 29] = [
    ("rename", &["allow", "refuse", "refuse-directories", "refuse-replace"], "which renames the SFTP server refuses"),
    ("sites-default", &["writable", "read-only"], "read-only: sites/default and what is in it, as Drupal leaves them"),
    ("extensions", &["on", "off"], "whether new connections offer posix-rename, statvfs and limits"),
    (
        "second-connection",
        &["allow", "refuse", "replace"],
        "a second SFTP session beside a running one; replace: the older connections end at once",
    ),
    (
        "handles",
        &["told", "few"],
        "few: a session has 20 at most and does not tell; told: 200, which the server tells new connections",
    ),
    ("copy-data", &["on", "off", "wrong"], "whether new connections offer copy-data; wrong: it copies zeros"),
    ("pages", &["full", "single"], "single: an answer to READDIR has one entry"),
    ("reads", &["full", "short"], "short: an answer to READ has 4 KiB at most"),
    ("rsync", &["allow", "refuse"], "whether rsync may run over SSH"),
    ("chmod", &["obey", "ignore"], "whether permissions that the client sets take effect"),
    ("auth", &["all", "keyboard-interactive"], "which ways to log in are offered; the password is the same"),
    ("ed25519-keys", &["refuse", "accept"], "whether user keys of that type are accepted"),
    ("diffstat", &["fresh", "stale"], "stale: the environment has the list of the last direct request for it"),
    (
        "api",
        &["ok", "error", "error-page", "burst", "malformed", "html", "slow"],
        "how the API answers; burst: 503 to two calls of three",
    ),
    ("workflow", &["succeed", "fail", "abort", "slow"], "how mode switches and commits end; slow: after 4 s"),
    (
        "sync",
        &["short", "long", "unseen", "lost", "none"],
        "the sync_code after a commit, which moves target_commit at its end: after 2 s, after 8 s; unseen: target_commit never moves; lost: nor does the commit get into the history; none: it moves at once",
    ),
    ("styx-header", &["off", "on"], "on: the health check has the header of the platform's older CDN"),
    (
        "login",
        &["session", "access-token", "float", "text", "date", "null", "missing", "brief", "error", "busy"],
        "the answer to a login: how it names the session, and how its end, five minutes later; brief: sessions end after 65 s; error: 500 to two of three; busy: 429",
    ),
    ("api-clock", &["right", "behind"], "behind: the platform's clock is an hour behind that of this machine"),
    ("ended-session", &["401", "403"], "the status for a session that has ended"),
    (
        "limit",
        &["lenient", "strict", "strict-retry-after"],
        "429 after 600 calls a minute; strict: 429 to the next call, once; strict-retry-after: with Retry-After: 2",
    ),
    (
        "single-environment",
        &["404", "served"],
        "a request for one environment: 404, as clients have used only the list since 2017; served: as in recordings of 2016",
    ),
    (
        "changes",
        &["supported", "409", "answer-lost", "refused"],
        "409: the platform does not support workflows for this site; answer-lost: they start, and the answer is 502; refused: they do not start, and the answer is 502",
    ),
    ("build", &["none", "composer"], "composer: a build runs, so SFTP mode is refused"),
    ("site", &["active", "frozen"], "frozen: the platform has frozen the site"),
    (
        "sleep",
        &["off", "closed", "sftp"],
        "the containers sleep until a second after the first health check; closed: connections end at once; sftp: the login works, SFTP does not",
    ),
    ("lock", &["open", "locked"], "locked: the web site and the health check need a password"),
    ("test-env", &["created", "missing"], "missing: nothing has been deployed to test and live"),
    ("host-key", &["ed25519", "rsa-sha1"], "rsa-sha1: only ssh-rsa is offered; works only at the start"),
];

/// The values of all quirks.
#[derive(Debug, Clone, Default)]
pub(super) struct Quirks(BTreeMap<&'static str, &'static str>);

impl Quirks {
    pub(super) fn set(&mut self, name: &str, value: &str) -> Result<(), String> {
        let names = || TABLE.iter().map(|(name, _, _)| *name).collect::<Vec<_>>().join(", ");
        let (name, values, _) = TABLE
            .iter()
            .find(|(known, _, _)| *known == name)
            .ok_or_else(|| format!("there is no quirk '{name}'; the quirks are {}", names()))?;
        let value = values
            .iter()
            .find(|known| **known == value)
            .ok_or_else(|| format!("quirk '{name}' takes one of {}", values.join(", ")))?;
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
    fn quirks_have_defaults_and_refuse_nonsense() {
        let mut quirks = Quirks::default();
        assert!(quirks.is("rename", "allow"));
        quirks.set("rename", "refuse").expect("known");
        assert!(quirks.is("rename", "refuse"));
        assert!(quirks.set("rename", "perhaps").is_err());
        assert!(quirks.set("nonsense", "on").expect_err("unknown").contains("rename"));
    }
}
