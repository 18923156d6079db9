//! Real editors in a real terminal, with the save sequences that they have by default, on servers that rename and on
//! servers that refuse to.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;
use crate::common::program::Environ;
use crate::common::{eventually, has_fuse, has_program};

/// A terminal of its own, gone when dropped.
struct Terminal {
    socket: String,
    around: Environ,
}

impl Terminal {
    fn open(command: &[&str], file: &Path) -> Self {
        let around = Environ::new();
        let socket = around.path("tmux").to_string_lossy().into_owned();
        let terminal = Self { socket, around };
        let words: Vec<String> = command.iter().map(|w| (*w).to_owned()).chain([file.display().to_string()]).collect();
        let line = words.iter().map(|w| format!("'{w}'")).collect::<Vec<_>>().join(" ");
        terminal.tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24", &line]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let mut command = Command::new("tmux");
        self.around.dress(&mut command);
        command.env("TERM", "screen").env("LC_ALL", "C.UTF-8").arg("-S").arg(&self.socket).args(args);
        let output = command.output().expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn shows(&self, text: &str) {
        eventually(&format!("the terminal shows '{text}'"), || self.tmux(&["capture-pane", "-p"]).contains(text));
    }

    fn type_keys(&self, keys: &[&str]) {
        for key in keys {
            self.tmux(&["send-keys", key]);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn ended(&self) {
        eventually("the editor ends", || {
            let mut command = Command::new("tmux");
            self.around.dress(&mut command);
            let alive = command.arg("-S").arg(&self.socket).arg("has-session").stderr(Stdio::null()).status();
            !alive.expect("tmux runs").success()
        });
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

/// The site on which people edit: as it is, and on a server that refuses to rename.
fn on_each(editor: &str, body: impl Fn(&Mounted, &str)) {
    if !has_fuse() || !has_program("tmux") || !has_program(editor) {
        return;
    }
    for rename in ["allow", "refuse"] {
        let config = SimConfig { quirks: vec![("rename".into(), rename.into())], ..SimConfig::default() };
        let Some(m) = Mounted::sim_with(&config, "dev", "") else { return };
        fs::write(m.path("edit.php"), "<?php\n// first line\n").expect("written");
        fs::set_permissions(m.path("edit.php"), std::os::unix::fs::PermissionsExt::from_mode(0o664)).expect("chmod");
        body(&m, rename);
        let meta = fs::metadata(m.on_server("edit.php")).expect("there");
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o664, "permissions are kept");
        assert_eq!(m.status()["conflicts"], serde_json::json!([]));
    }
}

#[track_caller]
fn assert_saved(m: &Mounted, rename: &str, text: &str) {
    eventually("the edit is on the server", || {
        fs::read_to_string(m.on_server("edit.php")).is_ok_and(|content| content.contains(text))
    });
    assert_eq!(
        fs::read(m.path("edit.php")).expect("readable"),
        fs::read(m.on_server("edit.php")).expect("there"),
        "{rename}"
    );
}

#[test]
fn vim_saves() {
    on_each("vim", |m, rename| {
        let terminal = Terminal::open(&["vim", "-u", "NONE", "-N"], &m.path("edit.php"));
        terminal.shows("first line");
        terminal.type_keys(&["G", "o", "// by vim", "Escape", ":w", "Enter"]);
        terminal.shows("written");
        assert_saved(m, rename, "// by vim");
        // A second save of the same session: the editor must not think that somebody else changed the file.
        terminal.type_keys(&["o", "// again", "Escape", ":wq", "Enter"]);
        terminal.ended();
        assert_saved(m, rename, "// again");
    });
}

#[test]
fn vim_saves_with_a_backup_by_rename() {
    on_each("vim", |m, rename| {
        let settings = "set backup writebackup backupcopy=no backupskip=";
        let terminal = Terminal::open(&["vim", "-u", "NONE", "-N", "--cmd", settings], &m.path("edit.php"));
        terminal.shows("first line");
        terminal.type_keys(&["G", "o", "// by rename", "Escape", ":wq", "Enter"]);
        terminal.ended();
        assert_saved(m, rename, "// by rename");
        assert!(fs::read_to_string(m.path("edit.php~")).expect("the backup").ends_with("// first line\n"));
        assert!(!m.on_server("edit.php~").exists(), "backups stay at home");
    });
}

#[test]
fn neovim_saves() {
    on_each("nvim", |m, rename| {
        let terminal = Terminal::open(&["nvim", "-u", "NONE"], &m.path("edit.php"));
        terminal.shows("first line");
        terminal.type_keys(&["G", "o", "// by neovim", "Escape", ":w", "Enter"]);
        terminal.shows("written");
        assert_saved(m, rename, "// by neovim");
        terminal.type_keys(&["o", "// again", "Escape", ":wq", "Enter"]);
        terminal.ended();
        assert_saved(m, rename, "// again");
    });
}

#[test]
fn nano_saves() {
    on_each("nano", |m, rename| {
        let terminal = Terminal::open(&["nano", "--ignorercfiles"], &m.path("edit.php"));
        terminal.shows("first line");
        terminal.type_keys(&["M-/", "// by nano", "Enter", "C-o", "Enter"]);
        terminal.shows("Wrote");
        assert_saved(m, rename, "// by nano");
        terminal.type_keys(&["C-x"]);
        terminal.ended();
    });
}

#[test]
fn emacs_saves() {
    on_each("emacs", |m, rename| {
        let terminal = Terminal::open(&["emacs", "-nw", "-Q"], &m.path("edit.php"));
        terminal.shows("first line");
        terminal.type_keys(&["M->", "// by emacs", "Enter", "C-x", "C-s"]);
        terminal.shows("Wrote");
        assert_saved(m, rename, "// by emacs");
        terminal.type_keys(&["// twice", "Enter", "C-x", "C-s"]);
        assert_saved(m, rename, "// twice");
        terminal.type_keys(&["C-x", "C-c"]);
        terminal.ended();
    });
}

#[test]
fn a_plugin_sized_tree_is_copied_in_renamed_and_removed() {
    if !has_fuse() {
        return;
    }
    for rename in ["allow", "refuse", "refuse-directories"] {
        let config = SimConfig { quirks: vec![("rename".into(), rename.into())], ..SimConfig::default() };
        let Some(m) = Mounted::sim_with(&config, "dev", "") else { return };
        let plugin = m.environ().path("plugin");
        for n in 0..120 {
            let file = plugin.join(format!("inc/{}/part{n}.php", n % 7));
            fs::create_dir_all(file.parent().expect("a parent")).expect("made");
            fs::write(file, format!("<?php // {n}\n").repeat(n)).expect("written");
        }
        let same = |here: &Path, there: &Path| {
            let done = Command::new("diff").arg("-r").arg(here).arg(there).output().expect("diff runs");
            assert!(done.status.success(), "{rename}: {}", String::from_utf8_lossy(&done.stdout));
        };
        let target = m.path("wp-content/plugins/mine");
        let copied = Command::new("cp").arg("-r").arg(&plugin).arg(&target).status().expect("cp runs");
        assert!(copied.success());
        same(&plugin, &m.on_server("wp-content/plugins/mine"));
        same(&plugin, &target);
        let moved = Command::new("mv").arg(&target).arg(m.path("wp-content/plugins/yours")).status().expect("mv runs");
        assert!(moved.success(), "{rename}");
        same(&plugin, &m.on_server("wp-content/plugins/yours"));
        assert!(!m.on_server("wp-content/plugins/mine").exists());
        let removed = Command::new("rm").arg("-r").arg(m.path("wp-content/plugins/yours")).status().expect("rm runs");
        assert!(removed.success());
        assert!(!m.on_server("wp-content/plugins/yours").exists());
    }
}

/// VS Code: the file is truncated and written in place; then it looks whether size and mtime are still those of its own
/// write, and says "the content of the file is newer" if not.
fn like_vs_code(path: &Path, text: &str) -> fs::Metadata {
    let mut file = fs::OpenOptions::new().write(true).truncate(true).open(path).expect("opened");
    file.write_all(text.as_bytes()).expect("written");
    file.sync_data().expect("synced");
    drop(file);
    fs::metadata(path).expect("there")
}

/// PhpStorm ("safe write"): a copy beside the file as `NAME___jb_tmp___`, then the file steps aside as `NAME___jb_old___`,
/// the copy takes its place, and the old one is removed.
fn like_phpstorm(path: &Path, text: &str) -> fs::Metadata {
    let beside = |tail: &str| {
        let mut name = path.file_name().expect("a name").to_os_string();
        name.push(tail);
        path.with_file_name(name)
    };
    let (new, old) = (beside("___jb_tmp___"), beside("___jb_old___"));
    let mut file = File::create(&new).expect("created");
    file.write_all(text.as_bytes()).expect("written");
    drop(file);
    fs::set_permissions(&new, fs::metadata(path).expect("there").permissions()).expect("chmod");
    fs::rename(path, &old).expect("aside");
    fs::rename(&new, path).expect("into place");
    fs::remove_file(&old).expect("removed");
    fs::metadata(path).expect("there")
}

/// Sublime Text with its default `"atomic_save": false`: truncated and written in place, without a sync.
fn like_sublime_text(path: &Path, text: &str) -> fs::Metadata {
    fs::write(path, text).expect("written");
    fs::metadata(path).expect("there")
}

/// Many programs, Sublime Text with `"atomic_save": true` among them: a temporary file, fsync, rename over the old one.
fn atomically(path: &Path, text: &str) -> fs::Metadata {
    let new = path.with_extension("tmp-1234");
    let mut file = File::create(&new).expect("created");
    file.write_all(text.as_bytes()).expect("written");
    file.sync_all().expect("synced");
    drop(file);
    fs::set_permissions(&new, fs::metadata(path).expect("there").permissions()).expect("chmod");
    fs::rename(&new, path).expect("into place");
    fs::metadata(path).expect("there")
}

type Save = fn(&Path, &str) -> fs::Metadata;
const SAVES: [(&str, Save); 4] = [
    ("VS Code", like_vs_code),
    ("PhpStorm", like_phpstorm),
    ("Sublime Text", like_sublime_text),
    ("atomically", atomically),
];

#[test]
fn ides_save_and_see_no_change_of_others() {
    if !has_fuse() {
        return;
    }
    for rename in ["allow", "refuse"] {
        let config = SimConfig { quirks: vec![("rename".into(), rename.into())], ..SimConfig::default() };
        let Some(m) = Mounted::sim_with(&config, "dev", "fresh=1") else { return };
        for (editor, save) in SAVES {
            for round in 0..3 {
                let text = format!("<?php // {editor} {round}\n").repeat(round + 1);
                let at_save = save(&m.path("index.php"), &text);
                // While it is sent, afterwards, and when the server has been asked again.
                for pause in [0, 300, 1200] {
                    std::thread::sleep(Duration::from_millis(pause));
                    let now = fs::metadata(m.path("index.php")).expect("there");
                    assert_eq!(
                        (now.len(), now.modified().expect("known")),
                        (at_save.len(), at_save.modified().expect("known")),
                        "{editor}, rename {rename}, round {round}, {pause} ms after"
                    );
                }
                assert_eq!(fs::read_to_string(m.on_server("index.php")).expect("there"), text, "{editor}, {rename}");
            }
        }
        let names: Vec<String> = fs::read_dir(&m.server)
            .expect("listed")
            .flatten()
            .map(|e| e.file_name().to_string_lossy().into_owned())
            .collect();
        assert!(!names.iter().any(|name| name.contains("jb_") || name.contains("tmp-")), "{names:?}");
        assert_eq!(m.status()["conflicts"], serde_json::json!([]));
    }
}

/// The link is cut again and again while programs save: whoever looks at the server sees a whole save, and in the end it is
/// the last one.
#[test]
fn saves_during_cuts_leave_whole_files() {
    if !has_fuse() {
        return;
    }
    for rename in ["allow", "refuse"] {
        let config = SimConfig { quirks: vec![("rename".into(), rename.into())], ..SimConfig::default() };
        let Some(m) = Mounted::sim_with(&config, "dev", "timeout=5") else { return };
        let save_of = |n: usize| format!("<?php // save {n}\n").repeat(200 + n);
        fs::write(m.path("index.php"), save_of(0)).expect("saved");
        m.barrier().expect("sent");
        let mut together = true;
        for n in 1..40 {
            let (_, save) = SAVES[n % SAVES.len()];
            let began = Instant::now();
            save(&m.path("index.php"), &save_of(n));
            // Steps that are far apart are sent one by one.
            together &= began.elapsed() < Duration::from_millis(100);
            assert_eq!(fs::read_to_string(m.path("index.php")).expect("here"), save_of(n));
            if n % 3 == 0 {
                m.control("cut", "{}");
            }
            std::thread::sleep(Duration::from_millis((n as u64 * 37) % 300));
            // Where the server cannot rename it is written over in place; it is never absent and never empty.
            let there = fs::read_to_string(m.there("index.php"));
            assert!(there.is_ok() || !together, "save {n}: no page");
            if let Ok(there) = there {
                assert!(!there.is_empty() || !together, "save {n}: a blank page");
                let whole = (0..=n).any(|k| there == save_of(k));
                assert!(whole || rename == "refuse", "save {n}: torn");
            }
        }
        assert_eq!(fs::read_to_string(m.on_server("index.php")).expect("there"), save_of(39), "{rename}");
        assert_eq!(m.status()["conflicts"], serde_json::json!([]));
    }
}

/// vim edits while the link is away and comes back.
#[test]
fn vim_saves_during_a_cut() {
    on_each("vim", |m, rename| {
        let terminal = Terminal::open(&["vim", "-u", "NONE", "-N"], &m.path("edit.php"));
        terminal.shows("first line");
        m.control("stall", r#"{"stalled": true}"#);
        terminal.type_keys(&["G", "o", "// in a tunnel", "Escape", ":w", "Enter"]);
        terminal.shows("written");
        m.control("cut", "{}");
        m.control("stall", r#"{"stalled": false}"#);
        assert_saved(m, rename, "// in a tunnel");
        terminal.type_keys(&["o", "// and out again", "Escape", ":wq", "Enter"]);
        terminal.ended();
        assert_saved(m, rename, "// and out again");
    });
}

/// The driver dies while vim has unsaved changes: its swap file is there after the next mount, and on no server.
#[test]
fn swap_and_backup_files_survive_the_driver() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    fs::write(m.path(".index.php.swp"), "unsaved work").expect("written");
    fs::rename(m.path("wp-load.php"), m.path("wp-load.php~")).expect("a backup by rename");
    fs::write(m.path("wp-load.php"), "<?php // new\n").expect("saved");
    fs::create_dir(m.path("wp-content/moved")).expect("made");
    fs::write(m.path("wp-content/moved/.DS_Store"), "x").expect("written");
    fs::rename(m.path("wp-content/moved"), m.path("wp-content/there")).expect("moved");
    fs::write(m.path("gone.php~"), "x").expect("written");
    fs::remove_file(m.path("gone.php~")).expect("removed");
    std::os::unix::fs::symlink("me@here.1:2", m.path(".#index.php")).expect("an editor's lock");
    let backup = fs::read(m.path("wp-load.php~")).expect("read");
    let mut swap = fs::OpenOptions::new().append(true).open(m.path(".index.php.swp")).expect("opened");
    swap.write_all(b", never closed").expect("written");
    crate::crash::kill(&m);
    drop(swap);
    crate::crash::mount_again(&m);
    for _ in 0..2 {
        assert_eq!(fs::read(m.path(".index.php.swp")).expect("there"), b"unsaved work, never closed");
        assert_eq!(fs::read(m.path("wp-load.php~")).expect("there"), backup);
        assert_eq!(fs::read(m.path("wp-content/there/.DS_Store")).expect("there"), b"x");
        assert!(!m.path("gone.php~").exists());
        for name in [".index.php.swp", "wp-load.php~", "wp-content/there/.DS_Store", ".#index.php"] {
            assert!(fs::symlink_metadata(m.on_server(name)).is_err(), "{name} stays at home");
        }
        assert_eq!(fs::read(m.on_server("wp-load.php")).expect("there"), b"<?php // new\n");
        // Unmounting in peace is no different.
        m.umount().ok();
        crate::crash::mount_again(&m);
    }
    let mut swap = fs::OpenOptions::new().append(true).open(m.path(".index.php.swp")).expect("opened");
    swap.write_all(b"!").expect("it goes on being written to");
    drop(swap);
    fs::rename(m.path("wp-load.php~"), m.path("restored.php")).expect("renamed");
    assert_eq!(fs::read(m.on_server("restored.php")).expect("now the server has it"), backup);
    fs::remove_file(m.path(".index.php.swp")).expect("removed");
    assert!(!m.path(".index.php.swp").exists());
}
