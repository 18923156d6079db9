//! Removes secrets from text that a user may send to others: what is known to be secret, and what looks like it.

use std::path::Path;

/// What stands in the place of a secret.
const REMOVED: &str = "[removed]";
/// Names in front of `=` or `:` whose value is secret.
const NAMES: [&str; 8] = ["password", "passphrase", "passwd", "token", "authorization", "cookie", "secret", "session"];
/// Shorter values are not replaced where they are known: they would match ordinary words.
const MIN_KNOWN_CHARS: usize = 8;
/// Words that are this long and mix letters and digits are taken for keys.
const MIN_KEY_CHARS: usize = 40;

/// Removes secrets.
pub(super) struct Redactor {
    /// Values that are secret wherever they are.
    known: Vec<String>,
    home: Option<String>,
}

impl Redactor {
    pub(super) fn new(known: Vec<String>, home: Option<&Path>) -> Self {
        let mut known: Vec<String> =
            known.into_iter().filter(|value| value.chars().count() >= MIN_KNOWN_CHARS).collect();
        // One that is part of another must not leave the rest of it.
        known.sort_by_key(|value| std::cmp::Reverse(value.len()));
        let home = home.map(|home| home.display().to_string()).filter(|home| home.len() > 1);
        Self { known, home }
    }

    /// The text without secrets, with `~` for the home directory.
    pub(super) fn clean(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.known {
            text = text.replace(secret, REMOVED);
        }
        if let Some(home) = &self.home {
            text = text.replace(home, "~");
        }
        text.split_inclusive('\n').map(line).collect()
    }
}

fn line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut value_is_secret = false;
    for piece in
        text.split_inclusive(|c: char| c.is_whitespace() || matches!(c, ',' | '"' | '\'' | '=' | ';' | '(' | ')'))
    {
        let (word, end) = piece.char_indices().next_back().map_or(("", ""), |(at, last)| {
            let is_end = last.is_whitespace() || matches!(last, ',' | '"' | '\'' | '=' | ';' | '(' | ')');
            if is_end { piece.split_at(at) } else { (piece, "") }
        });
        if word.is_empty() {
            out.push_str(end);
            continue;
        }
        if value_is_secret && word != ":" && !is_scheme(word) {
            out.push_str(REMOVED);
            value_is_secret = false;
        } else {
            out.push_str(&clean_word(word));
            value_is_secret = value_is_secret || names_secret(word, end);
        }
        out.push_str(end);
    }
    out
}

/// `Bearer` and `Basic` stand between the name and the secret.
fn is_scheme(word: &str) -> bool {
    ["bearer", "basic"].contains(&word.to_lowercase().as_str())
}

/// Whether the next word is the value of something secret: `password=`, `Token:`, `Bearer `.
fn names_secret(word: &str, end: &str) -> bool {
    let name = word.trim_end_matches(':').to_lowercase();
    let is_name = NAMES.iter().any(|secret| name.ends_with(secret));
    is_scheme(word) || (is_name && (end == "=" || word.ends_with(':') || end == "\""))
}

fn clean_word(word: &str) -> String {
    if let Some((name, value)) = word.split_once(':')
        && NAMES.contains(&name.to_lowercase().as_str())
        && !value.is_empty()
    {
        return format!("{name}:{REMOVED}");
    }
    if let Some((before, rest)) = word.split_once("://")
        && let Some((login, host)) = rest.split_once('@')
        && login.contains(':')
    {
        return format!("{before}://{REMOVED}@{host}");
    }
    if let Some((local, domain)) = word.split_once('@')
        && is_email(local, domain)
    {
        return format!("[user]@{domain}");
    }
    if looks_like_a_key(word) { REMOVED.to_owned() } else { word.to_owned() }
}

/// An address of a person. The logins of the platform (`dev.UUID@appserver…`) say which site it is, and stay.
fn is_email(local: &str, domain: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    let is_login = domain.starts_with("appserver.") || domain.starts_with("codeserver.");
    !local.is_empty() && local.chars().all(plain) && domain.contains('.') && !is_login
}

/// A long word of letters of both cases and digits, as tokens and keys are. Commit hashes, UUIDs and paths are not, and
/// fingerprints of host keys are marked.
fn looks_like_a_key(word: &str) -> bool {
    let is_key_char = |c: char| c.is_ascii_alphanumeric() || "+_-=.".contains(c) || c == '/';
    word.len() >= MIN_KEY_CHARS
        && word.chars().all(is_key_char)
        && word.matches('/').count() <= 3
        && !word.starts_with('/')
        && word.chars().any(|c| c.is_ascii_lowercase())
        && word.chars().any(|c| c.is_ascii_uppercase())
        && word.chars().any(|c| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(text: &str) -> String {
        Redactor::new(vec!["known-token-1".into(), "short".into()], Some(Path::new("/home/me"))).clean(text)
    }

    #[test]
    fn secrets_are_removed() {
        for (text, cleaned) in [
            ("the API said known-token-1 is bad", "the API said [removed] is bad"),
            ("password=hunter2,Port=22", "password=[removed],Port=22"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer [removed]"),
            ("{\"token\": \"abc\", \"mode\": \"git\"}", "{\"token\": \"[removed]\", \"mode\": \"git\"}"),
            ("token:abc and more", "token:[removed] and more"),
            ("https://user:pw@host.example/x", "https://[removed]@host.example/x"),
            ("mail to jane.doe@example.com now", "mail to [user]@example.com now"),
            ("/home/me/mysite/x.php", "~/mysite/x.php"),
            ("aGVsbG8gd29ybGQgdGhpcyBpcyBhIHNlY3JldCBrZXkxMjM0", "[removed]"),
        ] {
            assert_eq!(clean(text), cleaned);
        }
    }

    #[test]
    fn what_is_needed_to_understand_a_report_stays() {
        for text in [
            "short words and numbers: 17 ms\n",
            "commit 1ce6b4430f4d2b9d8a41c5c3e1fbb4a3a4d7f9e0",
            "dev.3f5b7d8e-0000-4abc-9def-0123456789ab@appserver.dev.3f5b7d8e-0000-4abc-9def-0123456789ab.drush.in:2222",
            "host key ssh-rsa SHA256:o3z6bZ0FmvT2wzq1iW7jmEoO0bT4tW0hVq1m3u7b1cA",
            "wp-content/plugins/Some-Plugin/vendor/Package1/src/Deeply/Nested/Class.php",
            "the session is used again\n\n2026-01-01T00:00:00Z INFO the token was refused\n",
        ] {
            assert_eq!(clean(text), text);
        }
    }
}
