//! The real mount(8) and umount(8), by root and by an ordinary user, with the helper where `scripts/setup --mount-helper`
//! installs it. All of it happens in mount and process namespaces of its own: the machine's fstab, passwd, `/sbin` and
//! `/usr/local/bin` stay as they are.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::program::{Environ, Ran};
use crate::common::{Watch, eventually, has_fuse, has_program, needs_root, skip, watch};

/// The ordinary user, who exists only in the namespace.
const USER: &str = "webdev";
const UID: u32 = 61_234;
/// mount(8)'s own codes.
const WRONG_CALL: i32 = 1;
const FAILED: i32 = 32;

/// Runs as the first process of the namespaces: says its number outside of them, prepares them, and lives until its standard
/// input ends. The kernel then ends everything else in there, drivers included.
const INIT: &str = r#"
set -e
read -r outside rest < /proc/self/stat
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mount --bind "$1/sbin" /sbin
mount --bind "$1/bin" /usr/local/bin
mount --bind "$1/fstab" /etc/fstab
mount --bind "$1/passwd" /etc/passwd
echo "$outside"
exec cat
"#;

/// A machine with a simulated site to mount.
struct Machine {
    sim: Sim,
    around: Environ,
    init: Child,
    /// The first process of the namespaces.
    pid: String,
    _watch: Watch,
}

impl Machine {
    /// `None`, loudly, where it cannot be made.
    fn new() -> Option<Self> {
        let machine = Self::bare()?;
        let setup = machine.setup().ok();
        assert!(setup.out().contains("/sbin/mount.pantheonfs leads to /usr/local/bin/pantheonfs"), "{}", setup.out());
        Some(machine)
    }

    /// Without the helper.
    fn bare() -> Option<Self> {
        if !can_run() {
            return None;
        }
        let watch = watch();
        let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
        let around = Environ::new().with(sim.env());
        furnish(&around, &sim);
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-c", INIT, "sh"]).arg(around.path(""));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut init = command.spawn().expect("unshare runs");
        let mut pid = String::new();
        BufReader::new(init.stdout.take().expect("a pipe")).read_line(&mut pid).expect("read");
        if pid.is_empty() {
            let said = Ran(init.wait_with_output().expect("ended")).err();
            skip(&format!("mount(8) cannot be tested: no private namespaces (CAP_SYS_ADMIN is missing?): {said}"));
            return None;
        }
        Some(Self { sim, around, init, pid: pid.trim().into(), _watch: watch })
    }

    /// Installs the helper as a user does.
    fn setup(&self) -> Ran {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup");
        let mut command = self.enter(&[&script.to_string_lossy(), "--mount-helper"]);
        Ran(command.env("PANTHEONFS", env!("CARGO_BIN_EXE_pantheonfs")).output().expect("runs"))
    }

    fn enter(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        self.around.dress(&mut command);
        command.args(["--target", &self.pid, "--mount", "--pid", "--"]).args(words).current_dir("/");
        command
    }

    fn root(&self, words: &[&str]) -> Ran {
        Ran(self.enter(words).output().expect("runs"))
    }

    /// As the ordinary user after a login: nothing but the home directory says where state and cache are.
    fn user(&self, words: &[&str]) -> Ran {
        let uid = UID.to_string();
        let become_user = ["setpriv", "--reuid", &uid, "--regid", &uid, "--clear-groups", "--"];
        let mut command = self.enter(&[&become_user, words].concat());
        for name in ["XDG_STATE_HOME", "XDG_CACHE_HOME", "TERMINUS_CACHE_DIR"] {
            command.env_remove(name);
        }
        Ran(command.env("HOME", self.home()).output().expect("runs"))
    }

    fn home(&self) -> PathBuf {
        self.around.path(USER)
    }

    fn source(&self) -> String {
        format!("{}.dev", self.sim.site())
    }

    fn fstab(&self, line: &str) {
        fs::write(self.around.path("fstab"), format!("{line}\n")).expect("written");
    }

    /// The mount's options as the kernel has them.
    fn mounted(&self, dir: &Path) -> Option<String> {
        let list = fs::read_to_string(format!("/proc/{}/mountinfo", self.pid)).expect("the namespace is there");
        let dir = dir.to_string_lossy();
        let line = list.lines().rfind(|line| line.split(' ').nth(4) == Some(&*dir))?;
        assert!(line.contains(&format!("fuse.pantheonfs {}", self.source())), "{line}");
        line.split(' ').nth(5).map(Into::into)
    }

    fn on_server(&self, name: &str) -> PathBuf {
        self.sim.home("dev").join("code").join(name)
    }

    /// After umount(8), which does not wait for it, the driver sends what was written and ends.
    fn ends_well(&self, name: &str) {
        let there = self.on_server(name);
        eventually("what was written is on the server", || fs::read(&there).is_ok_and(|bytes| bytes == b"written\n"));
        self.driver_ends();
    }

