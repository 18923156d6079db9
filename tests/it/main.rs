//! One binary for everything that needs more than one room: real servers, the real kernel, real editors.

mod common;

mod sftp_conformance;
