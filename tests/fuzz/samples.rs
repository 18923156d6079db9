//! The corpora begin with what real programs wrote: a run of OpenSSH's `sftp-server`, a journal, a pack, a saved tree,
//! answers of the simulated API. `cargo test --test fuzz -- --ignored` writes them anew, when a format changes.

use parking_lot::Mutex;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pantheonfs::attr::{Area, Attr, ContentId, FileKind, Version};
use pantheonfs::cache::{BlockKey, Disk};
use pantheonfs::clock::Deadline;
use pantheonfs::inode::Snapshot;
use pantheonfs::path::{Name, RemotePath};
use pantheonfs::sftp::{Class, Config, Engine};
use pantheonfs::sim::{Sim, SimConfig};
use pantheonfs::transport::{Transport, TransportInfo, exec};
use pantheonfs::write::{Action, Backups, Expected, Journal, Next, Op, Put};

use super::driver::corpus_dir;
use super::engine::requests;

fn put(target: &str, name: &str, bytes: &[u8]) {
    fs::create_dir_all(corpus_dir(target)).expect("made");
    fs::write(corpus_dir(target).join(name), bytes).expect("written");
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).expect("valid")
}

struct Recorder {
    inner: Box<dyn Transport>,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Transport for Recorder {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.inner.read(buffer)?;
        self.heard.lock().extend_from_slice(&buffer[..len]);
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write(bytes)
    }

    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        self.inner.wait(want_write, wake, timeout)
    }

    fn info(&self) -> TransportInfo {
        self.inner.info()
    }
}

#[test]
#[ignore = "writes the corpus anew"]
fn record_a_server() {
    let home = tempfile::tempdir().expect("a temporary directory");
    fs::write(home.path().join("x"), "some content\n").expect("written");
    std::os::unix::fs::symlink("x", home.path().join("link")).expect("made");
    let program = Path::new("/usr/lib/openssh/sftp-server");
    let inner = exec(program, &["-d".as_ref(), home.path().as_os_str()]).expect("it starts");
    let heard = Arc::new(Mutex::new(Vec::new()));
    let recorder = Box::new(Recorder { inner, heard: heard.clone() });
    let (limit, soon) = (Duration::from_secs(5), || Deadline::after(Duration::from_secs(5)));
    let config = Config { timeout: limit };
    let (engine, _) = Engine::start(recorder, config, Vec::new(), soon(), |_| {}).expect("it greets");
    for request in requests() {
        engine.call(request, Class::Interactive, soon()).expect("an answer");
    }
    let stream = heard.lock().clone();
    for (name, how) in [("whole", [0, 0]), ("in-small-pieces", [130, 0]), ("and-silence", [0, 255])] {
        put("engine", name, &[&how[..], &stream].concat());
    }
    let mut rest = &stream[..];
    for number in 0.. {
        let Some(len) = rest.first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) else { break };
        put("replies", &format!("{number:02}"), &rest[4..4 + len]);
        rest = &rest[4 + len..];
    }
}

#[test]
#[ignore = "writes the corpus anew"]
fn record_the_stores() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let journal = Journal::open(dir.path()).expect("opened");
    let save = |at: &str, content: &[u8]| {
        let spool = journal.new_spool().expect("made");
        spool.write_at(0, content).expect("written");
        let sealed = spool.seal();
        let base = Expected::Version(Version { size: 5, mtime: 1_700_000_000 });
        let what = Put {
            spool: sealed.id,
            len: sealed.len,
            sum: sealed.sum,
            perm: 0o644,
            keep_perm: false,
            own_perm: false,
            mtime: 1_700_000_001,
            base,
        };
        (path(at), Action::Put(what))
    };
    let moved = Action::Rename { to: path("code/new"), base: Expected::Absent, replaced: Expected::Unknown, dir: true };
    let gone = Action::Unlink { base: Expected::Unknown, file: true };
    let ops = [
        save("code/a.php", b"<?php\n"),
        (path("code/dir"), Action::MakeDir { perm: 0o755 }),
        (path("code/link"), Action::Symlink { text: b"a.php".to_vec() }),
        save("code/a.php", b"<?php echo 1;\n"),
        (path("code/old"), moved),
        (path("code/b"), gone),
        (path("files/c"), Action::SetAttr { perm: Some(0o600), times: Some((1, 2)), link: false }),
    ];
    for (path, action) in ops {
        journal.add(Op { area: Area::Code, path, action, ino: 0, at: 1_700_000_002 }).expect("recorded");
    }
    journal
        .note_local_only(journal.new_spool().expect("made").id(), Some((path("code/.a.swp"), 0o600)))
        .expect("recorded");
    if let Next::Run(id, ..) = journal.next(Instant::now() + Duration::from_secs(5)) {
        drop(journal.finish(id, Expected::Version(Version { size: 14, mtime: 9 })));
    }
    put("journal", "real", &fs::read(dir.path().join("journal")).expect("there"));

    let kept = Backups::open(dir.path()).expect("opened");
    for (name, content) in [("code/a.php", "<?php\n"), ("code/b", ""), ("code/a.php", "<?php // 2\n")] {
        kept.bytes(&path(name), content.as_bytes(), 0o100_644, 1_700_000_000, Some("c0ffee".into())).expect("kept");
    }
    put("kept", "real", &fs::read(dir.path().join("kept/log")).expect("there"));

    let packs = dir.path().join("packs");
    let disk = Disk::open(&packs, b"dev", 1 << 30).expect("opened");
    let key = |index| BlockKey { content: ContentId::Remote(path("code/a"), Version { size: 9, mtime: 3 }, 0), index };
    for index in 0..3 {
        disk.put(&key(index), vec![index as u8; 40].into());
    }
    disk.renamed(&[(key(0), key(3))]);
    disk.close();
    let pack = fs::read_dir(&packs).expect("listed").flatten().next().expect("a pack");
    put("packs", "real", &fs::read(pack.path()).expect("there"));

    let (snapshot, _) = Snapshot::open(&dir.path().join("tree")).expect("begun");
    let attr = |kind, size| Attr { kind, size, perm: 0o644, mtime: 7, atime: 8 };
    let entry = |name: &str, kind, size| (Name::new(name).expect("valid"), attr(kind, size));
    let code = vec![entry("index.php", FileKind::File, 300), entry("dir", FileKind::Directory, 0)];
    let below = vec![entry("link", FileKind::Symlink, 5), entry("pipe", FileKind::Other, 0)];
    snapshot.append("", &[(path("code"), code.clone())]).expect("written");
    snapshot.append("c0ffee", &[(path("code"), code), (path("code/dir"), below)]).expect("written");
    put("tree", "real", &fs::read(dir.path().join("tree")).expect("there"));
}

