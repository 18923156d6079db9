//! The requests of SFTP, as the platform answers them: everything below one binding directory, and code read-only when the
//! mode says so.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};

use russh_sftp::protocol::{
    Attrs, Data, ExtendedReply, File as Entry, FileAttributes, Handle, Name, OpenFlags, Packet, Status, StatusCode,
    Version,
};
use russh_sftp::server::{Handler, StatusReply};

use super::sftp_reply::{Reply, attributes, code, done, status, strings};
use super::sftp_session::{MAX_HANDLES, Open, Sftp, Target};

/// Entries in one answer to READDIR.
const PAGE: usize = 100;
/// Largest READ and WRITE (bytes).
const MAX_DATA_BYTES: u64 = 255 * 1024;
/// Largest READ with the quirk `reads=short` (bytes).
const SHORT_BYTES: u64 = 4096;

impl Handler for Sftp {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        code(StatusCode::OpUnsupported)
    }

    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Reply<Version> {
        let mut version = Version::new();
        if self.extensions {
            for (name, value) in
                [("posix-rename@openssh.com", "1"), ("statvfs@openssh.com", "2"), ("limits@openssh.com", "1")]
            {
                version.extensions.insert(name.into(), value.into());
            }
            if !self.quirk_is("copy-data", "off") {
                version.extensions.insert("copy-data".into(), "1".into());
            }
        }
        Ok(version)
    }

    async fn open(&mut self, id: u32, filename: String, flags: OpenFlags, attrs: FileAttributes) -> Reply<Handle> {
        self.answer(|sftp| {
            let path = sftp.binding.followed(&filename)?;
            let writable =
                flags.intersects(OpenFlags::WRITE | OpenFlags::APPEND | OpenFlags::CREATE | OpenFlags::TRUNCATE);
            if writable {
                sftp.check_write(&path)?;
            }
            let mut options = OpenOptions::from(flags);
            options.mode(attrs.permissions.unwrap_or(0o644) & 0o7777);
            let file = options.open(&path).map_err(|e| status(&e))?;
            if file.metadata().is_ok_and(|meta| meta.is_dir()) {
                return Err(code(StatusCode::Failure));
            }
            Ok(Handle { id, handle: sftp.keep(Open::File { file, writable })? })
        })
    }

    async fn close(&mut self, id: u32, handle: String) -> Reply<Status> {
        self.answer(|sftp| match sftp.release(&handle) {
            Some(_) => Ok(done(id)),
            None => Err(code(StatusCode::Failure)),
        })
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Reply<Data> {
        self.answer(|sftp| {
            let short = sftp.quirk_is("reads", "short");
            let most = if short { SHORT_BYTES } else { MAX_DATA_BYTES };
            let mut data = vec![0; u64::from(len).min(most) as usize];
            let n = sftp.file(&handle)?.read_at(&mut data, offset).map_err(|e| status(&e))?;
            if n == 0 {
                return Err(code(StatusCode::Eof));
            }
            data.truncate(n);
            Ok(Data { id, data })
        })
    }

    async fn write(&mut self, id: u32, handle: String, offset: u64, data: Vec<u8>) -> Reply<Status> {
        self.answer(|sftp| {
            match sftp.opened(&handle) {
                Some(Open::File { file, writable: true }) => {
                    file.write_all_at(&data, offset).map_err(|e| status(&e))?
                }
                Some(_) => return Err(code(StatusCode::PermissionDenied)),
                None => return Err(code(StatusCode::Failure)),
            }
            Ok(done(id))
        })
    }

    async fn lstat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        self.answer(|sftp| {
            let meta = sftp.binding.path(&path)?.symlink_metadata().map_err(|e| status(&e))?;
            Ok(Attrs { id, attrs: attributes(&meta) })
        })
    }

    async fn stat(&mut self, id: u32, path: String) -> Reply<Attrs> {
        self.answer(|sftp| {
            let meta = sftp.binding.followed(&path)?.metadata().map_err(|e| status(&e))?;
            Ok(Attrs { id, attrs: attributes(&meta) })
        })
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Reply<Attrs> {
        self.answer(|sftp| {
            let meta = sftp.file(&handle)?.metadata().map_err(|e| status(&e))?;
            Ok(Attrs { id, attrs: attributes(&meta) })
        })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.binding.followed(&path)?;
            sftp.check_write(&path)?;
            sftp.set(&Target::Path(&path), &attrs).map(|()| done(id))
        })
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Reply<Status> {
        self.answer(|sftp| sftp.set(&Target::File(sftp.file(&handle)?), &attrs).map(|()| done(id)))
    }

    async fn opendir(&mut self, id: u32, path: String) -> Reply<Handle> {
        self.answer(|sftp| {
            let path = sftp.binding.followed(&path)?;
            fs::read_dir(&path).map_err(|e| status(&e))?;
            Ok(Handle { id, handle: sftp.keep(Open::Dir { path, entries: None })? })
        })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Reply<Name> {
        let page = if self.quirk_is("pages", "single") { 1 } else { PAGE };
        self.answer(|sftp| match sftp.entries(&handle)? {
            entries if entries.is_empty() => Err(code(StatusCode::Eof)),
            entries => {
                let rest = entries.len().saturating_sub(page);
                let mut files = entries.split_off(rest);
                files.reverse();
                Ok(Name { id, files })
            }
        })
    }

    async fn remove(&mut self, id: u32, filename: String) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.binding.path(&filename)?;
            sftp.check_name(&path)?;
            fs::remove_file(path).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.binding.path(&path)?;
            sftp.check_name(&path)?;
            fs::create_dir(&path).map_err(|e| status(&e))?;
            let perm = fs::Permissions::from_mode(attrs.permissions.unwrap_or(0o755) & 0o7777);
            fs::set_permissions(&path, perm).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.binding.path(&path)?;
            sftp.check_name(&path)?;
            fs::remove_dir(path).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn realpath(&mut self, id: u32, path: String) -> Reply<Name> {
        self.answer(|sftp| {
            let path = sftp.binding.followed(&path)?;
            let real = fs::canonicalize(&path).unwrap_or(path);
            Ok(Name { id, files: vec![Entry::dummy(sftp.binding.shown(&real)?)] })
        })
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Reply<Status> {
        self.answer(|sftp| sftp.rename_path(&oldpath, &newpath, false).map(|()| done(id)))
    }

    async fn readlink(&mut self, id: u32, path: String) -> Reply<Name> {
        self.answer(|sftp| {
            let text = fs::read_link(sftp.binding.path(&path)?).map_err(|e| status(&e))?;
            Ok(Name { id, files: vec![Entry::dummy(text.to_string_lossy())] })
        })
    }

    /// The library names the arguments as the draft does; clients send them in the order of OpenSSH: the text, then the link.
    async fn symlink(&mut self, id: u32, text: String, link: String) -> Reply<Status> {
        self.answer(|sftp| {
            let path = sftp.binding.path(&link)?;
            sftp.check_name(&path)?;
            std::os::unix::fs::symlink(text, path).map(|()| done(id)).map_err(|e| status(&e))
        })
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Reply<Packet> {
        self.answer(|sftp| {
            if !sftp.extensions {
                return Err(code(StatusCode::OpUnsupported));
            }
            if request == "copy-data" {
                return sftp.copy_data(&data).map(|()| Packet::Status(done(id)));
            }
            match (request.as_str(), strings(&data).unwrap_or_default().as_slice()) {
                ("posix-rename@openssh.com", [from, to]) => {
                    sftp.rename_path(from, to, true).map(|()| Packet::Status(done(id)))
                }
                ("statvfs@openssh.com", [path]) => {
                    Ok(Packet::ExtendedReply(ExtendedReply { id, data: sftp.statvfs(path)? }))
                }
                ("limits@openssh.com", _) if sftp.quirk_is("handles", "told") => {
                    let words = [MAX_DATA_BYTES + 1024, MAX_DATA_BYTES, MAX_DATA_BYTES, MAX_HANDLES];
                    let data = words.iter().flat_map(|word| word.to_be_bytes()).collect();
                    Ok(Packet::ExtendedReply(ExtendedReply { id, data }))
                }
                _ => Err(code(StatusCode::OpUnsupported)),
            }
        })
    }
}
