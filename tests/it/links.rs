//! Symlinks of all kinds: those that programs make through the mount keep their text; those of the server that lead out are
//! shown, copied and followed without an error, and never lead out of the mount.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::eventually;
use crate::common::mounted::Mounted;

/// Texts that lead out, to nothing, in circles, and back inside.
const TEXTS: [&str; 9] = [
    "/etc/hostname",
    "/no/such/place",
    "../../../../../etc/passwd",
    "..",
    "missing",
    "loop8",
    "d/../file",
    "file",
    "./d//x",
];

fn text_of(path: &Path) -> PathBuf {
    fs::read_link(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn run(program: &str, args: &[&str], dir: &Path) -> std::process::Output {
    Command::new(program).args(args).current_dir(dir).output().unwrap_or_else(|error| panic!("{program}: {error}"))
}

/// Runs a program that must succeed without a word on its error output.
fn works(program: &str, args: &[&str], dir: &Path) -> String {
    let ran = run(program, args, dir);
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(ran.status.success() && said.is_empty(), "{program} {args:?}: {} {said}", ran.status);
    String::from_utf8_lossy(&ran.stdout).into_owned()
}

/// A tree on this machine with a symlink for each text.
fn source() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(dir.path().join("d/e")).expect("made");
    fs::write(dir.path().join("file"), "content").expect("written");
    fs::write(dir.path().join("d/x"), "x").expect("written");
    for (n, text) in TEXTS.iter().enumerate() {
        symlink(text, dir.path().join(format!("loop{n}"))).expect("linked");
        symlink(text, dir.path().join(format!("d/e/below{n}"))).expect("linked");
    }
    dir
}

/// Every symlink below a directory, with its text.
fn links_below(root: &Path) -> Vec<(PathBuf, PathBuf)> {
    let (mut dirs, mut out) = (vec![root.to_owned()], Vec::new());
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("listed").flatten() {
            let path = entry.path();
            if path.is_symlink() {
                out.push((path.strip_prefix(root).expect("below").to_owned(), text_of(&path)));
            } else if path.is_dir() {
                dirs.push(path);
            }
        }
    }
    out.sort();
    out
}

