//! The code server: git over SSH, by git itself on the bare repository. Pushes to an environment in SFTP mode are refused.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::Arc;

use russh::server::Msg;
use russh::{Channel, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::state::Shared;
use super::{ENVIRONMENTS, site};
use crate::control::{ConnectionMode, EnvKind};

/// Asked by git for every ref of a push; the marks are made by [`mark_modes`].
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
        // In this order, behind the last byte of the answer. The client may be gone already.
        let _ = to.exit_status(code).await;
        let _ = to.eof().await;
        let _ = to.close().await;
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
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    let mut reader = from.make_reader();
    let mut writer = to.make_writer();
    let up = async move {
        // Git stops reading when it has what it needs.
        let _ = tokio::io::copy(&mut reader, &mut input).await;
        drop(input);
        std::future::pending::<io::Result<()>>().await
    };
    let down = async {
        tokio::io::copy(&mut output, &mut writer).await?;
        writer.flush().await
    };
    tokio::select! {
        done = down => done?,
        done = up => done?,
    }
    let status = child.wait().await?;
    Ok(u32::try_from(status.code().unwrap_or(1)).unwrap_or(1))
}

/// One file per ref that must not be pushed to now.
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
