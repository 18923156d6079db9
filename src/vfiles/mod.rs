//! The files under `.pantheon`: rendering a status, parsing a command. Pure functions.
