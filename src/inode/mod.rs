//! The inode table: names, attributes, lookup counts, how long each may be believed.
