//! Arguments, mounting and daemonising, exit codes: everything that touches the terminal or the environment.
