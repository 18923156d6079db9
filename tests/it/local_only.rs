//! What never leaves this machine: trash and metadata of desktops, locks of office programs. And what the server has under
//! such a name, which is as any other file.

use std::fs;
use std::os::unix::fs::symlink;

use pantheonfs::sim::SimConfig;

use crate::common::mounted::Mounted;

#[test]
fn trash_and_metadata_of_desktops_are_not_sent() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    let secret = fs::read(m.path("wp-load.php")).expect("read");
    for dir in [".Trash-1000/files", ".Trash-1000/info", ".Spotlight-V100/a/b", ".fseventsd", ".TemporaryItems"] {
        fs::create_dir_all(m.path(dir)).unwrap_or_else(|error| panic!("{dir}: {error}"));
    }
    fs::write(m.path(".Trash-1000/info/wp-load.php.trashinfo"), "[Trash Info]\n").expect("written");
    fs::rename(m.path("wp-load.php"), m.path(".Trash-1000/files/wp-load.php")).expect("put into the trash");
    for name in [".~lock.a.odt#", "~$a.docx", ".fuse_hidden0001", ".Spotlight-V100/a/b/store"] {
        fs::write(m.path(name), "x").unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    symlink("info", m.path(".Trash-1000/link")).expect("a symlink");
    assert!(!m.on_server("wp-load.php").exists(), "it is removed there");
    // Read and closed, it is still here.
    for _ in 0..2 {
        assert_eq!(fs::read(m.path(".Trash-1000/files/wp-load.php")).expect("in the trash"), secret);
    }
    // A directory cannot be moved there at once: file managers and mv(1) copy.
    let moved = fs::rename(m.path("wp-content/plugins"), m.path(".Trash-1000/files/plugins"));
    assert_eq!(moved.map_err(|error| error.kind()), Err(std::io::ErrorKind::CrossesDevices));
    fs::create_dir(m.path(".Trash-1000/gone")).expect("made");
    fs::remove_dir(m.path(".Trash-1000/gone")).expect("removed");
    crate::crash::kill(&m);
    crate::crash::mount_again(&m);
    assert_eq!(fs::read(m.path(".Trash-1000/files/wp-load.php")).expect("after the driver's death"), secret);
    let names = fs::read_dir(m.on_server("")).expect("listed").flatten().map(|entry| entry.file_name());
    let strays: Vec<_> = names
        .filter(|name| {
            let name = name.to_string_lossy();
            [".Trash", ".Spot", ".fse", ".Temp", ".~", "~$", ".fuse"].iter().any(|start| name.starts_with(start))
        })
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
    fs::rename(m.path(".Trash-1000/files/wp-load.php"), m.path("wp-load.php")).expect("restored");
    assert_eq!(fs::read(m.on_server("wp-load.php")).expect("there again"), secret);
}

#[test]
fn a_backup_that_was_read_can_be_renamed_back() {
    let Some(m) = Mounted::sim_with(&SimConfig::default(), "dev", "timeout=5") else { return };
    let content = fs::read(m.path("wp-load.php")).expect("read");
    fs::rename(m.path("wp-load.php"), m.path("wp-load.php~")).expect("a backup");
    assert!(!m.on_server("wp-load.php").exists());
    assert_eq!(fs::read(m.path("wp-load.php~")).expect("it is here"), content);
    fs::rename(m.path("wp-load.php~"), m.path("wp-load.php")).expect("renamed back");
    assert_eq!(fs::read(m.on_server("wp-load.php")).expect("the server has it"), content);
}

#[test]
fn what_the_server_has_under_a_local_only_name_is_the_servers() {
    let Some(m) = Mounted::openssh("fresh=1") else { return };
    let there = ["desktop.ini", "page.html~", ".Trash-7/old"];
    fs::create_dir(m.there(".Trash-7")).expect("made");
    for name in there {
        fs::write(m.there(name), "old").expect("written");
    }
    fs::write(m.path("own.html~"), "mine").expect("written");
    for name in there {
        fs::write(m.path(name), "edited").expect("written");
        assert_eq!(fs::read_to_string(m.on_server(name)).expect("there"), "edited", "{name}");
    }
    fs::write(m.path("new"), "replaced").expect("written");
    fs::rename(m.path("new"), m.path("desktop.ini")).expect("saved by rename");
    assert_eq!(fs::read_to_string(m.on_server("desktop.ini")).expect("there"), "replaced");
    fs::remove_file(m.path("page.html~")).expect("removed");
    assert!(!m.on_server("page.html~").exists());
    // Somebody puts a file of the name on the server: ours stays, and theirs, too.
    fs::write(m.there("own.html~"), "theirs").expect("written");
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert_eq!(fs::read_to_string(m.path("own.html~")).expect("here"), "mine");
    fs::write(m.path("own.html~"), "mine again").expect("written");
    assert_eq!(fs::read_to_string(m.on_server("own.html~")).expect("there"), "theirs");
}