fn copied_by_tools(m: &Mounted) {
    let source = source();
    let (from, wanted) = (source.path(), links_below(source.path()));
    let at = |name: &str| m.path(name).to_string_lossy().into_owned();
    let here = from.to_string_lossy().into_owned();
    works("tar", &["-cf", "../tree.tar", "."], from);
    let archive = from.with_file_name("tree.tar").to_string_lossy().into_owned();
    fs::create_dir(m.path("tar")).expect("made");
    works("tar", &["-xf", &archive, "-C", &at("tar")], from);
    fs::remove_file(&archive).expect("removed");
    works("rsync", &["-a", &format!("{here}/"), &at("rsync")], from);
    works("cp", &["-a", &here, &at("cp")], from);
    works("git", &["init", "-q"], from);
    works("git", &["add", "-A"], from);
    works("git", &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-qm", "all"], from);
    let clone = run("git", &["clone", "-q", &here, &at("clone")], from);
    assert!(clone.status.success(), "{}", String::from_utf8_lossy(&clone.stderr));
    m.barrier().expect("sent");
    for name in ["tar", "rsync", "cp", "clone"] {
        for root in [m.path(name), m.there(name)] {
            assert_eq!(links_below(&root), wanted, "{name}, {}", root.display());
        }
    }
}

#[test]
fn programs_copy_trees_with_symlinks_of_all_kinds() {
    for mounted in [Mounted::sim(), Mounted::openssh("")].into_iter().flatten() {
        copied_by_tools(&mounted);
    }
}

#[test]
fn what_was_made_here_is_shown_as_it_is_by_the_next_mount() {
    let Some(m) = Mounted::sim() else { return };
    fs::create_dir(m.path("d")).expect("made");
    for (n, text) in TEXTS.iter().enumerate() {
        symlink(text, m.path(&format!("d/own{n}"))).expect("linked");
    }
    fs::rename(m.path("d/own0"), m.path("d/renamed")).expect("renamed");
    m.umount().ok();
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    assert_eq!(text_of(&m.path("d/renamed")), Path::new(TEXTS[0]));
    for (n, text) in TEXTS.iter().enumerate().skip(1) {
        assert_eq!(text_of(&m.path(&format!("d/own{n}"))), Path::new(text));
    }
}

/// Another writer on the server, who may be hostile, makes symlinks that lead out.
#[test]
fn symlinks_of_the_server_never_lead_out() {
    let Some(m) = Mounted::openssh("fresh=1") else { return };
    let secret = m.dir().parent().expect("a parent").join("secret");
    fs::write(&secret, "of this machine").expect("written");
    let absolute = secret.to_string_lossy().into_owned();
    let long = format!("/{}", "x/".repeat(1500));
    let texts = [
        absolute.as_str(),
        "../../secret",
        "../../../../../../etc/passwd",
        "/",
        "..",
        "a/../../../secret",
        long.as_str(),
    ];
    fs::create_dir(m.there("planted")).expect("made");
    for (n, text) in texts.iter().enumerate() {
        symlink(text, m.there(&format!("planted/{n}"))).expect("linked");
    }
    symlink("planted/1", m.there("chain")).expect("linked");
    eventually("they are seen", || m.path("planted/6").symlink_metadata().is_ok() && m.path("chain").is_symlink());
    for n in 0..texts.len() {
        let link = m.path(&format!("planted/{n}"));
        let leads_to = fs::canonicalize(&link);
        assert!(leads_to.as_ref().map_or(true, |place| place.starts_with(m.dir())), "{n}: {leads_to:?}");
        assert!(fs::write(&link, "through the link").is_err(), "{n}: nothing is written by following");
        let read = fs::read(&link).unwrap_or_default();
        assert!(!read.starts_with(b"of this machine") && !read.starts_with(b"root:"), "{n}");
    }
    assert_eq!(fs::read(m.path("planted/0")).expect("readable"), absolute.as_bytes(), "the file has the text");
    assert_eq!(fs::read(m.path("chain")).expect("readable"), b"../../secret");
    assert_eq!(fs::read_to_string(&secret).expect("there"), "of this machine");
    let at = m.dir().to_string_lossy().into_owned();
    let away = tempfile::tempdir().expect("a directory");
    works("ls", &["-lR", &at], m.dir());
    works("find", &[&at, "-ls"], m.dir());
    works("tar", &["-cf", "/dev/null", "-C", &at, "planted"], m.dir());
    works("rsync", &["-a", &format!("{at}/planted"), &away.path().to_string_lossy()], m.dir());
    // Copies inside the mount have the text of the server again.
    works("cp", &["-a", "planted", "copy"], m.dir());
    works("sh", &["-c", "mkdir tarred && tar -cf - planted | tar -xf - -C tarred"], m.dir());
    m.barrier().expect("sent");
    for (n, text) in texts.iter().enumerate().take(texts.len() - 1) {
        for copy in ["copy", "tarred/planted"] {
            assert_eq!(
                text_of(&m.there(copy).join(n.to_string())).as_os_str().as_bytes(),
                text.as_bytes(),
                "{copy}/{n}"
            );
        }
    }
}

#[test]
fn with_links_as_is_the_text_of_the_server_is_shown() {
    let Some(m) = Mounted::openssh("links=as-is,fresh=1") else { return };
    for (n, text) in TEXTS.iter().enumerate() {
        symlink(text, m.there(&format!("planted{n}"))).expect("linked");
    }
    eventually("they are seen", || m.path("planted8").symlink_metadata().is_ok());
    for (n, text) in TEXTS.iter().enumerate() {
        assert_eq!(text_of(&m.path(&format!("planted{n}"))), Path::new(text));
    }
}

/// A program that copies the platform's symlink to the uploads makes one that leads to the uploads on the server, too.
#[test]
fn a_copy_of_the_symlink_to_the_uploads_leads_there_on_the_server() {
    let Some(m) = Mounted::sim() else { return };
    let uploads = text_of(&m.path("wp-content/uploads"));
    symlink(&uploads, m.path("wp-content/again")).expect("linked");
    m.barrier().expect("sent");
    assert_eq!(text_of(&m.there("wp-content/again")), text_of(&m.there("wp-content/uploads")));
    assert_eq!(text_of(&m.path("wp-content/again")), uploads);
}
