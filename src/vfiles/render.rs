//! Renders the text of each file. `status` has lines `key: value`; `status.json` has the same data.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;

use super::json;
use super::{File, Status, Write};
use crate::env::Source;
use crate::text::{json as json_text, visible as line};

/// The content of a file.
pub fn render(file: File, status: &Status) -> Vec<u8> {
    match file {
        File::Readme => readme(status),
        File::Mode => format!("{}\n", status.belief.mode),
        File::Status => status_text(status),
        File::StatusJson => json_text(&json::status(status, reminders(status))),
        File::Pending => pending(status),
        File::Connection => connection(status),
        File::Commit => commit(status),
        File::Log => log(status),
        File::Activity => activity(status),
        File::Diff => return diff(status),
        File::Ignored => ignored(status),
        File::Local => status.traffic.stays.patterns.clone(),
        File::Sync => sync(status),
        File::Hydrate => super::hydration::render(&status.traffic.hydration),
    }
    .into_bytes()
}

/// A duration in whole units that are large enough: `12 s`, `3 min`, `2 h`, `5 d`.
pub fn span(duration: Duration) -> String {
    match duration.as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

fn ago(then: SystemTime, now: SystemTime) -> String {
    format!("{} ago", span(now.duration_since(then).unwrap_or_default()))
}

fn bytes(n: u64) -> String {
    match n {
        0..10_000 => format!("{n} B"),
        10_000..10_000_000 => format!("{} kB", n / 1000),
        _ => format!("{} MB", n / 1_000_000),
    }
}

fn write_lines(out: &mut String, key: &str, write: &Write) {
    let text = match write {
        Write::Yes => "writable".to_owned(),
        Write::Held(why) => format!("waiting\n{key}-reason: {}", line(why)),
        Write::No(why) => format!("read-only\n{key}-reason: {}", line(why)),
    };
    let _ = writeln!(out, "{key}: {text}");
}

fn mode_source(status: &Status) -> String {
    match status.belief.source {
        Source::Api => format!("api, checked {}", ago(status.belief.learned, status.now)),
        Source::Remembered => {
            format!("as of {}; the platform has not answered since", ago(status.belief.learned, status.now))
        }
        Source::Option => "mount option or default; the platform has not been asked".into(),
    }
}

fn link_text(status: &Status) -> String {
    let link = &status.link;
    match &link.down {
        Some(why) => format!("down for {} ({})", span(link.lasting), line(why)),
        None => {
            let rtt = link.round_trip.map(|rtt| format!(", round trip {} ms", rtt.as_millis())).unwrap_or_default();
            format!("up for {}{rtt}", span(link.lasting))
        }
    }
}

fn pending_text(status: &Status) -> String {
    match &status.belief.diffstat {
        Some(diffstat) => format!("{} (api, checked {})", diffstat.len(), ago(status.belief.learned, status.now)),
        None => format!("unknown; {} path(s) written through this mount", status.local.written.len()),
    }
}

fn status_text(status: &Status) -> String {
    let mut out = String::new();
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(out, "{key}: {value}");
    };
    put("source", &line(&status.source));
    if let Some(environment) = &status.belief.environment {
        put("environment", &line(environment));
    }
    put("mode", &status.belief.mode.to_string());
    put("mode-source", &mode_source(status));
    if let Some(error) = &status.belief.error {
        put("mode-error", &line(error));
    }
    write_lines(&mut out, "code", &status.code);
    if let Some(uploads) = &status.uploads {
        write_lines(&mut out, "uploads", uploads);
    }
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(out, "{key}: {value}");
    };
    for job in &status.belief.running {
        put("running", &line(&job.description));
    }
    put("link", &link_text(status));
    let compressed = if status.link.compressed { ", compressed" } else { "" };
    put("transport", &format!("{} to {}{compressed}", line(&status.link.transport), line(&status.link.peer)));
    put("pending", &pending_text(status));
    put("dirty", &status.local.dirty.len().to_string());
    put("conflicts", &status.local.conflicts.len().to_string());
    put("stranded", &status.local.stranded.len().to_string());
    for (key, paths) in [
        ("dirty-path", &status.local.dirty),
        ("conflict-path", &status.local.conflicts),
        ("stranded-path", &status.local.stranded),
    ] {
        paths.iter().for_each(|path| put(key, &line(path)));
    }
    for reminder in reminders(status) {
        put("reminder", &line(reminder));
    }
    put("sent", &format!("{} file(s), {}", status.traffic.sent_files, bytes(status.traffic.sent_bytes)));
    put("fetched", &format!("{} files, {}", status.traffic.fetched_files, bytes(status.traffic.fetched_bytes)));
    put("received", &format!("{} within the last minute", bytes(status.traffic.minute_bytes)));
    if let Some(origin) = &status.traffic.origin {
        put("repository", &line(origin.text()));
    }
    if status.traffic.stays.files > 0 {
        put("local", &format!("{} file(s), {}", status.traffic.stays.files, bytes(status.traffic.stays.bytes)));
    }
    if let Some(git) = &status.local.git {
        put("git", &line(git.text()));
    }
    put("cached", &format!("{}, {} names", bytes(status.traffic.cached_bytes), status.traffic.inodes));
    put(
        "on-disk",
        &format!("{}, {} blocks read from there", bytes(status.traffic.disk_bytes), status.traffic.disk_hits),
    );
    if let Some((at, error)) = &status.last_error {
        put("last-error", &format!("{} {}", format_rfc3339_seconds(*at), line(error)));
    }
    out
}

