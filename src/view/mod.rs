//! What the mount shows: names and attributes as the server last sent them, with the local changes on top.
//!
//! [`View`] owns the table of inodes, keeps it fresh by listing whole directories, and tells the kernel what to drop
//! from its caches. It does not know content. `upload` makes local changes through it; [`Unsent`] tells which of them
//! the server does not know yet.
//!
//! | file | what |
//! | --- | --- |
//! | `layout` | which directories of the server are shown, and where |
//! | `changes` | what the kernel must forget |
//! | `touched` | which paths changed lately |
//! | `freshness` | how old an answer may be |
//! | `listings` | one listing of a directory, taken over into the table |
//! | `ahead` | listing ahead of a walk |
//! | `used` | which directories were used lately |
//! | `sweep` | listing everything again at once |
//! | `renewal` | looking for changes of others |
//! | `outside` | how symlinks that lead out of the mount are shown |
//! | `saved` | the tree on the local disk |
//! | `space` | statfs |
//! | `state` | the type [`View`] and its read access |
//! | `edit` | local changes of the table |
//! | `lookup` | lookup and getattr: making sure that an answer is fresh |

mod ahead;
mod changes;
mod edit;
mod freshness;
mod layout;
mod listings;
mod lookup;
mod outside;
mod renewal;
mod saved;
mod space;
mod state;
mod sweep;
mod touched;
mod used;

pub use freshness::{FROZEN_FRESH, OPEN_FRESH};
pub use layout::{DOT_DIR, GIT_FILE, LOGS_PATH, Layout, UPLOADS_DIR, UPLOADS_PATH};
pub use listings::{ListResult, Unsent};
pub use outside::{OUTSIDE_PATH, goes_on, outside_path, outside_text};
pub use saved::{EarlierTree, knows_a_tree};
pub use space::Space;
pub use state::{Entry, View, ViewConfig};
pub use sweep::{Renew, Unlisted};
pub use touched::Since;
