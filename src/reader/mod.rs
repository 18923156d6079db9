//! The content of files: opening, reading, fetching ahead, and reading from the repository instead of the server.
//!
//! [`Reader`] returns the bytes of the version that a handle stands for. It reads local content from `upload` and all
//! other content through `content`, whose caches it updates with what was sent.
//!
//! | file | what |
//! | --- | --- |
//! | `storage` | opening the disk cache and the proofs of `content` |
//! | `repository` | the files of the deployed commit |
//! | `scan` | prefetching for a reader of many files |
//! | `roam` | the same for one that reads them in no order |
//! | `walk` | the tree in the order in which such a reader comes through it |
//! | `state` | the type [`Reader`] |
//! | `open` | open, release, and which version a handle stands for |
//! | `read` | read |
//! | `link` | readlink, and where links may lead |
//! | `whole` | whole files, for comparisons |
//! | `hydrate` | copying a directory to the local disk |
//! | `following` | what is known of the deployed commit |
//! | `provenance` | following the deployed commit, and collecting proofs |
//! | `sent` | updating the caches with what was sent |

mod following;
mod hydrate;
mod link;
mod open;
mod provenance;
mod read;
mod repository;
mod roam;
mod scan;
mod sent;
mod state;
mod storage;
mod walk;
mod whole;

pub use open::{OpenFile, OpenMode, OpenedFile};
pub use repository::Repository;
pub use state::{Links, Reader, ReaderConfig};
pub use storage::{open_disk, proofs_of};
pub use whole::ObjectsAhead;
