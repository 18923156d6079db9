//! The code server: git over SSH, by git itself on the bare repository. Pushes to an environment in SFTP mode are refused.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use russh::server::Msg;
use russh::{Channel, ChannelReadHalf, ChannelWriteHalf};
use tokio::process::Command;

use super::config::ENVIRONMENTS;
use super::state::Shared;
use super::{exec, site};
use crate::control::{ConnectionMode, EnvKind};

/// Run by git for every ref of a push; [`mark_modes`] makes the files that it checks.
const UPDATE_HOOK: &str = "#!/bin/sh\n\
    if [ -e \"$GIT_DIR/sftp-mode/$1\" ]; then\n\
    echo 'This environment is in SFTP mode; switch it to Git mode to push.' >&2\n\
    exit 1\n\
    fi\n";

/// Runs git's own server on the channel.
pub(super) fn serve(shared: Arc<Shared>, channel: Channel<Msg>, service: &str) {
    let service = service.trim_start_matches("git-").to_owned();
    tokio::spawn(async move {
        let (mut from, to) = channel.split();
        let code = match run(&shared, &mut from, &to, &service).await {
            Ok(code) => code,
            Err(error) => {
                log::error!("the simulated code server: {error}");
                1
            }
        };
        if service == "receive-pack" {
            for environment in ENVIRONMENTS {
                if let Err(error) = site::follow(&shared, environment) {
                    log::debug!("{environment} does not follow: {error}");
                }
            }
        }
        exec::end(&to, code).await;
    });
}

async fn run(
    shared: &Shared,
    from: &mut ChannelReadHalf,
    to: &ChannelWriteHalf<Msg>,
    service: &str,
) -> io::Result<u32> {
    mark_modes(shared)?;
    let mut command = Command::new("git");
    command.arg(service).arg(shared.repository());
    exec::run(command, from, to).await
}

/// Makes one file for each ref that must not be pushed to now.
fn mark_modes(shared: &Shared) -> io::Result<()> {
    let (repository, marks) = (shared.repository(), shared.repository().join("sftp-mode"));
    let hook = repository.join("hooks/update");
    if !hook.exists() {
        fs::create_dir_all(repository.join("hooks"))?;
        fs::write(&hook, UPDATE_HOOK)?;
        fs::set_permissions(&hook, fs::Permissions::from_mode(0o755))?;
    }
    for environment in ENVIRONMENTS {
        let mark = marks.join(site::target_ref(environment));
        let mode = shared.lock().environments.get(environment).map(|env| env.mode);
        if EnvKind::of(environment).takes_code() && mode == Some(ConnectionMode::Sftp) {
            fs::create_dir_all(mark.parent().unwrap_or(&marks))?;
            fs::write(&mark, "")?;
        } else if mark.exists() {
            fs::remove_file(&mark)?;
        }
    }
    Ok(())
}
