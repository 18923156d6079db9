//! Carries out the commands that are written to virtual files.

use super::state::Dot;
use crate::control::ConnectionMode;
use crate::env::{CommitError, SwitchError};
use crate::error::{Cause, FsError, FsResult, Wait};
use crate::gate::ReadOnlyReason;
use crate::upload::Reports;
use crate::vfiles::{self, Command};

impl Dot {
    /// Carries out the command that was written to a file.
    ///
    /// # Errors
    ///
    /// [`Cause::Invalid`] if the text is not a valid command; otherwise the reason why the command failed.
    ///
    /// `replace`: the file was emptied first. Of those that keep what is written to them, the text takes its place.
    pub(super) fn command(&self, file: vfiles::File, text: &[u8], replace: bool, wait: Wait) -> FsResult<()> {
        let object = format!(".pantheon/{}", file.name());
        let result = match vfiles::parse(file, text) {
            Err(what) => Err(Cause::Invalid(what)),
            Ok(Command::Switch { mode, discard }) => self.switch_mode(mode, discard, wait),
            Ok(Command::Commit(message)) => self.commit(&message, wait),
            Ok(Command::Sync) => self.0.upload.barrier(Reports::Refused, wait).map_err(|error| error.cause),
            Ok(Command::LocalNames(lines)) => {
                let changed = self.0.upload.change_local_names(&lines, replace);
                self.0.config.git.wake();
                changed
            }
            Ok(Command::Hydrate(below)) => self.0.reader.hydrate(&below, wait).map_err(|error| error.cause),
        };
        result.map_err(|cause| self.0.errors.noted(FsError::new("write", object, cause)))
    }

    /// Commits. Everything must be on the server first: the commit is made there.
    fn commit(&self, message: &str, wait: Wait) -> Result<(), Cause> {
        let all_sent = || {
            let sent = self.0.upload.barrier(Reports::All, wait);
            sent.map_err(|error| not_sent("nothing was committed", error))
        };
        // Waits without holding back writers first, because it may take long.
        all_sent()?;
        let _held = self.0.env.drain("a commit is being prepared");
        all_sent()?;
        let mut done = self.0.env.commit(message).map_err(|error| match error {
            CommitError::NoApi => {
                Cause::Unsupported("there is no API for this mount; commit in the dashboard or with git")
            }
            CommitError::ReadOnly(reason) => Cause::ReadOnly(reason),
            error @ (CommitError::EmptyMessage | CommitError::Nothing) => Cause::Invalid(error.to_string()),
            error @ (CommitError::NotThere { .. } | CommitError::Api(_)) => Cause::Platform(error.to_string()),
        })?;
        if let Some(mirror) = self.0.reader.repository().mirror() {
            let found = mirror.ensure(&done.hash);
            if let Err(error) = &found {
                log::warn!("the commit could not be looked up in the repository: {error}");
            }
            done.in_repository = Some(found.is_ok());
        }
        self.0.notes.committed(done);
        self.review_backups_soon(false);
        Ok(())
    }

    fn switch_mode(&self, mode: ConnectionMode, discard: bool, wait: Wait) -> Result<(), Cause> {
        let mut held = None;
        if mode == ConnectionMode::Git {
            // What is not on the server yet would be stranded by the switch. It is sent, and the switch is confirmed,
            // once without holding back writers, so that a refused switch costs them nothing.
            self.send_before_switch(discard, wait)?;
            if !discard {
                self.0.env.may_discard_nothing().map_err(why_not_switched)?;
            }
            // From here on writes are held, so that the confirmed and saved state below cannot change.
            held = Some(self.0.env.drain("the mode is about to be switched to git"));
            self.send_before_switch(discard, wait)?;
            if discard {
                let saved = self.keep_pending(wait)?;
                log::warn!(
                    "{saved} uncommitted change(s) are backed up on this machine before they are deleted; see pantheonfs rescue list"
                );
            }
        }
        let done = self.0.env.switch(mode, discard).map(drop).map_err(why_not_switched);
        drop(held);
        done
    }

    fn send_before_switch(&self, discard: bool, wait: Wait) -> Result<(), Cause> {
        if discard {
            // What was given up is kept here; the next barrier reports it.
            if let Err(error) = self.0.upload.wait_until_sent(wait) {
                log::warn!("before the switch: {error}");
            }
            return Ok(());
        }
        self.0.upload.barrier(Reports::All, wait).map_err(|error| not_sent("the mode was not switched", error))?;
        match self.0.upload.dirty_files().len() {
            0 => Ok(()),
            n => Err(Cause::Busy(format!("{n} change(s) are not on the server yet"))),
        }
    }
}

/// Why a command was not carried out that needs everything on the server.
fn not_sent(what: &str, error: FsError) -> Cause {
    match error.cause {
        Cause::Rejected(text) => Cause::Rejected(format!("{what}: {text}")),
        _ => Cause::Busy(format!("{what}: not everything is on the server: {error}")),
    }
}

fn why_not_switched(error: SwitchError) -> Cause {
    match error {
        SwitchError::NoApi => Cause::Unsupported("there is no API for this mount; the mode cannot be changed here"),
        SwitchError::NotSwitchable(name) => Cause::ReadOnly(ReadOnlyReason::Environment(name)),
        error @ SwitchError::WouldDiscard(_) => Cause::Busy(error.to_string()),
        SwitchError::Api(error) => Cause::Platform(error.to_string()),
    }
}
