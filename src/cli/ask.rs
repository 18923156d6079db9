//! Asks a mount for its status without the risk of hanging with it.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long a mount may take to report its status. It needs no server for that, so one that takes longer hangs.
const STATUS_LIMIT: Duration = Duration::from_secs(3);

/// The status of the mount; `None` if it does not answer in time. A child process reads it, because a process whose request
/// is not answered cannot end, not even by SIGKILL.
pub(super) fn status_of(place: &Path) -> Option<serde_json::Value> {
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["status", "--json", "--"]).arg(place).current_dir("/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
    let (mut output, (sender, answer)) = (child.stdout.take()?, mpsc::channel());
    let read = move || {
        let mut text = Vec::new();
        drop(sender.send(output.read_to_end(&mut text).map(|_| text)));
    };
    std::thread::Builder::new().spawn(read).ok()?;
    let Ok(text) = answer.recv_timeout(STATUS_LIMIT) else {
        // It ends when it can; there is no need to wait.
        child.kill().ok()?;
        return None;
    };
    child.wait().ok()?;
    serde_json::from_slice(&text.ok()?).ok()
}
