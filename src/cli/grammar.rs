//! The whole command line with an example for each command, for parsing, help, manual and completions.

use clap::{Command, CommandFactory};

use super::args::Args;

/// The words of a command, what it is used for, and its examples without `pantheonfs`.
type Example = (&'static str, &'static [&'static str]);

const EXAMPLES: &[Example] = &[
    ("mount", &["mount mysite", "mount mysite.live ~/live -o ro", "mount sftp://me@example.org/srv/www ~/www"]),
    ("umount", &["umount mysite.dev", "umount --all"]),
    ("enable", &["enable mysite.dev", "enable mysite.dev ~/mysite -o IdentityFile=~/.ssh/id_rsa"]),
    ("disable", &["disable mysite.dev"]),
    ("list", &["list", "list --json"]),
    ("watch", &["watch", "watch mysite.dev"]),
    ("status", &["status", "status ~/pantheon/mysite.dev --json"]),
    ("sync", &["sync"]),
    ("hydrate", &["hydrate", "hydrate wp-content/themes"]),
    ("mode", &["mode", "mode git", "mode git --discard --at ~/pantheon/mysite.dev"]),
    ("local", &["local add node_modules/"]),
    ("local list", &["local list"]),
    ("local add", &["local add node_modules/ '*.map'"]),
    ("local remove", &["local remove '*.map'"]),
    ("pending", &["pending"]),
    ("diff", &["diff", "diff --at live wp-content/themes"]),
    ("show", &["show live:wp-config.php"]),
    ("revert", &["revert wp-content/themes/sunrise/style.css"]),
    ("rescue", &["rescue list"]),
    ("rescue list", &["rescue list --at mysite.dev"]),
    ("rescue diff", &["rescue diff --at mysite.dev"]),
    ("rescue restore", &["rescue restore code/index.php", "rescue restore code/index.php --to /tmp/saved"]),
    ("rescue export", &["rescue export --at mysite.dev --format tar -o work.tar"]),
    ("resolve", &["resolve index.php --merge", "resolve index.php --tool vimdiff", "resolve --tool"]),
    ("commit", &["commit -m 'Fix the footer'", "commit"]),
    ("log", &["log"]),
    ("connection", &["connection"]),
    ("login", &["login", "login < token.txt"]),
    ("sites", &["sites", "sites mysite"]),
    ("doctor", &["doctor", "doctor mysite.dev -o IdentityFile=~/.ssh/id_rsa"]),
    ("report", &["report", "report -o fault.txt"]),
    ("completions", &["completions bash > ~/.local/share/bash-completion/completions/pantheonfs"]),
    ("man", &["man | man -l -", "man mount | man -l -", "man --all ~/.local/share/man/man1"]),
];

#[cfg(feature = "sim")]
const SIM_EXAMPLES: &[Example] =
    &[("sim", &["sim --rtt 50"]), ("demo", &["demo"]), ("link", &["link 127.0.0.1:2222 --rtt 50 --mbit 20"])];
#[cfg(not(feature = "sim"))]
const SIM_EXAMPLES: &[Example] = &[];

/// The command line.
pub(super) fn command() -> Command {
    let mut command = Args::command();
    for (words, examples) in EXAMPLES.iter().chain(SIM_EXAMPLES) {
        command = with(command, &mut words.split(' '), &text(examples));
    }
    command
}

/// Adds a text to the help of the command that the words name.
fn with<'a>(command: Command, words: &mut impl Iterator<Item = &'a str>, text: &str) -> Command {
    match words.next() {
        Some(word) => command.mut_subcommand(word, |below| with(below, words, text)),
        None => command.after_help(text.to_owned()),
    }
}

fn text(examples: &[&str]) -> String {
    let lines: String = examples.iter().map(|example| format!("\n  pantheonfs {example}")).collect();
    format!("{}:{lines}", if examples.len() == 1 { "Example" } else { "Examples" })
}

/// All commands that help shows, with the words that lead to them.
pub(super) fn commands(command: &Command) -> Vec<(String, &Command)> {
    let mut out = Vec::new();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help") {
        out.push((below.get_name().to_owned(), below));
        out.extend(
            commands(below).into_iter().map(|(words, deeper)| (format!("{} {words}", below.get_name()), deeper)),
        );
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The words of an example as a shell makes them, without what comes behind a pipe or a redirection.
    fn words(example: &str) -> Vec<String> {
        let call =
            example.split([' ']).take_while(|word| !matches!(*word, "|" | ">" | "<")).collect::<Vec<_>>().join(" ");
        let parts = call.split('\'').enumerate();
        let mut out = vec!["pantheonfs".to_owned()];
        for (index, part) in parts {
            match index % 2 {
                0 => out.extend(part.split_whitespace().map(str::to_owned)),
                _ => out.push(part.to_owned()),
            }
        }
        out
    }

    #[test]
    fn every_command_has_an_example_that_it_understands() {
        let command = command();
        let known: Vec<&Example> = EXAMPLES.iter().chain(SIM_EXAMPLES).collect();
        for (words, below) in commands(&command) {
            let help = below.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.starts_with("Example"), "{words} has no example");
        }
        for (name, examples) in known {
            for example in *examples {
                let parsed = command.clone().try_get_matches_from(words(example));
                assert!(parsed.is_ok(), "{example}: {}", parsed.expect_err("refused"));
                assert!(example.starts_with(name.split(' ').next().expect("a word")), "{example} is of {name}");
            }
        }
    }

    #[test]
    fn every_option_says_what_it_is_for() {
        let command = command();
        for (words, below) in commands(&command) {
            for arg in below.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.len() > 5, "{words}: {} has no help text", arg.get_id());
            }
        }
    }
}
