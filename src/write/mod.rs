//! Local state that is not yet on the server: spool, base versions, conflicts.
