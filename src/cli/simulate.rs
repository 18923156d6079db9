//! `pantheonfs sim`: the simulator as a program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::args_sim;
use super::exit::{CliResult, Exit, Failure};
use super::{logging, mount};
use crate::sim::{Sim, SimConfig};

/// How often signals are checked.
const TICK: Duration = Duration::from_millis(100);

pub(super) fn run(args: &args_sim::Sim) -> CliResult<()> {
    logging::start(0);
    let stop = mount::stop_signals()?;
    let sim = start(args)?;
    if args.output.json {
        println!("{}", sim.describe());
    } else {
        describe(&sim, args.https);
    }
    wait(&stop);
    Ok(())
}

fn start(args: &args_sim::Sim) -> CliResult<Sim> {
    let mut quirks = Vec::new();
    for quirk in &args.quirks {
        let (name, value) = quirk.split_once('=').ok_or_else(|| {
            Failure::new(Exit::Usage, format!("--quirk {quirk}: expected NAME=VALUE, for example rename=refuse"))
        })?;
        quirks.push((name.to_owned(), value.to_owned()));
    }
    if let Some(code) = &args.code
        && !code.is_dir()
    {
        return Err(Failure::new(Exit::Usage, format!("--code {}: not a directory", code.display())));
    }
    let (rtt, mbit) = (Duration::from_millis(args.rtt), args.mbit);
    let config = SimConfig { code: args.code.clone(), rtt, mbit, quirks, port: args.port };
    Sim::start(&config).map_err(|e| Failure::caused(Exit::Failed, "the simulator does not start", e))
}

fn describe(sim: &Sim, https: bool) {
    println!("The simulated Pantheon site '{}' runs until you press Ctrl-C.\n", sim.site());
    println!("In another shell:\n");
    for (name, value) in if https { sim.secure_env() } else { sim.env() } {
        println!("  export {name}={value}");
    }
    println!("  pantheonfs mount {}.dev DIR -o {}\n", sim.site(), sim.options());
    println!("Files of dev, with the other environments beside it: {}", sim.home("dev").display());
    println!("Events and quirks: curl {}", sim.control());
}

fn wait(stop: &Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(TICK);
    }
}
