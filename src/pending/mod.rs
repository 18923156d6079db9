//! What is uncommitted, from which source, and how old that knowledge is.