#[test]
#[ignore = "writes the corpus anew"]
fn record_the_api() {
    let sim = Sim::start(&SimConfig::default()).expect("it starts");
    let env = sim.env();
    let base = format!("http://{}:{}/api", env["TERMINUS_HOST"], env["TERMINUS_PORT"]);
    let body = format!("{{\"machine_token\": \"{}\", \"client\": \"terminus\"}}", env["TERMINUS_MACHINE_TOKEN"]);
    let login = ureq::post(format!("{base}/authorize/machine-token"));
    let mut login = login.header("Content-Type", "application/json").send(body).expect("an answer");
    let login = login.body_mut().read_to_string().expect("text");
    let value: serde_json::Value = serde_json::from_str(&login).expect("JSON");
    let (session, user) = (value["session"].as_str().expect("a session"), value["user_id"].as_str().expect("a user"));
    fs::write(sim.home("dev").join("code/new.php"), "<?php\n").expect("written");
    let site = sim.site_id();
    for (name, at) in [
        ("user", format!("users/{user}")),
        ("memberships", format!("users/{user}/memberships/sites?limit=100")),
        ("site", format!("sites/{site}?site_state=true")),
        ("environments", format!("sites/{site}/environments")),
        ("environment", format!("sites/{site}/environments/dev")),
        ("diffstat", format!("sites/{site}/environments/dev/on-server-development/diffstat")),
        ("log", format!("sites/{site}/environments/dev/code-log")),
        ("workflows", format!("sites/{site}/workflows")),
    ] {
        let answer = ureq::get(format!("{base}/{at}")).header("Authorization", format!("Bearer {session}"));
        let text = answer.call().expect("an answer").body_mut().read_to_string().expect("text");
        put("api", name, text.as_bytes());
    }
    let failed = r#"{"id": "1", "environment": "dev", "result": "failed", "active_description": "Commit", "reason": null,
        "final_task": {"reason": null, "messages": {"t1": {"message": "first"}, "t2": {"message": {"reason": "last"}}}}}"#;
    put("api", "failed-workflow", failed.as_bytes());
}

#[test]
#[ignore = "writes the corpus anew"]
fn record_texts() {
    for (number, text) in ["sftp\n", "git --discard\n", "Fix it\n\nBecause.\n", "wp-content/plugins\n", ".\n", "now\n"]
        .into_iter()
        .enumerate()
    {
        put("commands", &number.to_string(), text.as_bytes());
    }
    let lists = [
        "rw,noauto,user,_netdev,nofail,x-systemd.automount,uid=1000,gid=1000,umask=022,allow_other,comment=x,,ro",
        "identityfile=~/.ssh/key,UserKnownHostsFile=kh,StrictHostKeyChecking=accept-new,Port=2222,User=u,HostName=h",
        "timeout=2.5,cache=64M,mode=git,fresh=0,sync,password_fd=3,ssh_command=/usr/bin/ssh,ssh_config=/dev/null",
        "mysite.dev /mnt -sv -t pantheonfs -o rw,noatime",
        "sftp://user@[::1]:2222/~/a%20b /mnt/x -o ro -o Port=1",
        "3f5b7d8e-0000-4abc-9def-0123456789ab.live /mnt -f -o suid,dev",
    ];
    for (number, text) in lists.into_iter().enumerate() {
        put("options", &number.to_string(), text.as_bytes());
    }
    let output = Command::new("ssh").args(["-F", "none", "-G", "--", "example.org"]).output().expect("ssh runs");
    put("ssh_config", "defaults", &output.stdout);
    let more = "hostname 127.0.0.1\nport 2222\nstricthostkeychecking accept-new\nidentityfile ~/.ssh/a\nproxyjump none\n\
                userknownhostsfile /a /b\nidentitiesonly yes\nidentityagent none\nhostkeyalias x\nproxycommand a b\n";
    put("ssh_config", "more", more.as_bytes());
    let key = "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl";
    let hosts = format!(
        "# people\nh ssh-ed25519 {key}\n[127.0.0.1]:2222,*.example.org,!bad.* ssh-ed25519 {key} me\n\
         |1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= ssh-rsa {key}\n@revoked * ssh-rsa {key}\n\
         @cert-authority *.drush.in ssh-rsa {key}\n[appserver.dev.y.drush.in]:2222 ssh-ed25519 {key}\n"
    );
    put("known_hosts", "usual", hosts.as_bytes());
}
