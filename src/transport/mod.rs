//! A byte stream to an SFTP server: libssh2, the ssh program, or a plain child process.
