//! `pantheonfs` without arguments: what it is, and what to do first on this machine.

use super::environ::Environ;
use super::exit::CliResult;
use super::{machine, record, report};
use crate::text::visible;

/// See the module header.
pub(super) fn run() -> CliResult<()> {
    let around = Environ::look()?;
    let mut text =
        "pantheonfs mounts the code of a Pantheon environment as a directory.\n\nFirst steps:\n\n".to_owned();
    let login = around.platform().and_then(machine::login);
    let steps = [
        ("pantheonfs doctor", "checks this machine", machine::fuse()),
        ("pantheonfs login", "with a Personal Access Token", login),
        ("ssh-keygen -t rsa -b 4096", "and add the key to your account", machine::keys(&around)),
    ];
    for (number, (command, what, state)) in (1..).zip(steps) {
        let state = match state {
            Ok(_) => "done".to_owned(),
            Err(failure) => format!("to do: {}", failure.explain()),
        };
        text.push_str(&format!("  {number}. {command:<26} {what}\n     {}\n", visible(state)));
    }
    text.push_str("  4. pantheonfs sites           lists your sites\n");
    text.push_str("  5. pantheonfs mount SITE      mounts Dev of a site on ~/pantheon/SITE.dev\n\n");
    let mounts = record::mounts(&around)?.len();
    if mounts > 0 {
        text.push_str(&format!("{mounts} mount(s) are there; `pantheonfs list` shows them.\n"));
    }
    text.push_str("`pantheonfs help` lists all commands, `pantheonfs help COMMAND` explains one.\n");
    report::print(text.as_bytes())
}
