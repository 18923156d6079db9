//! `pantheonfs watch`: one screen for the mounts of the user, with keys for what can be done. It is fed by the files of
//! `.pantheon`, and its commands are those of the command line; other processes wait for both, so that a mount that does not
//! answer does not stop the screen.

mod app;
mod details;
mod dialog;
mod diff;
mod feed;
mod feeds;
mod head;
mod sending;
mod theme;
mod view;
mod watched;

use std::io::{self, BufRead, IsTerminal, Write};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::crossterm::{cursor, execute};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use rustix::io::Errno;

use self::app::{App, Next};
use self::dialog::Task;
use self::theme::Theme;
use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure, failed};
use super::{commit, mount};

pub(super) use self::feed::run as feed;

/// How long a key is waited for before the news are looked at.
const TICK: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Between two looks at which mounts there are, and how often the screen is drawn at least, for the times on it.
const SECOND: Duration = Duration::from_secs(1);

/// See the module header.
pub(super) fn run(given: Option<&Path>) -> CliResult<()> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let text = "`pantheonfs watch` needs a terminal; `pantheonfs list --json` and `pantheonfs status --json` are for programs";
        return Err(Failure::new(Exit::Usage, text));
    }
    let around = Environ::look()?;
    let only = match given {
        None => None,
        Some(given) => Some(app::find(&around, given)?.ok_or_else(|| {
            let text = format!("{}: not a mount of yours; `pantheonfs list` lists them", given.display());
            Failure::new(Exit::MountPoint, text)
        })?),
    };
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let stop = mount::stop_signals()?;
    let mut app = App::new(around, only, Theme { colours });
    let mut terminal = ratatui::try_init().map_err(failed(&"the terminal"))?;
    let ended = serve(&mut app, &mut terminal, &|| stop.load(Ordering::Relaxed));
    ratatui::restore();
    ended
}

fn serve(app: &mut App, terminal: &mut DefaultTerminal, stopped: &dyn Fn() -> bool) -> CliResult<()> {
    let failed = failed(&"the terminal");
    let (mut looked, mut drawn) = (None::<Instant>, None::<Instant>);
    let is_due = |last: Option<Instant>| last.is_none_or(|last| last.elapsed() >= SECOND);
    while !stopped() {
        if is_due(looked) {
            app.look()?;
            looked = Some(Instant::now());
        }
        if app.hear(Instant::now()) || is_due(drawn) {
            terminal.draw(|frame| view::draw(frame, &app.screen(Instant::now()))).map_err(&failed)?;
            drawn = Some(Instant::now());
        }
        if !wait_for_key().map_err(&failed)? {
            return Ok(());
        }
        if !event::poll(Duration::ZERO).map_err(&failed)? {
            continue;
        }
        drawn = None;
        let next = match event::read().map_err(&failed)? {
            Event::Key(key) if key.kind == KeyEventKind::Press => app.key(key),
            _ => Next::Nothing,
        };
        match next {
            Next::Nothing => {}
            Next::Quit => return Ok(()),
            Next::Terminal(task) => lend(app, terminal, task).map_err(&failed)?,
        }
    }
    Ok(())
}

/// Waits for a key, at most one tick. `false`: the terminal was closed. crossterm would read its end again and again.
fn wait_for_key() -> io::Result<bool> {
    let stdin = io::stdin();
    let mut terminal = [PollFd::new(&stdin, PollFlags::IN)];
    match poll(&mut terminal, Some(&TICK)) {
        Err(Errno::INTR) => Ok(true),
        polled => {
            polled.map(|_| !terminal[0].revents().intersects(PollFlags::HUP | PollFlags::ERR)).map_err(Into::into)
        }
    }
}

/// Lends the terminal to another program until that ends.
fn lend(app: &mut App, terminal: &mut DefaultTerminal, task: Task) -> io::Result<()> {
    execute!(io::stdout(), LeaveAlternateScreen, cursor::Show)?;
    disable_raw_mode()?;
    match task {
        Task::Commit => {
            let message = commit::ask_editor(&app.to_commit());
            app.commit(message);
        }
        Task::OnTerminal(what, words) => {
            let ended = on_terminal(words);
            app.ended(&what, ended);
        }
        Task::Run(..) => {}
    }
    enable_raw_mode()?;
    execute!(io::stdout(), EnterAlternateScreen, cursor::Hide)?;
    terminal.clear()
}

fn on_terminal(words: Vec<std::ffi::OsString>) -> CliResult<()> {
    let failed = failed(&"the command");
    let status = feeds::this_program().map_err(&failed)?.args(words).status().map_err(&failed)?;
    if status.success() {
        return Ok(());
    }
    // What it said is on the terminal, which is covered by the screen again.
    let _ = write!(io::stderr(), "Press Enter to go on.");
    let _ = io::stdin().lock().read_line(&mut String::new());
    Err(Failure::new(Exit::Failed, format!("it ended with {status}")))
}
