//! The only room that knows fuser: adapter, session, kernel invalidation, signal watchdog.
