//! OpenSSH's `sftp-server`, run directly on pipes: the protocol of a real server without SSH around it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pantheonfs::clock::Deadline;
use pantheonfs::remote::{Remote, RemoteConfig};
use pantheonfs::transport;

/// Where distributions put it.
const PLACES: [&str; 3] =
    ["/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server"];

pub fn sftp_server() -> Option<&'static Path> {
    PLACES.iter().map(Path::new).find(|path| path.exists())
}

/// A session with a server whose login directory is `home`; `args` are its own (`-P rename` refuses RENAME, …).
pub fn start(home: &Path, args: &[&str]) -> Remote {
    let program = sftp_server().expect("OpenSSH's sftp-server (package openssh-sftp-server)");
    let mut words: Vec<PathBuf> = args.iter().map(PathBuf::from).collect();
    words.extend(["-d".into(), home.to_owned()]);
    let dial = move |_: Deadline| {
        let args: Vec<&OsStr> = words.iter().map(|w| w.as_os_str()).collect();
        transport::exec(program, &args)
    };
    let first = dial(Deadline::after(Duration::from_secs(5))).expect("sftp-server starts");
    let config = RemoteConfig::new(Box::new(dial), Vec::new(), Duration::from_secs(10));
    Remote::start(config, first).expect("a session")
}
