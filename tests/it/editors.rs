//! Real editors in a real terminal, with the save sequences that they have by default, on servers that rename and on
//! servers that refuse to.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;
use crate::common::program::Surroundings;
use crate::common::{eventually, has_fuse, has_program};

/// A terminal of its own, gone when dropped.
struct Terminal {
    socket: String,
    around: Surroundings,
}

impl Terminal {
    fn open(command: &[&str], file: &Path) -> Self {
        let around = Surroundings::new();
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
        let config = SimConfig { habits: vec![("rename".into(), rename.into())], ..SimConfig::default() };
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
        let config = SimConfig { habits: vec![("rename".into(), rename.into())], ..SimConfig::default() };
        let Some(m) = Mounted::sim_with(&config, "dev", "") else { return };
        let plugin = m.surroundings().path("plugin");
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
