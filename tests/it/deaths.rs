//! The process is killed at every single request of every piece of work, and the power fails after every record of the
//! journal with what was not synced gone: nothing that was accepted is lost to a death, and nothing torn is sent after either.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::common::meddler::Fate;
use crate::steps::{Tree, WORK, Work, differences, ends, furnished, look};

/// Cases that run at a time: most of them wait.
const SIDE_BY_SIDE: usize = 24;
/// Servers: one that replaces a file in one step, one that only renames to free names, one that cannot rename.
const SERVERS: [&[&str]; 3] = [&[], &["-P", "posix-rename"], &["-P", "posix-rename,rename"]];

/// Runs `case` on every item, many at a time.
fn on_each<T: Sync>(items: &[T], case: impl Fn(&T) + Sync) {
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed) as usize) {
                    case(item);
                }
            });
        }
    });
}

/// Where the work leads when nothing happens, and how many requests it takes.
fn whole(args: &[&'static str], work: Work) -> Option<(Tree, u64)> {
    let inner = furnished(args)?;
    inner.faults.plan.on_request(|_, _| Fate::Pass);
    work(&inner);
    inner.barrier();
    let taken = inner.faults.plan.requests.load(Ordering::Relaxed);
    Some((look(&inner.home, "w"), taken))
}

struct Death<'a> {
    args: &'static [&'static str],
    name: &'static str,
    work: Work,
    wanted: &'a Tree,
    request: u64,
    /// The server carries it out, but its answer never comes.
    answered: bool,
}

fn die(case: &Death<'_>) {
    let mut inner = furnished(case.args).expect("there is a server");
    let n = case.request;
    if case.answered {
        inner.faults.plan.on_reply(move |at, packet| if at >= n { Vec::new() } else { vec![packet] });
    } else {
        inner.faults.plan.on_request(move |at, _| if at >= n { Fate::Swallow } else { Fate::Pass });
    }
    (case.work)(&inner);
    // Until it is sent as far as it may be.
    thread::sleep(std::time::Duration::from_millis(250));
    inner.crash();
    inner.barrier();
    let (found, now) = (look(&inner.home, "w"), inner.fs.status());
    let different = differences(&found, case.wanted);
    assert!(
        different.is_empty() && now.local.conflicts.is_empty() && now.local.stranded.is_empty(),
        "{}, {:?}, died at {} {n}: {different:?}, {:?}, {:?}, {:?}",
        case.name,
        case.args,
        if case.answered { "the answer to request" } else { "request" },
        now.local.conflicts,
        now.local.stranded,
        now.last_error
    );
}

#[test]
fn the_driver_dies_at_every_request() {
    let mut wholes = Vec::new();
    for args in SERVERS {
        for (name, work) in WORK {
            let Some((wanted, taken)) = whole(args, work) else { return };
            wholes.push((args, name, work, wanted, taken));
        }
    }
    let mut cases = Vec::new();
    for (args, name, work, wanted, taken) in &wholes {
        for (request, answered) in (0..*taken).flat_map(|n| [(n, false), (n, true)]) {
            cases.push(Death { args, name, work: *work, wanted, request, answered });
        }
    }
    on_each(&cases, die);
    assert!(cases.len() > 200, "{}", cases.len());
    eprintln!(
        "survived: {} deaths of the driver at every request of five kinds of work, on three kinds of server",
        cases.len()
    );
}

fn spools(state: &Path) -> Vec<PathBuf> {
    fs::read_dir(state.join("spool")).expect("listed").flatten().map(|entry| entry.path()).collect()
}

/// The machine stops: of the journal there is what was written up to some record, of the bytes beside it nothing or zeros.
fn lose_power(state: &Path, records: usize, zeros: bool) {
    let journal = state.join("journal");
    let bytes = fs::read(&journal).expect("there");
    fs::write(&journal, &bytes[..ends(&bytes)[records]]).expect("cut off");
    for spool in spools(state) {
        let len = fs::metadata(&spool).expect("there").len();
        fs::write(&spool, if zeros { vec![0; len as usize] } else { Vec::new() }).expect("damaged");
    }
}

/// Every file has its old content or its whole new one: what the power took is missing, never torn, and never blank.
#[test]
fn the_power_fails_after_every_record() {
    let mut cases = Vec::new();
    let mut trees = Vec::new();
    for (name, work) in WORK {
        let Some(inner) = furnished(&[]) else { return };
        let before = look(&inner.home, "w");
        inner.stall(true);
        work(&inner);
        let records = ends(&fs::read(inner.state().join("journal")).expect("there")).len();
        inner.stall(false);
        inner.barrier();
        trees.push((before, look(&inner.home, "w")));
        let which = trees.len() - 1;
        cases.extend((0..records).flat_map(|kept| [(name, work, which, kept, true), (name, work, which, kept, false)]));
    }
    on_each(&cases, |(name, work, which, kept, zeros)| {
        let (before, after) = &trees[*which];
        let mut inner = furnished(&[]).expect("there is a server");
        inner.stall(true);
        work(&inner);
        inner.crash_into(|state| lose_power(state, *kept, *zeros));
        inner.barrier();
        for (path, content) in look(&inner.home, "w") {
            let Some(content) = content else { continue };
            let known = before.values().chain(after.values()).any(|one| one.as_deref() == Some(&content[..]));
            assert!(known, "{name}, record {kept}: {path} has {} bytes that nobody wrote", content.len());
        }
        let (now, shown) = (look(&inner.home, "w"), inner.names("w").expect("listed"));
        let names = now.keys().filter(|path| path.matches('/').count() == 1).count();
        assert_eq!(shown.len(), names, "{name}, record {kept}: the view is the server's");
    });
    eprintln!("survived: {} power losses after journal records, in which unsynced data was lost", cases.len());
}
