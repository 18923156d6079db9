//! Desktop notices: what happened to a mount while nobody looked at it, over the notification service of the session bus.
//!
//! Whatever becomes of the bus holds nothing up: events go into a bounded queue without waiting, and one thread gathers
//! them, so that many of a kind are one notice, and talks to the bus with a limit.
//!
//! | file | what |
//! | --- | --- |
//! | `event` | what can happen |
//! | `text` | the words of a notice, with the command to run |
//! | `bus` | the notification service |
//! | `gather` | many events to few notices |
//! | `queue` | the queue and its thread |
//! | `due` | what time brings: a link that stays away, work that stays uncommitted, a login that ends |
//! | `follow` | which events of a mount are told |

mod bus;
mod due;
mod event;
mod follow;
mod gather;
mod queue;
mod text;

pub use event::{CommitInfo, Event};
pub use follow::{Followed, start};
pub use queue::{Notices, Tells};
pub use text::About;
