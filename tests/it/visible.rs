//! What other writers change is visible within `-o fresh=`: each kind of change, after everything was looked at.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::common::mounted::Mounted;

/// `-o fresh=`, and what the machine of the tests and a round trip may add.
const FRESH: Duration = Duration::from_secs(1);
const MORE: Duration = Duration::from_secs(3);

/// Calls `change` on the server's disk, and waits until the mount shows it. Before, everything is in the caches.
#[track_caller]
fn visible(m: &Mounted, what: &str, change: impl FnOnce(&Path), mut seen: impl FnMut() -> bool) {
    look(m);
    assert!(!seen(), "{what}: not changed yet");
    change(&m.server);
    let began = Instant::now();
    while !seen() {
        assert!(began.elapsed() < FRESH + MORE, "{what}: not visible after {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Looks at every object in the way in which programs do.
fn look(m: &Mounted) {
    for entry in fs::read_dir(m.dir()).expect("listed").flatten() {
        let path = entry.path();
        if let Ok(meta) = path.symlink_metadata() {
            drop(if meta.is_file() { fs::read(&path) } else { Ok(Vec::new()) });
            drop(fs::read_link(&path));
        }
    }
}

fn mount() -> Option<Mounted> {
    let m = Mounted::openssh(&format!("fresh={}", FRESH.as_secs()))?;
    for name in ["content", "size", "mode", "time", "removed", "renamed", "kind"] {
        fs::write(m.there(name), "one").expect("written");
    }
    fs::create_dir(m.there("dir")).expect("made");
    symlink("one", m.there("link")).expect("linked");
    crate::common::eventually("all of it is seen", || m.path("link").symlink_metadata().is_ok());
    Some(m)
}

#[test]
fn names_of_other_writers_are_visible_within_fresh() {
    let Some(m) = mount() else { return };
    let names = || -> Vec<String> {
        let entries = fs::read_dir(m.dir()).expect("listed").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let listed = |name: &str| names().iter().any(|listed| listed == name);
    let write = |name: &'static str| move |at: &Path| fs::write(at.join(name), "new").expect("written");
    visible(&m, "a new file in a listing", write("new-listed"), || listed("new-listed"));
    visible(&m, "a new file whose absence was seen", write("new-stat"), || m.path("new-stat").exists());
    visible(&m, "a new directory", |at| fs::create_dir(at.join("sub")).expect("made"), || m.path("sub").is_dir());
    visible(
        &m,
        "a file in a directory that was empty",
        |at| fs::write(at.join("dir/f"), "new").expect("written"),
        || fs::read(m.path("dir/f")).is_ok_and(|bytes| bytes == b"new"),
    );
    visible(
        &m,
        "a removed file",
        |at| fs::remove_file(at.join("removed")).expect("removed"),
        || !m.path("removed").exists() && !listed("removed"),
    );
    visible(
        &m,
        "a renamed file",
        |at| fs::rename(at.join("renamed"), at.join("moved")).expect("renamed"),
        || m.path("moved").exists() && !m.path("renamed").exists(),
    );
    visible(
        &m,
        "a renamed directory",
        |at| fs::rename(at.join("dir"), at.join("folder")).expect("renamed"),
        || m.path("folder/f").exists() && !m.path("dir").exists(),
    );
    let kind = |at: &Path| {
        fs::remove_file(at.join("kind")).expect("removed");
        fs::create_dir(at.join("kind")).expect("made");
    };
    visible(&m, "a directory instead of a file", kind, || m.path("kind").is_dir());
}

#[test]
fn contents_and_attributes_of_other_writers_are_visible_within_fresh() {
    let Some(m) = mount() else { return };
    let reads = |name: &str, wanted: &str| fs::read(m.path(name)).is_ok_and(|bytes| bytes == wanted.as_bytes());
    let longer = |at: &Path| fs::write(at.join("size"), "longer than before").expect("written");
    visible(&m, "a content of another size", longer, || reads("size", "longer than before"));
    assert_eq!(fs::metadata(m.path("size")).expect("there").len(), 18);
    // In another second: within one, size and time do not tell the contents apart.
    std::thread::sleep(Duration::from_millis(1100));
    let equal = |at: &Path| fs::write(at.join("content"), "two").expect("written");
    visible(&m, "a content of the same size", equal, || reads("content", "two"));
    let replaced = |at: &Path| {
        fs::write(at.join("temporary"), "by rename").expect("written");
        fs::rename(at.join("temporary"), at.join("content")).expect("renamed");
    };
    visible(&m, "a content by rename", replaced, || reads("content", "by rename"));
    let chmod = |at: &Path| {
        fs::set_permissions(at.join("mode"), fs::Permissions::from_mode(0o600)).expect("chmod");
    };
    visible(&m, "permissions", chmod, || {
        fs::metadata(m.path("mode")).expect("there").permissions().mode() & 0o777 == 0o600
    });
    let touch = |at: &Path| {
        let file = fs::File::options().write(true).open(at.join("time")).expect("opened");
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("set");
    };
    visible(&m, "a time", touch, || fs::metadata(m.path("time")).expect("there").mtime() == 1_000_000_000);
    let link = |at: &Path| {
        fs::remove_file(at.join("link")).expect("removed");
        symlink("two", at.join("link")).expect("linked");
    };
    visible(&m, "a link of the same length", link, || {
        fs::read_link(m.path("link")).is_ok_and(|text| text.as_os_str() == "two")
    });
    let file = |at: &Path| {
        fs::remove_file(at.join("link")).expect("removed");
        fs::write(at.join("link"), "a file").expect("written");
    };
    visible(&m, "a file instead of a link", file, || reads("link", "a file"));
}
