//! Files whose `close` could not send them (the link was down, and the caller was told): tried again until the server
//! has them.

use std::sync::Weak;
use std::time::Duration;

use super::{Fs, Shared, Wait, lock};
use crate::inode::Ino;
use crate::remote::Link;

/// Pause between attempts.
const PAUSE: Duration = Duration::from_secs(3);

/// Runs until the filesystem is gone or closing.
pub(super) fn start(weak: Weak<Shared>) {
    let run = move || {
        loop {
            std::thread::sleep(PAUSE);
            let Some(shared) = weak.upgrade() else { return };
            let fs = Fs(shared);
            if fs.is_closing() {
                return;
            }
            fs.look_where_we_are();
            fs.resend();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("resender".into()).spawn(run) {
        log::error!("files that could not be sent are only tried again at unmount: {error}");
    }
}

impl Fs {
    fn resend(&self) {
        if !matches!(self.0.remote.link(), Link::Up { .. }) {
            return;
        }
        let inos: Vec<Ino> = lock(&self.0.spools).keys().copied().collect();
        for ino in inos {
            // An open file is sent by whoever has it open.
            if self.0.table.view(ino).is_none_or(|view| view.opens > 0) {
                continue;
            }
            match self.send("resend", ino, Wait::Until(self.deadline())) {
                Ok(()) => self.drop_clean_spool(ino),
                Err(error) => log::info!("{error}"),
            }
        }
    }
}
