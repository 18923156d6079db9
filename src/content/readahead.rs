//! How far ahead of a sequential reader to fetch. The kernel reads only 128 KiB ahead, which at 50 ms is 2.5 MB/s, so
//! that the mount needs its own read-ahead. One value per open handle; it decides, `content` fetches.

use std::ops::Range;

/// First window, bytes: two kernel requests.
const START_BYTES: u64 = 256 * 1024;
/// Largest window, bytes: 8 MiB are in flight at 100 ms and 80 MB/s.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// Readers may skip this far and still count as sequential: the kernel's own read-ahead comes in out of order.
const TOLERANCE_BYTES: u64 = 256 * 1024;

/// The reading position of one handle.
#[derive(Debug, Default)]
pub struct ReadAhead {
    next: u64,
    window: u64,
    asked_to: u64,
}

impl ReadAhead {
    /// Notes a read and returns the range to fetch ahead, if any.
    pub fn note(&mut self, read: &Range<u64>) -> Option<Range<u64>> {
        let sequential = read.start <= self.next + TOLERANCE_BYTES && read.end + TOLERANCE_BYTES >= self.next;
        if !sequential {
            *self = Self { next: read.end, window: 0, asked_to: 0 };
            return None;
        }
        self.next = self.next.max(read.end);
        self.asked_to = self.asked_to.max(self.next);
        self.window = (self.window * 2).clamp(START_BYTES, MAX_BYTES);
        let target = self.next + self.window;
        // Refilled by halves, because one request per read would be many small ones.
        if target - self.asked_to < self.window / 2 {
            return None;
        }
        let range = self.asked_to..target;
        self.asked_to = target;
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_grows_while_the_reader_goes_on() {
        let mut ahead = ReadAhead::default();
        let (mut asked, mut at) = (0, 0);
        for _ in 0..200 {
            if let Some(range) = ahead.note(&(at..at + 128 * 1024)) {
                assert!(range.start >= at && range.end > asked);
                asked = range.end;
            }
            at += 128 * 1024;
            assert!(asked >= at, "never behind the reader");
        }
        assert!(asked - at >= MAX_BYTES / 2);
    }

    #[test]
    fn a_jump_starts_over() {
        let mut ahead = ReadAhead::default();
        assert!(ahead.note(&(0..4096)).is_some());
        assert_eq!(ahead.note(&(1 << 30..(1 << 30) + 4096)), None);
        let range = ahead.note(&((1 << 30) + 4096..(1 << 30) + 8192)).expect("sequential again");
        assert_eq!(range.start, (1 << 30) + 8192);
    }
}
