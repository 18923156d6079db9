//! `pantheonfs demo`: starts the simulator, mounts its site, and prints what to try.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::args_sim;
use super::exit::{self, CliResult, Exit, Failure};
use super::{logging, mount, mountpoint, umount};
use crate::sim::{Sim, SimConfig};

/// How often an unmount is tried while programs still use the mount.
const UNMOUNT_TRIES: u32 = 10;

pub(super) fn run(args: &args_sim::Demo) -> CliResult<()> {
    logging::start(0);
    let stop = mount::stop_signals()?;
    let place = args.mountpoint.clone().unwrap_or_else(|| PathBuf::from("pantheon-demo"));
    let made = make_place(&place)?;
    let config = SimConfig { rtt: Duration::from_millis(args.rtt), ..SimConfig::default() };
    println!("Starting a simulated Pantheon site ...");
    let sim = Sim::start(&config).map_err(|e| Failure::caused(Exit::Failed, "the simulator does not start", e))?;
    let mounted = mount_site(&sim, &place);
    if mounted.is_ok() {
        explain(&sim, &place);
        while !stop.load(Ordering::Relaxed) && mountpoint::around(&place).is_ok() {
            std::thread::sleep(Duration::from_millis(200));
        }
        println!("\nUnmounting ...");
        end(&place)?;
    }
    if made {
        // Fails if it is not empty.
        let _ = std::fs::remove_dir(&place);
    }
    mounted
}

fn make_place(place: &Path) -> CliResult<bool> {
    match std::fs::create_dir(place) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Failure::caused(Exit::MountPoint, format!("{}: cannot be created", place.display()), error)),
    }
}

/// Runs the program as a user would; the variables direct it to the simulator.
fn mount_site(sim: &Sim, place: &Path) -> CliResult<()> {
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, "the mount cannot be started", e);
    let status = Command::new(std::env::current_exe().map_err(failed)?)
        .args(["mount", &format!("{}.dev", sim.site()), "-o", &sim.options(), "--"])
        .arg(place)
        .envs(sim.env())
        .env("XDG_STATE_HOME", sim.root().join("state"))
        .env("XDG_CACHE_HOME", sim.root().join("cache"))
        .status()
        .map_err(failed)?;
    if status.success() { Ok(()) } else { Err(Failure::silent(exit::from_code(status.code()))) }
}

fn explain(sim: &Sim, place: &Path) {
    let place = std::fs::canonicalize(place).unwrap_or_else(|_| place.to_owned());
    let place = place.display();
    let control = sim.control();
    println!(
        "\nTry this in another shell:\n\n  \
         cd {place}\n  \
         ls -la; grep -r sunrise . ; cat .pantheon/README\n  \
         cat .pantheon/status\n\n\
         Edit a file with any editor; the server has it within a second (pantheonfs sync waits for that):\n\n  \
         echo '// hello' >> wp-content/themes/sunrise/functions.php\n  \
         cat {server}/code/wp-content/themes/sunrise/functions.php\n  \
         cat .pantheon/pending\n\n\
         A teammate switches the site to Git mode (which deletes uncommitted changes), and a few seconds later:\n\n  \
         curl -s {control}/mode -H 'Content-Type: application/json' -d '{{\"environment\": \"dev\", \"mode\": \"git\"}}'\n  \
         echo x > new.php      # Read-only file system\n  \
         cat .pantheon/status  # tells the reason\n  \
         echo x > wp-content/uploads/picture.txt   # uploads stay writable\n  \
         echo sftp > .pantheon/mode                # and back\n\n\
         More events and quirks: curl {control}\n\
         Ctrl-C in this shell unmounts the site and ends the simulator.",
        server = sim.home("dev").display(),
    );
}

fn end(place: &Path) -> CliResult<()> {
    for _ in 0..UNMOUNT_TRIES {
        match umount::run(place, false, false) {
            Err(failure) if failure.exit == Exit::Busy => std::thread::sleep(Duration::from_millis(300)),
            // Another program has unmounted it already.
            Err(failure) if failure.exit == Exit::MountPoint => return Ok(()),
            other => return other,
        }
    }
    eprintln!("pantheonfs: {} is in use; unmounting it anyway", place.display());
    umount::run(place, true, false)
}
