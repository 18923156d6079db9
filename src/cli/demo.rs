//! `pantheonfs demo`: the simulator, a mount of it, and what to try.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::args;
use super::exit::{self, CliResult, Exit, Failure};
use super::{logging, mount, mountpoint};
use crate::sim::{Sim, SimConfig};

/// How often programs that still use the mount at the end are given another moment.
const UNMOUNT_TRIES: u32 = 10;

pub(super) fn run(args: &args::Demo) -> CliResult<()> {
    logging::start(0);
    let stop = mount::stop_signals()?;
    let place = args.mountpoint.clone().unwrap_or_else(|| PathBuf::from("pantheon-demo"));
    let made = make_place(&place)?;
    let config = SimConfig { rtt: Duration::from_millis(args.rtt), ..SimConfig::default() };
    println!("Starting a simulated Pantheon site ...");
    let sim =
        Sim::start(&config).map_err(|e| Failure::new(Exit::Failed, format!("the simulator does not start: {e}")))?;
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
        // Only if it is as empty as it was made.
        let _ = std::fs::remove_dir(&place);
    }
    mounted
}

fn make_place(place: &Path) -> CliResult<bool> {
    match std::fs::create_dir(place) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Failure::new(Exit::MountPoint, format!("{}: cannot be made: {error}", place.display()))),
    }
}

/// The same program, as anybody would call it: the simulator's variables lead it here.
fn mount_site(sim: &Sim, place: &Path) -> CliResult<()> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("the mount cannot be started: {e}"));
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
         Edit something, with any editor; the server has it within a second (pantheonfs sync waits for that):\n\n  \
         echo '// hello' >> wp-content/themes/sunrise/functions.php\n  \
         cat {server}/code/wp-content/themes/sunrise/functions.php\n  \
         cat .pantheon/pending\n\n\
         A teammate switches the site to Git mode (which deletes what is uncommitted), and a few seconds later:\n\n  \
         curl -s {control}/mode -H 'Content-Type: application/json' -d '{{\"environment\": \"dev\", \"mode\": \"git\"}}'\n  \
         echo x > new.php      # Read-only file system\n  \
         cat .pantheon/status  # says why\n  \
         echo x > wp-content/uploads/picture.txt   # uploads stay writable\n  \
         echo sftp > .pantheon/mode                # and back\n\n\
         More events and bad habits: curl {control}\n\
         Ctrl-C here ends it all.",
        server = sim.home("dev").display(),
    );
}

fn end(place: &Path) -> CliResult<()> {
    for _ in 0..UNMOUNT_TRIES {
        match mountpoint::umount(place, false, false) {
            Err(failure) if failure.exit == Exit::Busy => std::thread::sleep(Duration::from_millis(300)),
            // Unmounted by somebody else already.
            Err(failure) if failure.exit == Exit::MountPoint => return Ok(()),
            other => return other,
        }
    }
    eprintln!("pantheonfs: {} is in use; taking it away all the same", place.display());
    mountpoint::umount(place, true, false)
}
