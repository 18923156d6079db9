//! `pantheonfs man` and `pantheonfs completions`.

use super::exit::{CliResult, Exit, Failure};
use super::{grammar, report};

/// Prints a completion script.
pub(super) fn completions(shell: clap_complete::Shell) -> CliResult<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut grammar::command(), "pantheonfs", &mut script);
    report::print(&script)
}

/// Prints the manual page of the program, or that of the command which the words name.
pub(super) fn page(words: &[String]) -> CliResult<()> {
    let mut command = grammar::command();
    command.build();
    let words = words.join(" ");
    let named = if words.is_empty() {
        command
    } else {
        let found = grammar::commands(&command).into_iter().find(|(name, _)| *name == words);
        let unknown = || Failure::new(Exit::Usage, format!("{words}: no such command; `pantheonfs help` lists them"));
        found.ok_or_else(unknown)?.1.clone()
    };
    let title =
        if words.is_empty() { "pantheonfs".to_owned() } else { format!("pantheonfs-{}", words.replace(' ', "-")) };
    let mut page = Vec::new();
    clap_mangen::Man::new(named.display_name(&title))
        .title(title)
        .render(&mut page)
        .map_err(|e| Failure::caused(Exit::Failed, "the manual page cannot be printed", e))?;
    report::print(&page)
}