    fn driver_ends(&self) {
        // By its arguments: what has ended has none, and the first process of the namespaces collects nothing.
        eventually("the driver ends", || self.root(&["pgrep", "-f", "/usr/local/bin/pantheonfs"]).code() == 1);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        drop(self.init.stdin.take());
        let _ = self.init.wait();
    }
}

fn can_run() -> bool {
    if !needs_root("mount(8), fstab and private namespaces") {
        return false;
    }
    let same = |one: &str, other: &str| fs::canonicalize(one).ok() == fs::canonicalize(other).ok();
    if same("/sbin", "/usr/bin") {
        skip("mount(8): not tested, because /sbin is /usr/bin here and cannot be replaced in the namespace");
        return false;
    }
    let places = ["/etc/fstab", "/usr/local/bin"].into_iter().all(|place| {
        let there = Path::new(place).exists();
        if !there {
            skip(&format!("mount(8): not tested, because there is no {place}"));
        }
        there
    });
    let programs = ["mount", "umount", "unshare", "nsenter", "setpriv", "fusermount3", "pgrep"];
    has_fuse() && places && programs.into_iter().all(has_program)
}

/// Files for the namespace, and a home directory for the ordinary user.
fn furnish(around: &Environ, sim: &Sim) {
    let home = around.path(USER);
    // Everything on the way must be open to the ordinary user.
    fs::set_permissions(around.path(""), fs::Permissions::from_mode(0o755)).expect("set");
    for name in ["sbin", "bin", "mnt"] {
        fs::create_dir(around.path(name)).expect("made");
    }
    fs::write(around.path("fstab"), "").expect("written");
    let mut passwd = fs::read_to_string("/etc/passwd").expect("a list of users");
    passwd.push_str(&format!("{USER}:x:{UID}:{UID}::{}:/bin/sh\n", home.display()));
    fs::write(around.path("passwd"), passwd).expect("written");
    for dir in [home.clone(), home.join(".ssh"), home.join("mysite")] {
        fs::create_dir(&dir).expect("made");
        chown(&dir, Some(UID), Some(UID)).expect("given away");
    }
    let told = sim.describe();
    for (at, name) in [("/ssh/identity", "id_rsa"), ("/ssh/known_hosts", "known_hosts")] {
        let to = home.join(".ssh").join(name);
        fs::copy(told.pointer(at).and_then(|path| path.as_str()).expect("a path"), &to).expect("copied");
        chown(&to, Some(UID), Some(UID)).expect("given away");
    }
}

/// The line of fstab that README shows, for this site and this home directory. The rest of what the simulator needs is added.
fn readme_line(machine: &Machine) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).expect("README");
    let line = readme.lines().find(|line| line.starts_with("mysite.dev  /")).expect("README has a line of fstab");
    let port = machine.sim.describe()["ssh"]["port"].clone();
    let line = line.replacen("mysite.dev", &machine.source(), 1).replace("/home/me", &machine.home().to_string_lossy());
    line.replace("pantheonfs  ", &format!("pantheonfs  Port={port},"))
}

#[test]
fn mount_t_works_for_root() {
    let Some(machine) = Machine::bare() else { return };
    let (source, options) = (machine.source(), machine.sim.options());
    let dir = machine.around.path("mnt");
    let place = dir.to_string_lossy().into_owned();
    let mount = |options: &str| machine.root(&["mount", "-t", "pantheonfs", &source, &place, "-o", options]);
    let missing = mount(&options);
    assert!(missing.code() != 0 && missing.err().contains("unknown filesystem type"), "{}", missing.err());

    machine.setup().ok();
    machine.setup().ok();
    let ran = mount(&options).ok();
    assert_eq!((ran.out(), ran.err()), (String::new(), String::new()), "mount(8) says nothing when all is well");
    assert!(machine.mounted(&dir).is_some());
    assert_eq!(machine.root(&["cat", &format!("{place}/.pantheon/mode")]).out(), "sftp\n");
    machine.root(&["sh", "-c", "echo written > $0/by-root.php", &place]).ok();
    machine.root(&["umount", &place]).ok();
    assert_eq!(machine.mounted(&dir), None);
    machine.ends_well("by-root.php");

    let wrong = mount(&format!("{options},bogus"));
    assert_eq!(wrong.code(), WRONG_CALL, "{}", wrong.err());
    assert!(wrong.err().contains("pantheonfs: unknown option 'bogus'"), "{}", wrong.err());
    let failed = machine.root(&["mount", "-t", "pantheonfs", &source, &format!("{place}/none"), "-o", &options]);
    assert_eq!(failed.code(), FAILED, "{}", failed.err());
    machine.root(&["mount", "-f", "-t", "pantheonfs", &source, &place, "-o", &options]).ok();
    assert_eq!(machine.mounted(&dir), None, "a dry run mounts nothing");
}

