//! The log: standard error in the foreground, a file in the state directory in the background.

use parking_lot::Mutex;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::SystemTime;

use log::{LevelFilter, Log, Metadata, Record};

use crate::text::visible;

/// A log larger than this is overwritten by the next mount (bytes).
const MAX_LOG_BYTES: u64 = 1024 * 1024;

struct Logger(Mutex<Option<File>>);

static LOGGER: Logger = Logger(Mutex::new(None));

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level() && metadata.target().starts_with("pantheonfs")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = visible(record.args().to_string());
        let mut file = self.0.lock();
        // An error of the log cannot be logged.
        let _ = match file.as_mut() {
            Some(file) => {
                let now = humantime::format_rfc3339_seconds(SystemTime::now());
                writeln!(file, "{now} {} {text}", record.level())
            }
            None => writeln!(std::io::stderr(), "pantheonfs: {text}"),
        };
    }

    fn flush(&self) {}
}

/// Starts logging to standard error: warnings; with `-v` events; with `-vv` everything. A panic is logged as well: the
/// standard error of a mount in the background is closed.
pub(super) fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Trace,
    };
    // A second call in one process (demo) keeps the first logger.
    let _ = log::set_logger(&LOGGER);
    log::set_max_level(level);
    std::panic::set_hook(Box::new(|panic| {
        let trace = std::backtrace::Backtrace::capture();
        let thread = std::thread::current();
        log::error!("a bug: thread {}: {panic}\n{trace}", thread.name().unwrap_or("without a name"));
    }));
}

/// Continues the log in a file.
pub(super) fn go_on_in(path: &Path) {
    use std::os::unix::fs::OpenOptionsExt;
    let large = path.metadata().is_ok_and(|meta| meta.len() > MAX_LOG_BYTES);
    let file = File::options().create(true).write(true).append(!large).truncate(large).mode(0o600).open(path);
    match file {
        Ok(file) => {
            *LOGGER.0.lock() = Some(file);
            log::set_max_level(log::max_level().max(LevelFilter::Info));
        }
        Err(error) => log::warn!("{}: the log cannot be opened: {error}", path.display()),
    }
}
