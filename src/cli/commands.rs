//! `pantheonfs mode` and `pantheonfs commit`: they write to the files of `.pantheon`, as anybody could, and say what came
//! of it in full sentences.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::args;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::mountpoint;
use super::report::{self, Said};

pub(super) fn mode(args: &args::Mode) -> CliResult<()> {
    let Some(wanted) = &args.mode else {
        if args.json {
            let status = report::status_json(&args.at)?;
            let answer = json!({ "mode": status["mode"], "source": status["mode_source"], "code": status["code"] });
            return report::print(format!("{answer:#}\n").as_bytes());
        }
        return report::print(&report::read(&args.at, "mode")?);
    };
    let before = report::status_json(&args.at)?["mode"].clone();
    let words = if args.discard { format!("{wanted} --discard\n") } else { format!("{wanted}\n") };
    write(&args.at, "mode", &words, "switching")?;
    let after = report::status_json(&args.at)?["mode"].clone();
    if args.json {
        return report::print(format!("{:#}\n", json!({ "before": before, "mode": after })).as_bytes());
    }
    let text = after.as_str().unwrap_or_default();
    report::print(if before == after { format!("{text} (already)\n") } else { format!("{text}\n") }.as_bytes())
}

/// The barrier.
pub(super) fn sync(at: &Path, json: bool) -> CliResult<()> {
    let before = report::status_json(at)?["waiting"].as_u64().unwrap_or_default();
    write(at, "sync", "now\n", "sending")?;
    if json {
        return report::print(format!("{:#}\n", json!({ "sent": before })).as_bytes());
    }
    report::print(if before == 0 { "nothing waited\n".into() } else { format!("{before} change(s) sent\n") }.as_bytes())
}

/// Before the end: what waits gets the time that it needs, as long as it moves. What cannot go stays.
pub(super) fn send_what_waits(place: &Path) {
    if let Err(failure) = write(place, "sync", "now\n", "sending what waits") {
        log::info!("{}", failure.message);
    }
}

pub(super) fn commit(args: &args::Commit) -> CliResult<()> {
    let pending = report::read(&args.at, "pending")?;
    let message = match (&args.message, &args.file) {
        (Some(message), _) => message.clone(),
        (None, Some(file)) => read_message(file)?,
        (None, None) => ask_editor(&String::from_utf8_lossy(&pending))?,
    };
    if message.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "the message is empty; nothing was committed"));
    }
    if !args.json {
        preflight(&args.at, &pending)?;
    }
    write(&args.at, "commit", &format!("{}\n", message.trim()), "committing")?;
    if args.json {
        let committed = report::status_json(&args.at)?["committed"].take();
        return report::print(crate::text::json(&committed).as_bytes());
    }
    report::print(&report::read(&args.at, "commit")?)
}

/// What will be in the commit and what will not, on standard error.
fn preflight(at: &Path, pending: &[u8]) -> CliResult<()> {
    let list = |text: &[u8]| -> Vec<String> {
        let text = String::from_utf8_lossy(text);
        text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    };
    for line in list(pending) {
        eprintln!("will be committed: {line}");
    }
    let ignored = list(&report::read(at, "ignored")?);
    let status = report::status_json(at)?;
    let ours = |path: &String| {
        status["ignored_written"]
            .as_array()
            .is_some_and(|all| all.iter().any(|p| p.as_str().map(crate::text::visible).as_ref() == Some(path)))
    };
    for path in ignored.iter().filter(|path| ours(path)) {
        eprintln!("never committed:   {path} (.gitignore)");
    }
    Ok(())
}

/// Writes the committed version over each file. What was there is copied beside the state of the mount first.
pub(super) fn revert(paths: &[PathBuf], json: bool) -> CliResult<()> {
    let mut said = Said::new(json);
    for path in paths {
        revert_one(path, &mut said)?;
    }
    said.end()
}

