//! The order in which the server takes the arguments of SYMLINK. The draft has the link first, OpenSSH the text, and no
//! reply says which it was: a server of the other order makes a link of the wrong name with the wrong text, and reports
//! success.

use std::sync::atomic::{AtomicU8, Ordering};

const UNKNOWN: u8 = 0;
const TEXT_FIRST: u8 = 1;
const LINK_FIRST: u8 = 2;

/// Software that takes the link first from clients that it does not take for OpenSSH.
const DRAFT_SOFTWARE: [&str; 1] = ["asyncssh"];

/// Learned with the first link, and kept over sessions.
#[derive(Default)]
pub(super) struct LinkOrder(AtomicU8);

impl LinkOrder {
    /// Whether the link comes first, as far as it is known; until then, as the software of the server suggests.
    pub(super) fn is_link_first(&self, software: &str) -> bool {
        match self.0.load(Ordering::Relaxed) {
            UNKNOWN => {
                let software = software.to_ascii_lowercase();
                DRAFT_SOFTWARE.iter().any(|known| software.contains(known))
            }
            learned => learned == LINK_FIRST,
        }
    }

    pub(super) fn is_learned(&self) -> bool {
        self.0.load(Ordering::Relaxed) != UNKNOWN
    }

    pub(super) fn learned(&self, link_first: bool) {
        self.0.store(if link_first { LINK_FIRST } else { TEXT_FIRST }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_software_suggests_an_order_until_one_is_learned() {
        let order = LinkOrder::default();
        assert!(order.is_link_first("SSH-2.0-AsyncSSH_2.14.2"));
        assert!(!order.is_link_first("SSH-2.0-OpenSSH_9.2p1") && !order.is_link_first("") && !order.is_learned());
        order.learned(false);
        assert!(!order.is_link_first("SSH-2.0-AsyncSSH_2.14.2") && order.is_learned());
    }
}
