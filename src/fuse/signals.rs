//! The signal watchdog. The kernel waits for our answer without being interruptible once we have read a request, and
//! `fuser` refuses FUSE_INTERRUPT, so that a program waiting for a dead link could not even be killed. This thread looks
//! at the pending signals of callers that have waited for some time and answers EINTR for them.
//!
//! Only signals that would end the program count: Go programs and git get others all the time and take EINTR for an error.
//! One that ends programs by default (SIGALRM, say) counts where the program has made no arrangements for it.

use std::fs;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::deferred::Waiting;

/// How often callers are looked at. An answer comes at most this much after the signal.
const POLL: Duration = Duration::from_millis(50);
/// How long a caller must have waited: a normal round trip is not looked at.
const GRACE: Duration = Duration::from_millis(100);

/// SIGHUP, SIGINT, SIGQUIT, SIGKILL, SIGTERM.
const FATAL: u64 = 1 << (libc::SIGHUP - 1)
    | 1 << (libc::SIGINT - 1)
    | 1 << (libc::SIGQUIT - 1)
    | 1 << (libc::SIGKILL - 1)
    | 1 << (libc::SIGTERM - 1);

/// What ends a program that has no handler: SIGILL, SIGABRT, SIGBUS, SIGFPE, SIGUSR1, SIGSEGV, SIGUSR2, SIGPIPE, SIGALRM,
/// SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF.
const FATAL_BY_DEFAULT: u64 = 1 << (libc::SIGILL - 1)
    | 1 << (libc::SIGABRT - 1)
    | 1 << (libc::SIGBUS - 1)
    | 1 << (libc::SIGFPE - 1)
    | 1 << (libc::SIGUSR1 - 1)
    | 1 << (libc::SIGSEGV - 1)
    | 1 << (libc::SIGUSR2 - 1)
    | 1 << (libc::SIGPIPE - 1)
    | 1 << (libc::SIGALRM - 1)
    | 1 << (libc::SIGXCPU - 1)
    | 1 << (libc::SIGXFSZ - 1)
    | 1 << (libc::SIGVTALRM - 1)
    | 1 << (libc::SIGPROF - 1);

/// Runs as long as `waiting` lives.
pub(super) fn start(waiting: &Arc<Waiting>) -> io::Result<()> {
    let waiting: Weak<Waiting> = Arc::downgrade(waiting);
    std::thread::Builder::new().name("watchdog".into()).spawn(move || {
        loop {
            std::thread::sleep(POLL);
            let Some(waiting) = waiting.upgrade() else { return };
            waiting.interrupt_where(GRACE, is_ending);
        }
    })?;
    Ok(())
}

/// Whether a fatal signal that the thread neither blocks nor ignores is pending.
fn is_ending(tid: u32) -> bool {
    // The caller has ended, so that no program waits for the answer.
    let Ok(status) = fs::read_to_string(format!("/proc/{tid}/status")) else { return true };
    pending_fatal(&status)
}

fn pending_fatal(status: &str) -> bool {
    let mask = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    let pending = mask("SigPnd:").unwrap_or(0) | mask("ShdPnd:").unwrap_or(0);
    let (ignored, caught) = (mask("SigIgn:").unwrap_or(0), mask("SigCgt:").unwrap_or(u64::MAX));
    let fatal = FATAL | (FATAL_BY_DEFAULT & !caught);
    // SIGKILL cannot be blocked; the others only count where they would be delivered.
    pending & fatal & !ignored & !(mask("SigBlk:").unwrap_or(0)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(thread: u64, process: u64, blocked: u64, ignored: u64) -> String {
        format!(
            "Name:\tls\nSigPnd:\t{thread:016x}\nShdPnd:\t{process:016x}\nSigBlk:\t{blocked:016x}\nSigIgn:\t{ignored:016x}\n"
        )
    }

    #[test]
    fn only_fatal_signals_that_would_be_delivered_count() {
        let bit = |signal: i32| 1u64 << (signal - 1);
        assert!(pending_fatal(&status(bit(libc::SIGKILL), 0, 0, 0)));
        assert!(pending_fatal(&status(0, bit(libc::SIGINT), 0, 0)));
        assert!(!pending_fatal(&status(0, bit(libc::SIGINT), 0, bit(libc::SIGINT))));
        assert!(!pending_fatal(&status(0, bit(libc::SIGTERM), bit(libc::SIGTERM), 0)));
        assert!(!pending_fatal(&status(bit(libc::SIGURG), bit(libc::SIGALRM) | bit(libc::SIGCHLD), 0, 0)));
        assert!(!pending_fatal("nonsense"));
        let caught = |mask: u64| format!("{}SigCgt:\t{mask:016x}\n", status(0, bit(libc::SIGALRM), 0, 0));
        assert!(pending_fatal(&caught(0)), "an alarm without a handler");
        assert!(!pending_fatal(&caught(bit(libc::SIGALRM))));
    }
}
