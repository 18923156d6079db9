//! One binary for everything that needs more than one room: real servers, the real kernel, real editors.

#![allow(unreachable_pub)]

mod common;

mod sftp_conformance;
