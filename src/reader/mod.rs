//! The content of files: opening, reading, fetching ahead, and what may come from the repository instead of the server.
//!
//! [`Reader`] gives out the bytes of the version that a handle stands for. What is only on this machine it reads from
//! `upload`; everything else comes through `content`, which it keeps informed of what was sent.
//!
//! | file | what |
//! | --- | --- |
//! | `storage` | the disk tier and the proofs that `content` begins with |
//! | `repository` | the committed tree of the commit that runs |
//! | `scan` | content ahead of a reader of many files |
//! | `state` | the type [`Reader`] |
//! | `open` | open, release, and which version a handle stands for |
//! | `read` | read |
//! | `link` | readlink, and where links may lead |
//! | `whole` | whole files, for comparisons |
//! | `hydrate` | everything below a directory to the local disk |
//! | `provenance` | following which commit runs, and asking for proofs |
//! | `sent` | what was sent goes into the caches |

mod hydrate;
mod link;
mod open;
mod provenance;
mod read;
mod repository;
mod scan;
mod sent;
mod state;
mod storage;
mod whole;

pub use open::{OpenFile, OpenMode, OpenedFile};
pub use repository::Repository;
pub use state::{Reader, ReaderConfig};
pub use storage::{open_disk, proofs_of};
