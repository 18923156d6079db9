//! "These bytes of this version": from the cache, the mirror or the server.
