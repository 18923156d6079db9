//! Desktop notices of a mount: whether there are any, and what they are about.

use std::path::Path;

use super::environ::Environ;
use super::options::Options;
use super::plan::Plan;
use crate::control::EnvKind;
use crate::env::Env;
use crate::fs::Fs;
use crate::notify::{self, About, Followed};
use crate::remote::Remote;

/// Notices that can be started when the mount is there.
pub(super) struct Notices {
    address: String,
    about: About,
    email: Option<String>,
}

/// The notices of a mount; `None`: they are not wanted, or there is no session bus, as for a mount at the start of the machine.
pub(super) fn plan(plan: &Plan, options: &Options, around: &Environ, mountpoint: &Path) -> Option<Notices> {
    let address = around.session_bus.clone().filter(|_| options.notify)?;
    Some(Notices {
        address,
        about: About {
            source: plan.source.clone(),
            mountpoint: mountpoint.to_owned(),
            takes_code: plan.env.name.as_deref().is_none_or(|name| EnvKind::of(name).takes_code()),
        },
        email: plan.env.author.as_ref().map(|(_, email)| email.clone()),
    })
}

impl Notices {
    pub(super) fn start(self, (fs, env, remote): (&Fs, &Env, &Remote)) {
        let followed = Followed { fs: fs.clone(), env: env.clone(), remote: remote.clone(), email: self.email };
        if let Err(error) = notify::start(self.address, self.about, followed) {
            log::warn!("there are no desktop notices: {error}");
        }
    }
}
