//! The filesystem operations on our own types; the one errno table.
