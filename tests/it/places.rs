//! Several mounts of a user: the default mount point, the list, and unmounting by name or all at a time.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::program::{Environ, Ran, is_mounted};
use crate::common::{eventually, has_fuse, watch};

const USAGE: i32 = 2;
const MOUNT_POINT: i32 = 11;

/// A simulated site and a user with an empty home directory. What the user has mounted is unmounted in the end.
struct Home {
    sim: Sim,
    user: Environ,
}

impl Home {
    fn new() -> Option<Self> {
        if !has_fuse() {
            return None;
        }
        let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
        let user = Environ::new().with(sim.env());
        Some(Self { sim, user })
    }

    fn mount(&self, words: &[&str]) -> Ran {
        let options = self.sim.options();
        self.user.run(&[&["mount", "-o", &options], words].concat())
    }

    /// The default mount point of an environment.
    fn place(&self, environment: &str) -> PathBuf {
        self.user.home().join("pantheon").join(self.site(environment))
    }

    fn site(&self, environment: &str) -> String {
        format!("{}.{environment}", self.sim.site())
    }

    fn list(&self) -> Vec<serde_json::Value> {
        let out = self.user.run(&["list", "--json"]).ok().out();
        serde_json::from_str(&out).expect("a JSON array")
    }

    fn kill_driver(&self, source: &str) {
        let list = self.list();
        let mount = list.iter().find(|mount| mount["source"] == source).expect("listed");
        let pid = mount["pid"].as_i64().expect("a process").to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().expect("kill runs").success());
        eventually("the mount is dead", || self.list().iter().any(|mount| mount["state"] == "dead"));
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.user.run(&["umount", "--all", "--force"]);
    }
}

#[test]
fn a_site_is_mounted_by_its_name_alone_and_leaves_no_directory() {
    let Some(home) = Home::new() else { return };
    let _watch = watch();
    let ran = home.mount(&[home.sim.site()]).ok();
    assert!(ran.out().contains("no environment was named"), "{}", ran.out());
    assert!(ran.out().contains(&home.place("dev").display().to_string()), "{}", ran.out());
    assert!(is_mounted(&home.place("dev")));
    assert!(home.place("dev").join("index.php").exists());
    home.user.run(&["umount", home.sim.site()]).ok();
    assert!(!home.user.home().join("pantheon").exists(), "both directories were made for the mount");
    // What the user made is left, and what the user put there as well.
    fs::create_dir(home.user.home().join("pantheon")).expect("made");
    home.mount(&[&home.site("live")]).ok();
    home.user.run(&["umount", &home.site("live")]).ok();
    assert!(home.user.home().join("pantheon").exists() && !home.place("live").exists());
    fs::create_dir(home.place("live")).expect("made");
    fs::write(home.place("live").join("mine"), "x").expect("written");
    home.mount(&[&home.site("live")]).fails(MOUNT_POINT, &["not empty"]);
    assert!(home.place("live").join("mine").exists());
}

#[test]
fn a_mount_that_fails_leaves_no_directory() {
    let Some(home) = Home::new() else { return };
    home.mount(&["sim-nosuch.dev"]).fails(3, &["no such site"]);
    home.mount(&["./none"]).fails(USAGE, &["the site is not given"]);
    assert!(!home.user.home().join("pantheon").exists());
}

#[test]
fn all_mounts_are_listed_and_unmounted() {
    let Some(home) = Home::new() else { return };
    let _watch = watch();
    let none = home.user.run(&["list"]).ok();
    assert!(none.out().is_empty() && none.err().contains("nothing is mounted"), "{}", none.err());
    home.user.run(&["umount", "--all"]).ok();
    home.mount(&[&home.site("dev")]).ok();
    let chosen = home.user.path("chosen");
    fs::create_dir(&chosen).expect("made");
    home.mount(&[&home.site("live"), &chosen.to_string_lossy()]).ok();
    fs::write(home.place("dev").join("index.php"), "<?php // changed\n").expect("saved");
    let text = home.user.run(&["list"]).ok().out();
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.contains("sftp mode, code writable, link up"), "{text}");
    assert!(text.contains("code read-only"), "{text}");
    let list = home.list();
    let of = |source: &str| list.iter().find(|mount| mount["source"] == source).expect("listed");
    assert_eq!(of(&home.site("live"))["mountpoint"], chosen.to_string_lossy().as_ref());
    assert_eq!(of(&home.site("live"))["code_writable"], false);
    assert_eq!((&of(&home.site("dev"))["state"], &of(&home.site("dev"))["link_up"]), (&"ok".into(), &true.into()));
    let ran = home.user.run(&["umount", "--all"]).ok();
    assert_eq!(ran.out().matches("unmounted").count(), 2, "{}", ran.out());
    let saved = home.sim.home("dev").join("code/index.php");
    assert_eq!(fs::read_to_string(saved).expect("there"), "<?php // changed\n", "it was sent before");
    assert!(home.list().is_empty());
    assert!(chosen.exists(), "it was there before the mount");
}

#[test]
fn a_mount_in_use_does_not_keep_the_others() {
    let Some(home) = Home::new() else { return };
    let _watch = watch();
    home.mount(&[&home.site("dev")]).ok();
    home.mount(&[&home.site("live")]).ok();
    let user = fs::File::open(home.place("dev").join("index.php")).expect("opened");
    let ran = home.user.run(&["umount", "--all"]);
    assert_eq!(ran.code(), 13, "{}{}", ran.out(), ran.err());
    assert!(is_mounted(&home.place("dev")) && !is_mounted(&home.place("live")));
    assert!(ran.out().contains("in use"), "{}", ran.out());
    drop(user);
}

#[test]
fn a_mount_whose_driver_was_killed_is_listed_and_cleared() {
    let Some(home) = Home::new() else { return };
    let _watch = watch();
    home.mount(&[&home.site("dev")]).ok();
    home.kill_driver(&home.site("dev"));
    let text = home.user.run(&["list"]).ok().out();
    assert!(text.contains("its driver has ended"), "{text}");
    home.user.run(&["umount", &home.site("dev")]).ok();
    assert!(!home.user.home().join("pantheon").exists(), "removed although the driver could not do it");
    // Mounting again at the same place, without unmounting before, remembers which directories are ours.
    home.mount(&[&home.site("dev")]).ok();
    home.kill_driver(&home.site("dev"));
    home.mount(&[&home.site("dev")]).ok();
    home.user.run(&["umount", "--all"]).ok();
    assert!(!home.user.home().join("pantheon").exists());
}