/// Warnings and hints for the user, one sentence each.
fn reminders(status: &Status) -> Vec<String> {
    let mut out = Vec::new();
    if !status.local.lost.is_empty() {
        let first: Vec<&str> = status.local.lost.iter().take(3).map(String::as_str).collect();
        let more = if status.local.lost.len() > first.len() { ", …" } else { "" };
        out.push(format!(
            "{} path(s) changed through this mount are not on the server any more ({}{more}); see `pantheonfs rescue list`",
            status.local.lost.len(),
            first.join(", ")
        ));
    }
    // The platform's list may be older than what was written here.
    let told = status.belief.diffstat.as_ref().map_or(0, |diffstat| diffstat.len());
    let pending = told.max(status.local.backups.saturating_sub(status.local.lost.len()));
    if pending > 0 {
        let since =
            status.local.backups_since.map(|at| format!(", the oldest of this machine {}", ago(at, status.now)));
        let since = since.unwrap_or_default();
        out.push(format!("{pending} uncommitted change(s){since}; they are in no backup of the platform: commit them"));
    }
    if !status.local.ignored_written.is_empty() {
        out.push(format!(
            "{} written path(s) are matched by .gitignore and can never be committed ({})",
            status.local.ignored_written.len(),
            status.local.ignored_written[0]
        ));
    }
    let takes_code = status.belief.kind.is_some_and(crate::control::EnvKind::takes_code);
    if takes_code && status.belief.source == Source::Api {
        out.push(match status.belief.mode {
            crate::control::ConnectionMode::Sftp => "in SFTP mode git pushes and core updates wait for Git mode".into(),
            crate::control::ConnectionMode::Git => "in Git mode updates of plugins in the CMS need SFTP mode".into(),
        });
    }
    out
}

