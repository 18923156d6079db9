//! SFTP version 3: the codec and a pipelining engine over any byte stream.
//!
//! The engine sends many requests before the first answer comes and matches answers by number. It asks
//! nothing again; see `remote`.

mod deadline;
mod engine;
mod error;
mod extensions;
mod flights;
mod queue;
mod rate;
mod reply;
mod request;
mod shared;
mod stream;
mod window;
mod wire;
mod worker;

pub use engine::{Config, Engine, Pending};
pub use error::{Loss, SftpError};
pub use extensions::{Capabilities, StatVfs, decode_statvfs};
pub use queue::Class;
pub use reply::{Extension, NameEntry, Reply, StatusCode, decode_reply, decode_version};
pub use request::Request;
pub(crate) use request::open;
pub use shared::Counters;
pub use wire::RawAttrs;
