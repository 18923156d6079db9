//! Programs on an SSH channel: git for the code server, and rsync, the one that the platform lets users run beside SFTP.

use std::io;
use std::path::PathBuf;
use std::process::Stdio;

use russh::server::Msg;
use russh::{Channel, ChannelReadHalf, ChannelWriteHalf};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Runs a program with the channel as its standard input and output. Returns its exit code.
pub(super) async fn run(
    mut command: Command,
    from: &mut ChannelReadHalf,
    to: &ChannelWriteHalf<Msg>,
) -> io::Result<u32> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let (Some(mut input), Some(mut output)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(io::Error::other("no pipes"));
    };
    let mut reader = from.make_reader();
    let mut writer = to.make_writer();
    let up = async move {
        // The program stops reading when it has what it needs.
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

/// Sends the exit code and closes the channel, after the last byte of the answer. The client may be gone already.
pub(super) async fn end(to: &ChannelWriteHalf<Msg>, code: u32) {
    let _ = to.exit_status(code).await;
    let _ = to.eof().await;
    let _ = to.close().await;
}

/// The words of a command line that may be run: rsync as its own client calls it, with nothing in it for a shell.
pub(super) fn rsync_words(line: &str) -> Option<Vec<String>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.,/=~".contains(c);
    let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
    let known =
        words.first().is_some_and(|word| word == "rsync") && words.get(1).is_some_and(|word| word == "--server");
    let inside = words.iter().all(|word| word.chars().all(plain) && !word.starts_with('/') && !word.contains(".."));
    (known && inside).then_some(words)
}

/// Runs rsync's server side in the home directory of an environment.
pub(super) fn serve_rsync(home: PathBuf, channel: Channel<Msg>, words: Vec<String>) {
    tokio::spawn(async move {
        let (mut from, to) = channel.split();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).current_dir(home);
        let code = match run(command, &mut from, &to).await {
            Ok(code) => code,
            Err(error) => {
                log::debug!("rsync on the simulated server: {error}");
                127
            }
        };
        end(&to, code).await;
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_rsync_is_run() {
        assert!(rsync_words("rsync --server --sender -nrce.iLsfxCIvu . code/").is_some());
        for line in
            ["", "rsync code/ x", "sh -c ls", "rsync --server . /etc/", "rsync --server . $(id)", "rsync --server ../x"]
        {
            assert!(rsync_words(line).is_none(), "{line}");
        }
    }
}