/// Lines in the format of `git status --porcelain`; each list has a comment with its source and age. The comparison
/// of the files comes first; the platform's own list, which may be outdated, is shown if it differs.
fn pending(status: &Status) -> String {
    let mut out = String::new();
    let seen = match &status.compared {
        Some((at, Ok(compared))) => {
            let commit: String = compared.commit.chars().take(12).collect();
            let _ =
                writeln!(out, "# the server's files compared with commit {}, {}", line(&commit), ago(*at, status.now));
            for file in &compared.files {
                let count = |n: Option<usize>| n.map_or("-".into(), |n| n.to_string());
                let (added, gone) = (count(file.lines.map(|l| l.0)), count(file.lines.map(|l| l.1)));
                let _ = writeln!(out, "{} {}\t+{added} -{gone}", file.letter, line(file.path.as_bytes()));
            }
            Some(compared.files.iter().map(|file| file.path.to_string()).collect::<BTreeSet<_>>())
        }
        Some((_, Err(why))) => {
            let _ = writeln!(out, "# not compared with the repository: {}", line(why));
            None
        }
        None => None,
    };
    let Some(diffstat) = &status.belief.diffstat else {
        if seen.is_none() {
            out.push_str("# the platform has not said what is uncommitted\n");
            own_writes(&mut out, status, &BTreeSet::new());
        }
        return out;
    };
    let told: BTreeSet<String> = diffstat.0.iter().map(|file| file.path.clone()).collect();
    let age = ago(status.belief.learned, status.now);
    match seen {
        Some(seen) if seen == told => {
            let _ = writeln!(out, "# the platform's API says the same, {age}");
        }
        Some(seen) => {
            let _ = writeln!(out, "# the platform's API disagrees, {age} (its list can be stale):");
            for path in told.difference(&seen) {
                let _ = writeln!(out, "# only there: {}", line(path));
            }
            for path in seen.difference(&told) {
                let _ = writeln!(out, "# not there: {}", line(path));
            }
        }
        None => {
            let _ = writeln!(out, "# from the platform's API, {age} (its list can be stale)");
            for file in &diffstat.0 {
                let _ = writeln!(
                    out,
                    "{} {}\t+{} -{}",
                    line(&file.status),
                    line(&file.path),
                    line(&file.additions),
                    line(&file.deletions)
                );
            }
            own_writes(&mut out, status, &told);
        }
    }
    out
}

fn own_writes(out: &mut String, status: &Status, told: &BTreeSet<String>) {
    let own: Vec<&String> = status.local.written.iter().filter(|path| !told.contains(path.as_str())).collect();
    if !own.is_empty() {
        out.push_str("# written through this mount and not in that list (yet)\n");
        for path in own {
            let _ = writeln!(out, "? {}", line(path));
        }
    }
}

fn diff(status: &Status) -> Vec<u8> {
    match &status.compared {
        // It is served from its file, because it may be larger than memory.
        Some((_, Ok(_))) => Vec::new(),
        Some((_, Err(why))) => format!("# there is no diff: {}\n", line(why)).into_bytes(),
        None => b"# there is no diff: this mount has no repository to compare with\n".to_vec(),
    }
}

fn ignored(status: &Status) -> String {
    match &status.compared {
        Some((_, Ok(compared))) => {
            let mut out = String::from("# on the server, and matched by .gitignore: they are never committed\n");
            for path in &compared.ignored {
                let _ = writeln!(out, "{}", line(path.as_bytes()));
            }
            out
        }
        Some((_, Err(why))) => format!("# not known: {}\n", line(why)),
        None => "# not known: this mount has no repository to compare with\n".into(),
    }
}

fn sync(status: &Status) -> String {
    let mut out = match status.local.waiting.len() {
        0 => "# nothing waits: the server has everything\n".to_owned(),
        n => format!(
            "# {n} change(s), {}, wait to be sent; write anything here to wait for them\n",
            bytes(status.local.waiting_bytes)
        ),
    };
    for what in &status.local.waiting {
        let _ = writeln!(out, "{}", line(what));
    }
    out
}

fn commit(status: &Status) -> String {
    let Some(committed) = &status.local.committed else {
        return "# nothing has been committed through this mount; write a message here to commit what is pending\n"
            .into();
    };
    let mut out = format!("commit: {}\nmessage: {}\n", line(&committed.hash), line(&committed.message));
    if let Some(found) = committed.in_repository {
        let _ = writeln!(out, "repository: {}", if found { "has it" } else { "could not be asked" });
    }
    for file in &committed.files.0 {
        let _ = writeln!(out, "{} {}", line(&file.status), line(&file.path));
    }
    out
}

