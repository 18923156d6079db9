//! Names that the user has made local: they stay on this machine, with everything in them.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::Command;

use crate::common::mounted::Mounted;

fn add(m: &Mounted, pattern: &str) {
    let mut file = fs::OpenOptions::new().append(true).open(m.path(".pantheon/local")).expect("opened");
    file.write_all(format!("{pattern}\n").as_bytes()).expect("taken");
}

#[test]
fn what_matches_stays_here_and_survives_the_driver() {
    let Some(m) = Mounted::sim() else { return };
    add(&m, "node_modules/");
    let theme = "wp-content/themes/mine";
    fs::create_dir_all(m.path(&format!("{theme}/node_modules/.bin"))).expect("made");
    fs::create_dir_all(m.path(&format!("{theme}/node_modules/empty"))).expect("made");
    fs::write(m.path(&format!("{theme}/style.css")), "a {}").expect("written");
    let tool = m.path(&format!("{theme}/node_modules/tool.js"));
    fs::write(&tool, "#!/usr/bin/env node\n").expect("written");
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).expect("set");
    symlink("../tool.js", m.path(&format!("{theme}/node_modules/.bin/tool"))).expect("linked");
    fs::create_dir(m.path(&format!("{theme}/node_modules/.x-tmp"))).expect("made");
    fs::write(m.path(&format!("{theme}/node_modules/.x-tmp/index.js")), "x").expect("written");
    fs::rename(m.path(&format!("{theme}/node_modules/.x-tmp")), m.path(&format!("{theme}/node_modules/x")))
        .expect("moved");
    fs::create_dir_all(m.path(".idea")).expect("made");
    fs::write(m.path(".idea/workspace.xml"), "<x/>").expect("written");
    assert!(m.on_server(&format!("{theme}/style.css")).exists());
    assert!(!m.there(&format!("{theme}/node_modules")).exists() && !m.there(".idea").exists());
    let pending = fs::read_to_string(m.path(".pantheon/pending")).expect("readable");
    assert!(
        pending.contains("style.css") && !pending.contains("node_modules") && !pending.contains(".idea"),
        "{pending}"
    );
    crate::crash::kill(&m);
    crate::crash::mount_again(&m);
    let names = fs::read_to_string(m.path(".pantheon/local")).expect("readable");
    assert!(names.ends_with("node_modules/\n"), "{names}");
    assert_eq!(fs::read_to_string(&tool).expect("there"), "#!/usr/bin/env node\n");
    assert_eq!(fs::metadata(&tool).expect("there").permissions().mode() & 0o777, 0o755);
    let link = m.path(&format!("{theme}/node_modules/.bin/tool"));
    assert_eq!(fs::read_link(&link).expect("there"), std::path::Path::new("../tool.js"));
    assert_eq!(fs::read(m.path(&format!("{theme}/node_modules/x/index.js"))).expect("moved"), b"x");
    assert!(m.path(&format!("{theme}/node_modules/empty")).is_dir());
    assert!(!m.path(&format!("{theme}/node_modules/.x-tmp")).exists());
    let told = m.status()["local_names"].clone();
    assert_eq!((&told["files"], &told["bytes"]), (&3.into(), &25.into()), "{told}");
    fs::OpenOptions::new().append(true).open(&tool).expect("opened").write_all(b"1\n").expect("goes on");
    assert_eq!(fs::read_to_string(&tool).expect("there"), "#!/usr/bin/env node\n1\n");
    fs::remove_dir_all(m.path(&format!("{theme}/node_modules"))).expect("removed");
    crate::crash::kill(&m);
    crate::crash::mount_again(&m);
    assert!(!m.path(&format!("{theme}/node_modules")).exists(), "it does not come back");
}

#[test]
fn a_name_that_the_server_has_is_the_servers() {
    let Some(m) = Mounted::sim() else { return };
    fs::create_dir_all(m.path("tools/node_modules")).expect("made");
    fs::write(m.path("tools/node_modules/a.js"), "1").expect("written");
    assert!(m.on_server("tools/node_modules/a.js").exists());
    let run = |args: &[&str]| m.environ().run(&[args, &["--at", &m.dir().to_string_lossy()]].concat());
    run(&["local", "add", "node_modules/"]).fails(13, &["tools/node_modules", "--leave"]);
    run(&["local", "add", "--leave", "node_modules/"]).ok();
    fs::write(m.path("tools/node_modules/b.js"), "2").expect("written");
    assert!(m.on_server("tools/node_modules/b.js").exists(), "as before");
    fs::create_dir(m.path("node_modules")).expect("made");
    assert!(!m.on_server("node_modules").exists());
    run(&["local", "remove", "node_modules/"]).ok();
    let list = m.environ().run(&["local", "list", &m.dir().to_string_lossy()]).ok().out();
    assert!(list.contains(".idea/\n") && !list.contains("node_modules"), "{list}");
    fs::write(m.path("node_modules/c.js"), "3").expect("written");
    assert!(!m.on_server("node_modules").exists(), "what is only here stays here");
    // mv copies from one to the other, which sends it.
    let moved = Command::new("mv").arg(m.path("node_modules")).arg(m.path("modules")).status().expect("mv runs");
    assert!(moved.success());
    assert_eq!(fs::read(m.on_server("modules/c.js")).expect("sent"), b"3");
}

#[test]
fn the_file_of_patterns_is_edited_as_any_other() {
    let Some(m) = Mounted::sim() else { return };
    let read = || fs::read_to_string(m.path(".pantheon/local")).expect("readable");
    assert!(read().contains(".vscode/\n"));
    add(&m, "# mine\n*.log");
    assert!(read().ends_with("# mine\n*.log\n"));
    fs::write(m.path("debug.log"), "x").expect("written");
    assert!(!m.on_server("debug.log").exists());
    let error = fs::write(m.path(".pantheon/local"), "a{b\n").expect_err("no pattern");
    assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
    assert!(read().ends_with("*.log\n"), "as before");
    fs::write(m.path(".pantheon/local"), "/only\n").expect("replaced");
    assert_eq!(read(), "/only\n");
    m.umount().ok();
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    assert_eq!(read(), "/only\n");
}

#[test]
fn a_clone_in_the_mount_keeps_its_git_directory_here() {
    let Some(m) = Mounted::sim() else { return };
    let mut command = Command::new("git");
    m.environ().dress(&mut command);
    command.args(["clone", "-q", "--no-local"]).arg(m.sim_ref().repository()).arg(m.path("wp-content/plugins/clone"));
    assert!(command.status().expect("git runs").success());
    assert!(m.on_server("wp-content/plugins/clone/index.php").exists());
    assert!(m.path("wp-content/plugins/clone/.git/HEAD").exists());
    assert!(!m.there("wp-content/plugins/clone/.git").exists());
    crate::crash::kill(&m);
    crate::crash::mount_again(&m);
    let mut status = Command::new("git");
    m.environ().dress(&mut status);
    let status = status.arg("-C").arg(m.path("wp-content/plugins/clone")).args(["status", "--porcelain"]);
    let ran = status.output().expect("git runs");
    assert!(ran.status.success() && ran.stdout.is_empty(), "{ran:?}");
}
