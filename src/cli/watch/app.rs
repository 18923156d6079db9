//! What `pantheonfs watch` knows and does: the mounts, the question that is open, the outcome of the last command.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::dialog::{self, Dialog, Task};
use super::feeds::{self, Feed, Id, News};
use super::theme::Theme;
use super::view::Screen;
use super::watched::{Item, Watched};
use crate::cli::environ::Environ;
use crate::cli::exit::CliResult;
use crate::cli::record::{self, UserMount};

/// Lines of the details that a page moves.
const PAGE: usize = 10;

/// What the loop around the screen has to do.
pub(super) enum Next {
    Nothing,
    Quit,
    /// Something that uses the terminal.
    Terminal(Task),
}

/// See the module header.
pub(super) struct App {
    around: Environ,
    /// The mount point of the one mount that is shown; `None`: all mounts of the user.
    only: Option<PathBuf>,
    mounts: Vec<Watched>,
    at: usize,
    dialog: Option<Dialog>,
    /// The outcome of the last command, and whether it is a good one.
    outcome: Option<(String, bool)>,
    theme: Theme,
    last_id: Id,
    news: (Sender<News>, Receiver<News>),
}

impl App {
    pub(super) fn new(around: Environ, only: Option<PathBuf>, theme: Theme) -> Self {
        Self {
            around,
            only,
            mounts: Vec::new(),
            at: 0,
            dialog: None,
            outcome: None,
            theme,
            last_id: 0,
            news: mpsc::channel(),
        }
    }

    pub(super) fn screen(&self, now: Instant) -> Screen<'_> {
        Screen {
            mounts: &self.mounts,
            at: self.at,
            dialog: self.dialog.as_ref(),
            outcome: self.outcome.as_ref().map(|(text, good)| (summary(text), *good)),
            theme: self.theme,
            now,
        }
    }

    /// Looks which mounts there are. It reads files of this machine only.
    pub(super) fn look(&mut self) -> CliResult<()> {
        let is_meant = |mount: &UserMount| self.only.as_ref().is_none_or(|only| *only == mount.record.mountpoint);
        let there: Vec<UserMount> = record::mounts(&self.around)?.into_iter().filter(is_meant).collect();
        let shown = self.mounts.get(self.at).map(|of| of.id);
        self.mounts.retain(|of| there.iter().any(|mount| mount.record == of.mount.record));
        for mount in there {
            match self.mounts.iter_mut().find(|of| of.mount.record == mount.record) {
                Some(known) => known.mount.alive = mount.alive,
                None => self.add(mount)?,
            }
        }
        self.mounts.sort_by(|a, b| a.mount.record.mountpoint.cmp(&b.mount.record.mountpoint));
        let at = self.mounts.iter().position(|of| Some(of.id) == shown);
        self.at = at.unwrap_or(self.at).min(self.mounts.len().saturating_sub(1));
        Ok(())
    }

    fn add(&mut self, mount: UserMount) -> CliResult<()> {
        self.last_id += 1;
        let place = &mount.record.mountpoint;
        let feed = mount.alive.then(|| Feed::start(place, self.last_id, self.news.0.clone())).transpose()?;
        self.mounts.push(Watched::new(self.last_id, mount, feed));
        Ok(())
    }

    /// Takes over what the processes said. Returns whether they said anything.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
        let mut heard = false;
        while let Ok(news) = self.news.1.try_recv() {
            heard = true;
            let (News::Said(id, _) | News::Ended(id, _)) = &news;
            let Some(of) = self.mounts.iter_mut().find(|of| of.id == *id) else { continue };
            match news {
                News::Said(_, message) => of.learn(message, now),
                News::Ended(_, ended) => {
                    let what = of.running.take().unwrap_or_default();
                    of.compare(true);
                    self.outcome = Some(outcome(&what, ended));
                }
            }
        }
        heard
    }

    pub(super) fn key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Nothing };
        }
        if let Some(dialog) = self.dialog.take() {
            let KeyCode::Char(letter) = key.code else { return Next::Nothing };
            return dialog.answer(letter).map_or(Next::Nothing, |task| self.begin(task));
        }
        match key.code {
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('?') => self.dialog = Some(dialog::help()),
            KeyCode::Char('l') => self.show_outcome(),
            KeyCode::Tab => self.go_to_mount((self.at + 1) % self.mounts.len().max(1)),
            KeyCode::Char(digit @ '1'..='9') => self.go_to_mount(digit as usize - '1' as usize),
            code => return self.key_of_mount(code),
        }
        Next::Nothing
    }

    fn go_to_mount(&mut self, at: usize) {
        if at < self.mounts.len() {
            self.at = at;
        }
    }

    fn show_outcome(&mut self) {
        let text = self.outcome.as_ref().map_or("no command was run here", |(text, _)| text);
        self.dialog = Some(dialog::text("last command", text));
    }

    /// Keys about the mount that is shown.
    fn key_of_mount(&mut self, code: KeyCode) -> Next {
        let Some(of) = self.mounts.get_mut(self.at) else { return Next::Nothing };
        match code {
            KeyCode::Up | KeyCode::Char('k') => of.go(-1),
            KeyCode::Down | KeyCode::Char('j') => of.go(1),
            KeyCode::Home => of.go(isize::MIN),
            KeyCode::End => of.go(isize::MAX),
            KeyCode::PageUp => of.scroll = of.scroll.saturating_sub(PAGE),
            KeyCode::PageDown | KeyCode::Char(' ') => of.scroll = of.scroll.saturating_add(PAGE),
            KeyCode::Char('r') => of.compare(true),
            KeyCode::Char(letter) => return self.command(letter),
            _ => {}
        }
        Next::Nothing
    }

    /// Keys that begin a command. None is begun for a mount that does not answer, or before the last one has ended.
    fn command(&mut self, letter: char) -> Next {
        let Some(of) = self.mounts.get(self.at).filter(|_| "cmvosh".contains(letter)) else { return Next::Nothing };
        let refused = match (&of.running, of.silent(Instant::now()).is_some() || !of.mount.alive || !of.is_known()) {
            (_, true) => Some("the mount does not answer".to_owned()),
            (Some(what), _) => Some(format!("wait: {what} runs")),
            _ => None,
        };
        let opened = match letter {
            _ if refused.is_some() => Err(refused.unwrap_or_default()),
            's' => return self.begin(dialog::sync(of)),
            'h' => return self.begin(dialog::hydrate(of)),
            'c' if of.uncommitted() == 0 => Err("nothing is uncommitted".to_owned()),
            'c' => return Next::Terminal(Task::Commit),
            'm' => Ok(dialog::switch(of)),
            'v' => dialog::revert(of).map_err(str::to_owned),
            _ => dialog::resolve(of).map_err(str::to_owned),
        };
        match opened {
            Ok(dialog) => self.dialog = Some(dialog),
            Err(why) => self.outcome = Some((why, false)),
        }
        Next::Nothing
    }

    fn begin(&mut self, task: Task) -> Next {
        let Task::Run(what, words, input) = task else { return Next::Terminal(task) };
        let Some(of) = self.mounts.get_mut(self.at) else { return Next::Nothing };
        match feeds::run(words, input, of.id, self.news.0.clone()) {
            Ok(()) => {
                of.running = Some(what);
                self.outcome = None;
            }
            Err(error) => self.outcome = Some((format!("{what}: {error}"), false)),
        }
        Next::Nothing
    }

    /// Notes how something ended that used the terminal.
    pub(super) fn ended(&mut self, what: &str, ended: CliResult<()>) {
        let ended = ended.map(|()| String::new()).map_err(|failure| failure.explain());
        self.outcome = Some(outcome(what, ended));
        if let Some(of) = self.mounts.get_mut(self.at) {
            of.compare(true);
        }
    }

    /// The uncommitted changes of the mount that is shown, for the editor.
    pub(super) fn to_commit(&self) -> String {
        let items = self.mounts.get(self.at).map(Watched::items).unwrap_or_default();
        let line = |item: Item| match item {
            Item::Change(path, letter) => {
                Some(format!("{} {}\n", crate::text::visible(letter), crate::text::visible(path)))
            }
            _ => None,
        };
        format!(
            "These changes are committed on the platform:\n{}",
            items.into_iter().filter_map(line).collect::<String>()
        )
    }

    /// Begins the commit with the message that the editor gave.
    pub(super) fn commit(&mut self, message: CliResult<String>) {
        let message = match message {
            Ok(message) if message.trim().is_empty() => {
                self.outcome = Some(("the message is empty; nothing was committed".to_owned(), false));
                return;
            }
            Ok(message) => message,
            Err(failure) => return self.ended("commit", Err(failure)),
        };
        if let Some(of) = self.mounts.get(self.at) {
            let task = dialog::commit(of, message);
            self.begin(task);
        }
    }
}