fn revert_one(path: &Path, said: &mut Said) -> CliResult<()> {
    let mut say = |outcome: &str| said.say(&path.display().to_string(), outcome);
    let failed = |what: &str, e: std::io::Error| Failure::new(Exit::Failed, format!("{}: {what}: {e}", path.display()));
    let mount = mountpoint::around(path)?;
    let place = mountpoint::settle(path).map_err(|e| failed("cannot be found", e))?;
    let inside = place.strip_prefix(&mount.mountpoint).unwrap_or(&place).to_owned();
    let committed = match fs::read(mount.mountpoint.join(".pantheon/head").join(&inside)) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("the committed version cannot be read", error)),
    };
    let now = match fs::read(&place) {
        Ok(content) => Some(content),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed("cannot be read", error)),
    };
    if now == committed {
        return say("is as it is committed");
    }
    if let Some(content) = &now {
        let kept = Environ::look()?.keep_reverted(&mount.source, &inside, content)?;
        say(&format!("what it was is kept in {}", kept.display()))?;
    }
    match &committed {
        Some(content) => {
            if let Some(dir) = place.parent() {
                fs::create_dir_all(dir).map_err(|e| failed("its directory cannot be made", e))?;
            }
            fs::write(&place, content).map_err(|e| failed("cannot be written", e))?;
            // What close says is lost in std: whether the server has it, the status knows.
            let file = fs::File::open(&place).map_err(|e| failed("cannot be read back", e))?;
            file.sync_all().map_err(|e| failed("is not on the server", e))?;
            say("back to the committed version")?;
        }
        None => {
            fs::remove_file(&place).map_err(|e| failed("cannot be removed", e))?;
            say("removed; it is not in the commit")?;
        }
    }
    Ok(())
}

fn read_message(file: &Path) -> CliResult<String> {
    let failed = |e: std::io::Error| Failure::new(Exit::Usage, format!("{}: {e}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        return std::io::stdin().read_to_string(&mut text).map(|_| text).map_err(failed);
    }
    fs::read_to_string(file).map_err(failed)
}

/// As git does it: a file with comments, the editor of the user, lines that begin with `#` left out.
fn ask_editor(pending: &str) -> CliResult<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "no message; give one with -m or -F"));
    }
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("the editor: {e}"));
    let mut file = tempfile::Builder::new().prefix("COMMIT_EDITMSG-").tempfile().map_err(failed)?;
    let comments: String = pending.lines().map(|line| format!("# {line}\n")).collect();
    write!(file, "\n# The message of the commit. Lines that begin with '#' are left out.\n#\n{comments}")
        .map_err(failed)?;
    let editor = ["GIT_EDITOR", "VISUAL", "EDITOR"].iter().find_map(std::env::var_os);
    let editor = editor.unwrap_or_else(|| "vi".into());
    // The variable may hold arguments; nothing else is made of it.
    let words: Vec<String> = editor.to_string_lossy().split_whitespace().map(str::to_owned).collect();
    let (program, rest) = words.split_first().ok_or_else(|| Failure::new(Exit::Usage, "EDITOR is empty"))?;
    let status = Command::new(program).args(rest).arg(file.path()).status().map_err(failed)?;
    if !status.success() {
        return Err(Failure::new(Exit::Failed, format!("{program} ended with {status}; nothing was committed")));
    }
    let text = fs::read_to_string(file.path()).map_err(failed)?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"))
}

/// Writes a command and waits for its outcome.
fn write(at: &Path, name: &str, words: &str, doing: &str) -> CliResult<()> {
    let activity = mountpoint::around(at)?.mountpoint.join(".pantheon/activity");
    let _progress = Progress::start(doing, activity);
    write_silently(at, name, Path::new(words))
}

/// Like [`write`], without showing that something moves; the reason for a failure is in the status.
pub(super) fn write_silently(at: &Path, name: &str, words: &Path) -> CliResult<()> {
    let file = mountpoint::around(at)?.mountpoint.join(".pantheon").join(name);
    let bytes = words.as_os_str().as_bytes();
    let written = fs::OpenOptions::new().write(true).open(&file).and_then(|mut file| file.write_all(bytes));
    written.map_err(|error| {
        let why = report::status_json(at).ok().and_then(|s| Some(s["last_error"]["message"].as_str()?.to_owned()));
        let text = why.unwrap_or_else(|| format!("{}: {error}", file.display()));
        let exit = match error.raw_os_error() {
            Some(libc::EBUSY) => Exit::Busy,
            Some(libc::EINVAL) => Exit::Usage,
            _ => Exit::Failed,
        };
        Failure::new(exit, text)
    })
}

/// Something that moves, on a terminal only, with what the platform says it is doing.
struct Progress {
    bar: Option<ProgressBar>,
    done: Arc<AtomicBool>,
}

/// How often the platform's words are looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Progress {
    fn start(doing: &str, activity: PathBuf) -> Self {
        let done = Arc::new(AtomicBool::new(false));
        if !std::io::stderr().is_terminal() {
            return Self { bar: None, done };
        }
        let bar = ProgressBar::new_spinner().with_message(doing.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} ({elapsed})") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(120));
        let (shown, ended, doing) = (bar.clone(), done.clone(), doing.to_owned());
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK);
                let text = fs::read_to_string(&activity).unwrap_or_default();
                if let Some(line) = text.lines().find(|line| !line.starts_with('#')) {
                    shown.set_message(format!("{doing}: {line}"));
                }
            }
        });
        Self { bar: Some(bar), done }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
