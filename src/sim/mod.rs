//! A small Pantheon on loopback, for the demo and the tests.