/// In the format of `git log`, which users and tools know.
fn log(status: &Status) -> String {
    let mut out = String::new();
    if status.belief.log.is_empty() {
        out.push_str("# the platform has not told its history\n");
    }
    for commit in status.belief.log.iter() {
        let labels: Vec<String> = commit.labels.iter().map(line).collect();
        let on = if labels.is_empty() { String::new() } else { format!(" ({})", labels.join(", ")) };
        let _ = writeln!(
            out,
            "commit {}{on}\nAuthor: {} <{}>\nDate:   {}\n",
            line(&commit.hash),
            line(&commit.author),
            line(&commit.email),
            line(&commit.time)
        );
        for text in commit.message.lines() {
            let _ = writeln!(out, "    {}", line(text));
        }
        out.push('\n');
    }
    out
}

fn activity(status: &Status) -> String {
    let mut out = String::new();
    for job in &status.belief.running {
        let waits = job.holds.map(|why| format!("; writes wait: it {why}")).unwrap_or_default();
        let _ = writeln!(out, "{} (seen {}{waits})", line(&job.description), ago(job.seen, status.now));
    }
    if out.is_empty() { "# nothing runs on this environment\n".into() } else { out }
}

fn connection(status: &Status) -> String {
    let c = &status.connection;
    let (host, user, path) = (line(&c.host), line(&c.user), line(&c.path));
    let mut out = String::new();
    let _ = writeln!(out, "host: {host}\nport: {}\nuser: {user}\npath: {path}", c.port);
    let _ = writeln!(out, "sftp-command: sftp -o Port={} {user}@{host}", c.port);
    let slash = if path.starts_with('/') { "" } else { "/" };
    let _ = writeln!(out, "sftp-url: sftp://{user}@{host}:{}{slash}{path}", c.port);
    if let Some(url) = &c.git_url {
        let _ = writeln!(out, "git-command: git clone {}", line(url));
    }
    if !status.link.host_key.is_empty() {
        let _ = writeln!(out, "host-key: {}", line(&status.link.host_key));
    }
    for change in &status.link.changes {
        let _ = writeln!(out, "changed: {}", line(change));
    }
    out
}

