//! `pantheonfs commit`: takes the message, lists what will be committed, and writes to `.pantheon/commit`.

use std::fs;
use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::process::Command;

use super::args;
use super::exit::{CliResult, Exit, Failure};
use super::{commands, report};

pub(super) fn run(args: &args::Commit) -> CliResult<()> {
    let pending = report::read(&args.at, "pending")?;
    let message = match (&args.message, &args.file) {
        (Some(message), _) => message.clone(),
        (None, Some(file)) => read_message(file)?,
        (None, None) => ask_editor(&String::from_utf8_lossy(&pending))?,
    };
    if message.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "the message is empty; nothing was committed"));
    }
    if !args.output.json {
        preflight(&args.at, &pending)?;
    }
    commands::write(&args.at, "commit", &format!("{}\n", message.trim()), "committing")?;
    if args.output.json {
        let committed = report::status_json(&args.at)?["committed"].take();
        return report::print(crate::text::json(&committed).as_bytes());
    }
    report::print(&report::read(&args.at, "commit")?)
}

/// Lists on standard error which files will be committed, and which are ignored.
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

fn read_message(file: &Path) -> CliResult<String> {
    let failed = |e: std::io::Error| Failure::caused(Exit::Usage, file.display().to_string(), e);
    if file == Path::new("-") {
        let mut text = String::new();
        return std::io::stdin().read_to_string(&mut text).map(|_| text).map_err(failed);
    }
    fs::read_to_string(file).map_err(failed)
}

/// Asks for the message as git does: in the editor of the user, without the lines that start with `#`.
pub(super) fn ask_editor(pending: &str) -> CliResult<String> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(Exit::Usage, "there is no message; give one with -m or -F"));
    }
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, "the editor cannot be used", e);
    let mut file = tempfile::Builder::new().prefix("COMMIT_EDITMSG-").tempfile().map_err(failed)?;
    let comments: String = pending.lines().map(|line| format!("# {line}\n")).collect();
    write!(file, "\n# Enter the commit message. Lines that start with '#' are left out.\n#\n{comments}")
        .map_err(failed)?;
    let editor = ["GIT_EDITOR", "VISUAL", "EDITOR"].iter().find_map(std::env::var_os);
    let editor = editor.unwrap_or_else(|| "vi".into());
    // The variable may hold arguments, separated by blanks; there is no shell.
    let words: Vec<String> = editor.to_string_lossy().split_whitespace().map(str::to_owned).collect();
    let (program, rest) = words.split_first().ok_or_else(|| Failure::new(Exit::Usage, "EDITOR is empty"))?;
    let status = Command::new(program).args(rest).arg(file.path()).status().map_err(failed)?;
    if !status.success() {
        return Err(Failure::new(Exit::Failed, format!("{program} ended with {status}; nothing was committed")));
    }
    let text = fs::read_to_string(file.path()).map_err(failed)?;
    Ok(text.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join("\n"))
}