/// What is said of a command that has ended, and whether that is good.
fn outcome(what: &str, ended: Result<String, String>) -> (String, bool) {
    match ended {
        Ok(text) if text.trim().is_empty() => (format!("{what}: done"), true),
        Ok(text) => (format!("{what}: {}", text.trim_end()), true),
        Err(text) => (format!("{what} FAILED: {}", reason(&text)), false),
    }
}

/// The line that explains a failure is the last one.
fn reason(text: &str) -> &str {
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it does not say why");
    line.strip_prefix("pantheonfs: ").unwrap_or(line)
}

/// The first line of an outcome; the key `l` shows the others.
fn summary(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// The mount of the user that a word means: a path in it, or its name. Paths are compared as texts first: a mount that does
/// not answer must not be looked at.
pub(super) fn find(around: &Environ, given: &Path) -> CliResult<Option<PathBuf>> {
    let mounts = record::mounts(around)?;
    let below = |path: &Path| {
        let holding = mounts.iter().map(|mount| &mount.record.mountpoint).filter(|place| path.starts_with(place));
        holding.max_by_key(|place| place.as_os_str().len()).cloned()
    };
    let as_text = std::path::absolute(given).ok().and_then(|path| below(&path));
    if as_text.is_some() {
        return Ok(as_text);
    }
    let named = crate::cli::source::Source::parse_or_dev(given.as_os_str()).ok().map(|(source, _)| source.to_string());
    let named = mounts.iter().find(|mount| Some(&mount.record.source) == named.as_ref());
    if let Some(mount) = named {
        return Ok(Some(mount.record.mountpoint.clone()));
    }
    Ok(std::fs::canonicalize(given).ok().and_then(|path| below(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_outcome_of_a_command_is_said_with_the_reason_of_a_failure() {
        assert_eq!(outcome("sync", Ok("\n".into())), ("sync: done".to_owned(), true));
        let (text, good) = outcome("commit", Ok("commit: abc\nM index.php\n".into()));
        assert_eq!((summary(&text), good), ("commit: commit: abc", true));
        let failed = outcome("switch", Err("will be committed: x\npantheonfs: write .pantheon/mode: busy\n".into()));
        assert_eq!(failed, ("switch FAILED: write .pantheon/mode: busy".to_owned(), false));
        assert!(outcome("sync", Err(String::new())).0.contains("does not say why"));
    }
}
