//! A session that survives: wake, connect, keep alive, roll over, retry what is safe.
