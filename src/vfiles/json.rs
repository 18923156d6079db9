//! The status as JSON (`status.json`).

use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};

use super::status::{Status, Write};
use crate::control::Commit;
use crate::env::Committed;

/// The version of all outputs of `--json` (docs/JSON.md).
const SCHEMA: u32 = 1;

/// All of the status. `reminders` are texts for the user.
pub(super) fn status(status: &Status, reminders: Vec<String>) -> Value {
    let mut out = json!({
        "schema": SCHEMA,
        "source": status.source,
        "state_dir": status.state_dir,
        "code": write(&status.code),
        "uploads": status.uploads.as_ref().map(write),
        "link": link(status),
        "reminders": reminders,
        "connection_changes": status.link.changes,
        "connection": {
            "host": status.connection.host,
            "port": status.connection.port,
            "user": status.connection.user,
            "path": status.connection.path,
            "git_url": status.connection.git_url,
        },
        "last_error": status.last_error.as_ref().map(|(at, error)| json!({ "time": time(*at), "message": error })),
        "repository": status.traffic.origin.as_ref().map(super::Origin::json),
    });
    for part in [environment(status), local(status), traffic(status)] {
        if let (Value::Object(out), Value::Object(part)) = (&mut out, part) {
            out.extend(part);
        }
    }
    out
}

fn time(at: SystemTime) -> String {
    format_rfc3339_seconds(at).to_string()
}

fn write(write: &Write) -> Value {
    match write {
        Write::Yes => json!({ "writable": true }),
        Write::Held(why) => json!({ "writable": false, "held": why }),
        Write::No(why) => json!({ "writable": false, "reason": why }),
    }
}

fn link(status: &Status) -> Value {
    let link = &status.link;
    json!({
        "up": link.down.is_none(),
        "why": link.down,
        "seconds": link.lasting.as_secs(),
        "round_trip_ms": link.round_trip.map(|rtt| rtt.as_secs_f64() * 1000.0),
        "transport": link.transport,
        "compressed": link.compressed,
        "peer": link.peer,
        "host_key": link.host_key,
        "extensions": link.extensions,
        "requests": link.requests,
    })
}

fn environment(status: &Status) -> Value {
    let belief = &status.belief;
    let pending = belief.diffstat.as_ref().map(|diffstat| {
        let file = |file: &crate::control::FileDiff| {
            json!({
                "path": file.path, "status": file.status, "additions": file.additions, "deletions": file.deletions,
            })
        };
        diffstat.0.iter().map(file).collect::<Vec<_>>()
    });
    json!({
        "environment": belief.environment,
        "mode": belief.mode.to_string(),
        "mode_since": time(belief.since),
        "mode_source": belief.source.to_string(),
        "mode_checked": time(belief.learned),
        "mode_error": belief.error,
        "target_commit": belief.target_commit,
        "pending": pending,
        "uncommitted": uncommitted(status),
        "log": belief.log.iter().map(commit).collect::<Vec<_>>(),
        "running": belief.running.iter().map(|job| &job.description).collect::<Vec<_>>(),
    })
}

/// The paths that the last comparison found, `null` without one.
fn uncommitted(status: &Status) -> Value {
    let Some((_, Ok(compared))) = &status.compared else { return Value::Null };
    let file = |file: &crate::pending::PendingFile| json!({ "path": file.path.to_string(), "letter": file.letter.to_string() });
    compared.files.iter().map(file).collect()
}

fn commit(commit: &Commit) -> Value {
    json!({
        "commit": commit.hash, "author": commit.author, "email": commit.email, "time": commit.time,
        "message": commit.message, "environments": commit.labels,
    })
}

fn local(status: &Status) -> Value {
    let local = &status.local;
    json!({
        "written": local.written,
        "ignored_written": local.ignored_written,
        "kept": local.backups,
        "kept_since": local.backups_since.map(time),
        "lost": local.lost,
        "dirty": local.dirty,
        "waiting": local.waiting.len(),
        "waiting_bytes": local.waiting_bytes,
        "conflicts": local.conflicts,
        "stranded": local.stranded,
        "committed": local.committed.as_ref().map(committed),
        "git": local.git.as_ref().map(super::GitStatus::json),
    })
}

fn committed(committed: &Committed) -> Value {
    json!({
        "commit": committed.hash,
        "message": committed.message,
        "in_repository": committed.in_repository,
        "files": committed.files.0.iter().map(|file| &file.path).collect::<Vec<_>>(),
    })
}

fn traffic(status: &Status) -> Value {
    let traffic = &status.traffic;
    json!({
        "sent_files": traffic.sent_files,
        "sent_bytes": traffic.sent_bytes,
        "fetched_files": traffic.fetched_files,
        "fetched_bytes": traffic.fetched_bytes,
        "received_in_a_minute": traffic.minute_bytes,
        "cached_bytes": traffic.cached_bytes,
        "hydration": super::hydration::json(&traffic.hydration),
        "local_names": {
            "patterns": traffic.stays.patterns, "files": traffic.stays.files, "bytes": traffic.stays.bytes,
        },
        "on_disk_bytes": traffic.disk_bytes,
        "on_disk_hits": traffic.disk_hits,
        "inodes": traffic.inodes,
    })
}
