//! `pantheonfs man` and `pantheonfs completions`.

use std::fs;
use std::path::Path;

use clap::Command;

use super::exit::{CliResult, Exit, Failure, failed};
use super::{grammar, report};

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> CliResult<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut grammar::command(), "pantheonfs", &mut script);
    report::print(&script)
}

/// Prints the manual page of the program, or that of the command which the words name.
pub(super) fn page(words: &[String]) -> CliResult<()> {
    let command = built();
    if words.is_empty() {
        return report::print(&render(command, "")?);
    }
    let words = words.join(" ");
    let found = grammar::commands(&command).into_iter().find(|(name, _)| *name == words);
    let unknown = || Failure::new(Exit::Usage, format!("{words}: no such command; `pantheonfs help` lists them"));
    report::print(&render(found.ok_or_else(unknown)?.1.clone(), &words)?)
}

/// Writes all pages into a directory: `pantheonfs.1`, `pantheonfs-mount.1` and so on, and that of the helper of mount(8).
pub(super) fn pages(dir: &Path) -> CliResult<()> {
    let command = built();
    let all = std::iter::once((String::new(), &command)).chain(grammar::commands(&command));
    for (words, command) in all {
        let file = dir.join(format!("{}.1", title(&words)));
        fs::write(&file, render(command.clone(), &words)?).map_err(failed(&file.display()))?;
    }
    let file = dir.join("mount.pantheonfs.8");
    fs::write(&file, ".so man1/pantheonfs-mount.1\n").map_err(failed(&file.display()))
}

fn built() -> Command {
    let mut command = grammar::command();
    command.build();
    command
}

fn title(words: &str) -> String {
    if words.is_empty() { "pantheonfs".into() } else { format!("pantheonfs-{}", words.replace(' ', "-")) }
}

fn render(command: Command, words: &str) -> CliResult<Vec<u8>> {
    let title = title(words);
    let mut page = Vec::new();
    clap_mangen::Man::new(command.display_name(&title))
        .title(title)
        .render(&mut page)
        .map_err(|e| Failure::caused(Exit::Failed, "the manual page cannot be made", e))?;
    Ok(page)
}
