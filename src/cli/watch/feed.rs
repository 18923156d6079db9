//! The process behind each mount that `pantheonfs watch` shows: it reads the files of `.pantheon` and writes what they say to
//! standard output, one JSON object in a line. Only this process waits for a mount that does not answer: a process whose
//! request is not answered cannot end, not even by SIGKILL.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cli::exit::{CliResult, failed};

/// Between two looks at the status.
const PAUSE: Duration = Duration::from_secs(1);
/// Bytes of the diff that are passed on.
const MAX_DIFF: u64 = 2 * 1024 * 1024;

/// Feeds until standard input ends. Each line there asks for the diff.
pub(in crate::cli) fn run(place: &Path) -> CliResult<()> {
    let dir = place.join(".pantheon");
    let (asks, asked) = mpsc::channel();
    let spawn = |work: Box<dyn FnOnce() + Send>| thread::Builder::new().spawn(work).map(drop);
    let status = dir.join("status.json");
    spawn(Box::new(move || statuses(&status))).map_err(failed(&"a thread"))?;
    spawn(Box::new(move || diffs(&dir, &asked))).map_err(failed(&"a thread"))?;
    for line in io::stdin().lock().lines() {
        if line.is_err() || asks.send(()).is_err() {
            break;
        }
    }
    Ok(())
}

/// Writes one message; whether somebody reads it.
fn tell(message: &Value) -> bool {
    let mut out = io::stdout().lock();
    writeln!(out, "{message}").and_then(|()| out.flush()).is_ok()
}

fn statuses(file: &Path) {
    loop {
        let message = match std::fs::read(file).and_then(|bytes| Ok(serde_json::from_slice::<Value>(&bytes)?)) {
            Ok(status) => json!({ "status": status }),
            Err(error) => json!({ "error": error.to_string() }),
        };
        if !tell(&message) {
            return;
        }
        thread::sleep(PAUSE);
    }
}

/// Reads the diff when that is asked for. It compares with the server, so it may take long.
fn diffs(dir: &Path, asked: &Receiver<()>) {
    while asked.recv().is_ok() {
        // Several questions get one answer.
        asked.try_iter().for_each(drop);
        let message = match read_diff(dir) {
            Ok((text, whole)) => json!({ "diff": text, "whole": whole }),
            Err(error) => json!({ "diff": format!("# there is no diff: {error}\n"), "whole": true }),
        };
        if !tell(&message) {
            return;
        }
        // Changes come in groups, and each comparison may cost round trips.
        thread::sleep(PAUSE);
    }
}

/// The diff as text, and whether it is all of it.
fn read_diff(dir: &Path) -> io::Result<(String, bool)> {
    let mut bytes = Vec::new();
    File::open(dir.join("diff"))?.take(MAX_DIFF + 1).read_to_end(&mut bytes)?;
    let whole = bytes.len() as u64 <= MAX_DIFF;
    Ok((String::from_utf8_lossy(&bytes).into_owned(), whole))
}
