//! SFTP version 3: the codec and a pipelining engine over any byte stream.
//!
//! The engine sends many requests before the first answer comes and matches answers by number. It retries nothing and
//! knows no paths of ours; see `remote`.

mod codec;
mod deadline;
mod engine;
mod error;
mod extensions;
mod rate;
mod window;

pub(crate) use codec::open;
pub use codec::{Extension, NameEntry, RawAttrs, Reply, Request, StatusCode, decode_reply, decode_version};
pub use engine::{Class, Config, Counters, Engine, Pending};
pub use error::{Loss, SftpError};
pub use extensions::{Capabilities, StatVfs, decode_statvfs};
