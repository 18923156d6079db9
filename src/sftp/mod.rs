//! SFTP version 3: codec, pipelining engine, typed calls.