fn readme(status: &Status) -> String {
    let mut out = format!(
        "This is {}, mounted by pantheonfs.\n\n\
         The files in this directory are not on the server. Read them with cat; some accept commands, as said below.\n\n\
         mode         sftp: code is edited here; git: code changes by git push only and is read-only here.\n\
         \x20            Write 'sftp' or 'git' to switch. Going to git deletes what is uncommitted, so it is refused\n\
         \x20            while there is something; 'git --discard' goes ahead.\n\
         status       mode, connection, whether writes are possible and why not, unsent changes\n\
         status.json  the same for programs\n\
         pending      what is uncommitted, as the platform says and as this mount knows\n\
         diff         the difference, as git prints it: `git apply` takes it\n\
         hydrate      write a path, or '.', to copy everything below it to this machine, for working offline\n\
         ignored      what is on the server and can never be committed\n\
         commit       write a message to commit everything that is pending; reads the last commit made here\n\
         log          the history\n\
         activity     jobs of the platform that run now\n\
         local        patterns of names that stay on this machine; append one with >>\n\
         sync         what waits to be sent; write anything to wait until the server has it\n\
         connection   host, user and port for other clients\n\
         conflicts/   your versions of files that another writer had changed when you saved\n\
         stranded/    your versions of files that could not be sent because the mode was switched\n",
        line(&status.source)
    );
    if status.uploads.is_some() {
        out.push_str(
            "\nChanges of code are also backed up on this machine until they are committed: pantheonfs rescue list\n",
        );
        out.push_str(
            "\nNot listed, but there by name:\n\
             files/       the site's uploads, writable in every mode and environment\n\
             logs/        the container's logs, read-only\n\
             head/        the committed version of every file\n\
             diffs/       the difference of one file, under its path\n\
             at/REV/      any commit, tag or branch, read-only; also at/live, at/test and at/dev\n",
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{ConnectionMode, Diffstat, FileDiff};
    use crate::env::Belief;
    use crate::path::RemotePath;
    use crate::pending::{Pending, PendingFile};
    use crate::vfiles::{Connection, LinkStatus};
    use crate::vfiles::{LocalChanges, Traffic};

    fn status() -> Status {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let file = FileDiff { path: "a.php".into(), status: "M".into(), additions: "2".into(), deletions: "0".into() };
        Status {
            now,
            source: "mysite.dev".into(),
            state_dir: "/home/me/.local/state/pantheonfs/mysite.dev".into(),
            belief: Belief {
                environment: Some("dev".into()),
                kind: None,
                mode: ConnectionMode::Git,
                since: now - Duration::from_secs(60),
                source: Source::Api,
                learned: now - Duration::from_secs(2),
                target_commit: Some("abc".into()),
                diffstat: Some(Diffstat(vec![file]).into()),
                log: std::sync::Arc::new(vec![crate::control::Commit {
                    hash: "abc".into(),
                    author: "A. Uthor".into(),
                    email: "a@x".into(),
                    time: "2026-01-02T03:04:05".into(),
                    message: "Subject\n\nBody".into(),
                    labels: vec!["dev".into()],
                }]),
                running: vec![],
                changed_here: false,
                error: Some("two\nlines".into()),
            },
            code: Write::No("the environment is in Git mode".into()),
            uploads: Some(Write::Yes),
            link: LinkStatus {
                down: None,
                lasting: Duration::from_secs(200),
                round_trip: Some(Duration::from_millis(52)),
                transport: "libssh2".into(),
                compressed: true,
                peer: "127.0.0.1:2222".into(),
                host_key: "SHA256:x".into(),
                extensions: vec!["posix-rename"],
                requests: 7,
                changes: vec!["2026-01-02T03:04:05Z home was /a, is /b".into()],
            },
            connection: Connection {
                host: "h".into(),
                port: 2222,
                user: "dev.u".into(),
                path: "code".into(),
                git_url: Some("ssh://u@h:2222/~/repository.git".into()),
            },
            local: LocalChanges {
                waiting: vec!["save code/a.php (5 bytes)".into()],
                waiting_bytes: 5,
                conflicts: vec!["code/x".into()],
                written: vec!["a.php".into(), "b.php".into()],
                ignored_written: vec!["wp-content/uploads/x".into()],
                backups: 2,
                backups_since: Some(now - Duration::from_secs(10_000)),
                lost: vec!["b.php".into()],
                ..LocalChanges::default()
            },
            traffic: Traffic {
                sent_files: 1,
                sent_bytes: 12_345,
                origin: Some(super::super::Origin { files: 900, proved: 850, attested: 850, ..Default::default() }),
                inodes: 3,
                ..Traffic::default()
            },
            compared: Some((
                now,
                Ok(std::sync::Arc::new(Pending {
                    commit: "abc".into(),
                    files: vec![PendingFile {
                        path: RemotePath::parse("b.php").expect("valid"),
                        letter: 'A',
                        lines: Some((3, 0)),
                    }],
                    diff: None,
                    ignored: vec![],
                })),
            )),
            last_error: None,
        }
    }

    #[test]
    fn the_virtual_files_have_the_expected_text() {
        let all: String = super::super::FILES
            .iter()
            .map(|file| format!("== {}\n{}", file.name(), String::from_utf8_lossy(&render(*file, &status()))))
            .collect();
        insta::assert_snapshot!(all);
    }

    #[test]
    fn every_line_of_status_is_key_and_value() {
        let text = render(File::Status, &status());
        for line in String::from_utf8_lossy(&text).lines() {
            let (key, value) = line.split_once(": ").expect("key: value");
            assert!(!value.is_empty() && key.bytes().all(|b| b.is_ascii_lowercase() || b == b'-'), "{line}");
        }
    }
}