#[test]
fn a_line_of_fstab_works_for_root_and_at_boot() {
    let Some(machine) = Machine::new() else { return };
    let dir = machine.around.path("mnt");
    let place = dir.to_string_lossy().into_owned();
    let line =
        |options: &str| format!("{} {place} pantheonfs {options},{} 0 0", machine.source(), machine.sim.options());
    machine.fstab(&line("noauto,_netdev,nofail,x-systemd.automount,noatime"));
    machine.root(&["mount", "-a"]).ok();
    assert_eq!(machine.mounted(&dir), None, "noauto");
    machine.root(&["mount", &place]).ok();
    let options = machine.mounted(&dir).expect("mounted");
    assert!(options.contains("nosuid,nodev") && options.contains("noatime"), "{options}");
    let as_user = machine.user(&["umount", &place]);
    assert!(as_user.code() != 0 && machine.mounted(&dir).is_some(), "{}", as_user.err());
    machine.root(&["umount", &place]).ok();
    machine.driver_ends();

    machine.fstab(&line("defaults,ro"));
    machine.root(&["mount", "-a"]).ok();
    assert!(machine.mounted(&dir).expect("mounted").starts_with("ro,"));
    machine.root(&["mount", "-a"]).ok();
    machine.root(&["umount", "-a", "-t", "fuse.pantheonfs"]).ok();
    assert_eq!(machine.mounted(&dir), None);
}

#[test]
fn the_line_of_fstab_in_readme_works_for_an_ordinary_user() {
    let Some(machine) = Machine::new() else { return };
    let dir = machine.home().join("mysite");
    let place = dir.to_string_lossy().into_owned();
    machine.fstab(&readme_line(&machine));
    let ran = machine.user(&["mount", &place]).ok();
    assert_eq!((ran.out(), ran.err()), (String::new(), String::new()));
    let options = machine.mounted(&dir).expect("mounted");
    assert!(["nosuid", "nodev", "noexec"].iter().all(|word| options.contains(word)), "{options}");
    let owner = machine.user(&["stat", "-c", "%u", &format!("{place}/index.php")]).ok();
    assert_eq!(owner.out().trim(), UID.to_string());
    machine.user(&["sh", "-c", "echo written > $0/by-user.php", &place]).ok();
    assert!(
        machine.root(&["ls", &place]).err().contains("Permission denied"),
        "without allow_other not even root looks"
    );
    assert!(machine.home().join(".local/state/pantheonfs").join(machine.source()).is_dir(), "in the user's own home");

    let busy = machine.user(&["sh", "-c", "cd $0 && umount $0", &place]);
    assert_eq!(busy.code(), FAILED, "{}", busy.err());
    assert!(busy.err().contains("busy"), "{}", busy.err());
    machine.user(&["umount", &place]).ok();
    assert_eq!(machine.mounted(&dir), None);
    machine.ends_well("by-user.php");

    machine.user(&["mount", &place]).ok();
    machine.user(&["/usr/local/bin/pantheonfs", "umount", &place]).ok();
    assert_eq!(machine.mounted(&dir), None, "the program's own umount takes it away as well");

    // mount(8) gives up its privileges for what fstab does not list, and runs the helper all the same.
    machine.driver_ends();
    machine.fstab("");
    let options = machine.sim.options().replace(&machine.sim.root().to_string_lossy().into_owned(), "REPLACED");
    assert!(options.contains("REPLACED/identity"), "{options}");
    let options = options.replace("REPLACED/identity", "~/.ssh/id_rsa").replace("REPLACED", "~/.ssh");
    machine.user(&["mount", "-t", "pantheonfs", &machine.source(), &place, "-o", &options]).ok();
    machine.user(&["umount", &place]).ok();
    assert_eq!(machine.mounted(&dir), None);
}

#[test]
fn setup_replaces_no_helper_of_a_package() {
    let Some(machine) = Machine::bare() else { return };
    let helper = machine.around.path("sbin/mount.pantheonfs");
    fs::write(&helper, "a package's\n").expect("written");
    let ran = machine.setup();
    assert!(ran.code() == 1 && ran.out().contains("not a symbolic link"), "{}", ran.out());
    assert_eq!(fs::read_to_string(&helper).expect("read"), "a package's\n");
    fs::remove_file(&helper).expect("removed");
    std::os::unix::fs::symlink("/nowhere", &helper).expect("linked");
    machine.setup().ok();
    assert_eq!(fs::read_link(&helper).expect("a link"), Path::new("/usr/local/bin/pantheonfs"));
    assert!(machine.root(&["/sbin/mount.pantheonfs", "only-one-word"]).err().contains("usage: mount.pantheonfs"));
}
