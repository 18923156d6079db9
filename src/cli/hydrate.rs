//! `pantheonfs hydrate`: writes to `.pantheon/hydrate`, and shows the progress.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::exit::{CliResult, Exit, Failure};
use super::{commands, mountpoint, report};

/// How often the bar is updated.
const TICK: Duration = Duration::from_millis(300);

pub(super) fn run(path: &Path, json: bool) -> CliResult<()> {
    let mount = mountpoint::around(path)?;
    let failed = |e: std::io::Error| Failure::caused(Exit::Usage, path.display().to_string(), e);
    let place = fs::canonicalize(path).map_err(failed)?;
    let inside = place.strip_prefix(&mount.mountpoint).unwrap_or(Path::new("")).to_owned();
    let words = if inside.as_os_str().is_empty() { Path::new(".") } else { &inside };
    let before = report::status_json(path)?;
    let done = Arc::new(AtomicBool::new(false));
    let shown = bar(&mount.mountpoint, &done);
    let written = commands::write_silently(path, "hydrate", words);
    done.store(true, Ordering::Relaxed);
    // The thread only draws; its result does not matter.
    drop(shown.map(thread::JoinHandle::join));
    let after = report::status_json(path)?;
    let now = &after["hydration"];
    let fetched = number(&after, "fetched_bytes").saturating_sub(number(&before, "fetched_bytes"));
    if json {
        report::print(format!("{now:#}\n").as_bytes())?;
        return written;
    }
    if written.is_err() && number(now, "files") == 0 {
        return written;
    }
    let (files, bytes, missed) = (number(now, "files"), number(now, "bytes"), number(now, "missed"));
    let mut text = format!(
        "{files} files, {} are on this machine ({} were downloaded, {:.1} s)\n",
        indicatif::HumanBytes(bytes),
        indicatif::HumanBytes(fetched),
        now["seconds"].as_f64().unwrap_or_default(),
    );
    if missed > 0 {
        text.push_str(&format!("{missed} changed or disappeared meanwhile; run the command again to get them\n"));
    }
    report::print(text.as_bytes())?;
    written
}

fn number(value: &Value, key: &str) -> u64 {
    value[key].as_u64().unwrap_or_default()
}

/// Starts the progress bar, on a terminal only.
fn bar(root: &Path, done: &Arc<AtomicBool>) -> Option<thread::JoinHandle<()>> {
    use std::io::IsTerminal;
    if !std::io::stderr().is_terminal() {
        return None;
    }
    let (root, done) = (root.to_owned(), done.clone());
    Some(thread::spawn(move || {
        let bar = ProgressBar::no_length();
        if let Ok(style) =
            ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes} ({bytes_per_sec}, {eta}) {msg}")
        {
            bar.set_style(style);
        }
        while !done.load(Ordering::Relaxed) {
            if let Ok(status) = report::status_json(&root) {
                let now = &status["hydration"];
                bar.set_length(number(now, "bytes_in_all"));
                bar.set_position(number(now, "bytes"));
                bar.set_message(format!("{} of {} files", number(now, "files"), number(now, "files_in_all")));
            }
            thread::sleep(TICK);
        }
        bar.finish_and_clear();
    }))
}
