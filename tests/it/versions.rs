//! `.pantheon/at`: the trees of other commits, and the commands that use them.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;

/// A commit in the site's repository, beside what the environments run, which a name then stands for.
struct Elsewhere {
    dir: tempfile::TempDir,
}

impl Elsewhere {
    fn of(m: &Mounted) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let it = Self { dir };
        it.git(&["clone", "--quiet", &m.sim_ref().repository().to_string_lossy(), "."]);
        it
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn git(&self, args: &[&str]) -> String {
        let mut command = Command::new("git");
        command.current_dir(self.dir.path()).env("GIT_CONFIG_GLOBAL", "/dev/null").args(["-c", "user.name=Ann"]);
        command.args(["-c", "user.email=ann@example.org"]).args(args);
        let out = command.output().expect("git runs");
        assert!(out.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }

    /// Commits all that is in the work tree and pushes it under this name.
    fn push(&self, name: &str) -> String {
        self.git(&["add", "-A"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", "Elsewhere"]);
        self.git(&["push", "--quiet", "origin", &format!("HEAD:{name}")]);
        self.git(&["rev-parse", "HEAD"])
    }
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_commit_is_shown_by_every_name_it_has() {
    let Some(m) = Mounted::sim() else { return };
    let other = Elsewhere::of(&m);
    fs::write(other.path("index.php"), "<?php // elsewhere\n").expect("written");
    let commit = other.push("refs/heads/feature/deep/x");
    other.git(&["push", "--quiet", "origin", "HEAD:refs/tags/pantheon_live_12"]);
    let at = m.path(".pantheon/at");
    for name in ["feature/deep/x", "refs/heads/feature/deep/x", "live", "pantheon_live_12", &commit, &commit[..10]] {
        assert_eq!(text(&at.join(name).join("index.php")), "<?php // elsewhere\n", "{name}");
    }
    assert_ne!(text(&at.join("test/index.php")), "<?php // elsewhere\n");
    assert_eq!(text(&at.join("dev/index.php")), text(&m.path("index.php")));
    let mut listed: Vec<_> = fs::read_dir(&at).expect("listed").map(|e| e.expect("listed").file_name()).collect();
    listed.sort_unstable();
    assert_eq!(listed, ["dev", "live", "test"]);
    let listed = fs::read_dir(m.path(".pantheon")).expect("listed");
    assert!(listed.flatten().all(|entry| entry.file_name() != "at"), "no program walks into other versions unasked");
    for name in ["feature/deep", "feature"] {
        assert!(at.join(name).is_dir() && !at.join(name).join("index.php").exists(), "{name}");
    }
    for name in ["none", "HEAD~1", "master:index.php", ".git", "feature/none", "objects", &"0".repeat(40)] {
        assert!(!at.join(name).exists(), "{name}");
    }
}

#[test]
fn a_commit_that_is_not_on_this_machine_is_fetched() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "git=no") else { return };
    let other = Elsewhere::of(&m);
    let at = m.path(".pantheon/at");
    assert!(at.join("master").is_dir(), "branches and tags were asked for");
    fs::write(other.path("old.php"), "<?php // old\n").expect("written");
    let commit = other.push("refs/heads/feature");
    fs::remove_file(other.path("old.php")).expect("removed");
    other.push("refs/heads/feature");
    assert_eq!(text(&at.join(&commit).join("old.php")), "<?php // old\n");
}

#[test]
fn a_version_has_the_modes_links_and_submodules_of_its_commit() {
    let Some(m) = Mounted::sim() else { return };
    let other = Elsewhere::of(&m);
    fs::write(other.path("run.sh"), "#!/bin/sh\necho ran\n").expect("written");
    fs::set_permissions(other.path("run.sh"), fs::Permissions::from_mode(0o755)).expect("set");
    symlink("../../outside/of it", other.path("leads-out")).expect("made");
    symlink("run.sh", other.path("leads-in")).expect("made");
    let large: Vec<u8> = (0..9_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    fs::write(other.path("large.bin"), &large).expect("written");
    fs::write(other.path("empty"), "").expect("written");
    let module = other.git(&["rev-parse", "HEAD"]);
    other.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{module},module")]);
    other.git(&["add", "run.sh", "leads-out", "leads-in", "large.bin", "empty"]);
    other.git(&["commit", "--quiet", "-m", "All kinds"]);
    other.git(&["push", "--quiet", "origin", "HEAD:refs/heads/kinds"]);
    let at = m.path(".pantheon/at/kinds");
    let mode = |name: &str| at.join(name).symlink_metadata().expect("there").permissions().mode();
    assert_eq!([mode("run.sh"), mode("index.php")], [0o100_555, 0o100_444]);
    assert_eq!([mode("module"), mode("leads-in") & 0o170_000], [0o040_555, 0o120_000]);
    assert_eq!(fs::read_dir(at.join("module")).expect("listed").count(), 0);
    assert_eq!(fs::read_link(at.join("leads-out")).expect("a link").as_os_str(), "../../outside/of it");
    assert_eq!(text(&at.join("leads-in")), "#!/bin/sh\necho ran\n");
    assert_eq!(text(&at.join("empty")), "");
    let ran = Command::new(at.join("run.sh")).output().expect("runs");
    assert_eq!(ran.stdout, b"ran\n");
    assert!(fs::read(at.join("large.bin")).expect("read") == large, "a file that is not held in memory");
    let committed = other.git(&["show", "-s", "--format=%ct", "HEAD"]);
    let modified = at.join("run.sh").metadata().expect("there").modified().expect("a time");
    assert_eq!(modified.duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs().to_string(), committed);
}

#[test]
fn nothing_in_a_version_can_be_changed() {
    let Some(m) = Mounted::sim() else { return };
    let at = m.path(".pantheon/at/dev");
    let file = at.join("index.php");
    let changes = [
        fs::write(&file, "x"),
        fs::write(at.join("new.php"), "x"),
        fs::create_dir(at.join("new")),
        fs::create_dir(m.path(".pantheon/at/new")),
        fs::remove_file(&file),
        fs::remove_dir(at.join("wp-content")),
        symlink("x", at.join("link")),
        fs::rename(&file, at.join("other.php")),
        fs::rename(m.path("index.php"), at.join("other.php")),
        fs::rename(&file, m.path("other.php")),
        fs::set_permissions(&file, fs::Permissions::from_mode(0o777)),
        fs::File::options().append(true).open(&file).map(drop),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_eq!(change.expect_err("refused").raw_os_error(), Some(libc::EROFS), "change {index}");
    }
    assert_eq!(text(&file), text(&m.path("index.php")));
    let copied = Command::new("cp").arg("-r").arg(at.join("wp-content")).arg(m.path("copied")).status();
    assert!(copied.expect("cp runs").success(), "it can be copied to the code");
}

#[test]
fn programs_compare_the_code_with_a_version_and_versions_with_each_other() {
    let Some(m) = Mounted::sim() else { return };
    let diff = |one: &Path, two: &Path| {
        let ran = Command::new("diff").arg("-r").arg("--no-dereference").args([one, two]).output().expect("diff runs");
        String::from_utf8_lossy(&ran.stdout).into_owned()
    };
    let at = m.path(".pantheon/at");
    assert_eq!(diff(&at.join("live"), &at.join("test")), "", "the same commit under two names");
    let themes = "wp-content/themes";
    assert_eq!(diff(&m.path(themes), &at.join("live").join(themes)), "");
    fs::write(m.path("wp-content/themes/new.php"), "<?php\n").expect("written");
    let said = diff(&m.path(themes), &at.join("live").join(themes));
    assert!(said.starts_with("Only in ") && said.contains("new.php"), "{said}");
}

#[test]
fn a_deploy_of_a_teammate_is_shown_after_a_while() {
    let Some(m) = Mounted::sim() else { return };
    let at = m.path(".pantheon/at");
    let before = text(&at.join("live/index.php"));
    let other = Elsewhere::of(&m);
    fs::write(other.path("index.php"), "<?php // deployed\n").expect("written");
    other.push("refs/tags/pantheon_live_2");
    // Branches and tags are not asked for again within a minute.
    assert_eq!(text(&at.join("live/index.php")), before);
    m.umount().ok();
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    assert_eq!(text(&at.join("live/index.php")), "<?php // deployed\n");
}

#[test]
fn versions_are_there_without_the_platform() {
    let Some(m) = Mounted::sim() else { return };
    let at = m.path(".pantheon/at");
    let before = text(&at.join("live/index.php"));
    m.umount().ok();
    fs::rename(m.sim_ref().repository(), m.sim_ref().root().join("away")).expect("moved");
    m.mount(&format!("{}.dev", m.sim_ref().site()), &m.sim_ref().options()).ok();
    assert_eq!(text(&at.join("live/index.php")), before);
    assert!(!at.join("0".repeat(40)).exists());
}

#[test]
fn diff_compares_with_any_commit_and_show_prints_from_it() {
    let Some(m) = Mounted::sim() else { return };
    let other = Elsewhere::of(&m);
    fs::create_dir(other.path("lib")).expect("made");
    fs::write(other.path("lib/gone.php"), "<?php // only there\n").expect("written");
    symlink("lib/gone.php", other.path("link")).expect("made");
    other.push("refs/heads/feature/x");
    let place = m.dir().to_string_lossy().into_owned();
    let run = |args: &[&str]| m.environ().run(args);
    assert_eq!(run(&["show", "feature/x:lib/gone.php", "--at", &place]).ok().out(), "<?php // only there\n");
    assert_eq!(run(&["show", "feature/x:lib", "--at", &place]).ok().out(), "gone.php\n");
    assert_eq!(run(&["show", "feature/x:link", "--at", &place]).ok().out(), "lib/gone.php\n");
    let json = run(&["show", "live:", "--at", &place, "--json"]).ok().out();
    assert!(json.contains("\"wp-content/\""), "{json}");
    let diff = |paths: &[&str], at: &str| {
        let paths: Vec<String> = paths.iter().map(|path| m.path(path).to_string_lossy().into_owned()).collect();
        let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
        run(&[&["diff", "--at", at], &paths[..]].concat())
    };
    assert_eq!(diff(&["."], "live").ok().out(), "");
    fs::write(m.path("index.php"), "<?php // changed\n").expect("written");
    fs::write(m.path("new.php"), "<?php // new\n").expect("written");
    let all = diff(&["."], "feature/x").ok().out();
    for line in ["+<?php // changed", "+<?php // new", "-<?php // only there", "deleted file mode 120000"] {
        assert!(all.lines().any(|found| found == line), "{line} is not in {all}");
    }
    let one = diff(&["new.php"], "live").ok().out();
    assert!(one.contains("+<?php // new") && !one.contains("index.php"), "{one}");
    let pending = text(&m.path(".pantheon/diff"));
    assert!(pending.contains("+<?php // new") && !pending.contains("gone.php"), "{pending}");
    let unknown = diff(&["."], "no/such");
    assert!(unknown.code() != 0 && unknown.err().contains("no/such: no commit, tag or branch"), "{}", unknown.err());
    for bad in ["live", ":index.php", "live:../x", "live:/etc/passwd"] {
        assert_eq!(run(&["show", bad, "--at", &place]).code(), 2, "{bad}");
    }
    assert_ne!(run(&["show", "none:index.php", "--at", &place]).code(), 0);
}

#[test]
fn without_a_repository_there_are_no_versions() {
    let Some(m) = Mounted::openssh("") else { return };
    assert!(!m.path(".pantheon/at").exists());
    let place = m.dir().to_string_lossy().into_owned();
    let shown = m.environ().run(&["show", "live:x", "--at", &place]);
    assert!(shown.err().contains("has no repository"), "{}", shown.err());
    assert!(!m.path(".pantheon/diff-at").exists());
}
