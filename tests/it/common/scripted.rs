//! A server that says what a test wants: a few directories and files that it claims to have, and any packet in the place of
//! any answer. No process and no socket: the stream is in this one.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pantheonfs::transport::{Transport, TransportInfo};

use super::inner::Dial;
use super::meddler::status;

pub const FILE: u32 = 0o100_644;
pub const DIR: u32 = 0o040_755;
pub const LINK: u32 = 0o120_777;

/// A request, as far as scripts want to know it.
pub struct Asked {
    pub kind: u8,
    pub id: [u8; 4],
    /// The path, or the handle, which is the path of what was opened.
    pub path: String,
    /// The second string of SYMLINK.
    pub second: String,
    /// Of READ.
    pub offset: u64,
    pub len: u32,
    /// How often this was asked about this path or handle before.
    pub times: u64,
}

pub const READDIR: u8 = 12;
pub const OPENDIR: u8 = 11;
pub const OPEN: u8 = 3;
pub const READ: u8 = 5;
pub const FSTAT: u8 = 8;
pub const REALPATH: u8 = 16;
pub const READLINK: u8 = 19;
pub const SYMLINK: u8 = 20;
pub const LSTAT: u8 = 7;
pub const REMOVE: u8 = 13;

/// What a test says instead; `None`: what a server would say.
pub type Script = dyn Fn(&Asked) -> Option<Vec<Vec<u8>>> + Send + Sync;

/// See the module header.
pub struct Scripted {
    script: Arc<Script>,
    version: Vec<u8>,
    counts: HashMap<(u8, String), u64>,
    input: Vec<u8>,
    output: VecDeque<u8>,
    handles: u64,
}

/// A packet of this type, with its length.
pub fn packet(kind: u8, id: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut out = ((body.len() + 5) as u32).to_be_bytes().to_vec();
    out.push(kind);
    out.extend(id);
    out.extend(body);
    out
}

pub fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    [&(bytes.len() as u32).to_be_bytes(), bytes].concat()
}

/// Size, permissions with the kind, and time.
pub fn attributes(size: u64, perm: u32, mtime: u32) -> Vec<u8> {
    let mut out = 13_u32.to_be_bytes().to_vec();
    out.extend(size.to_be_bytes());
    [perm, mtime, mtime].iter().for_each(|word| out.extend(word.to_be_bytes()));
    out
}

pub fn names<N: AsRef<[u8]>>(id: [u8; 4], entries: &[(N, Vec<u8>)]) -> Vec<u8> {
    let mut body = (entries.len() as u32).to_be_bytes().to_vec();
    for (name, attrs) in entries {
        body.extend(text(name));
        body.extend(text(""));
        body.extend(attrs);
    }
    packet(104, id, &body)
}

pub fn data(id: [u8; 4], bytes: &[u8]) -> Vec<u8> {
    packet(103, id, &text(bytes))
}

/// Dials such a server; `dials` counts how often that was done.
pub fn dial(dials: &Arc<AtomicU64>, script: impl Fn(&Asked) -> Option<Vec<Vec<u8>>> + Send + Sync + 'static) -> Dial {
    let (dials, script): (_, Arc<Script>) = (dials.clone(), Arc::new(script));
    Box::new(move |_| {
        dials.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(Scripted::new(script.clone(), vec![0, 0, 0, 5, 2, 0, 0, 0, 3])))
    })
}

impl Scripted {
    pub fn new(script: Arc<Script>, version: Vec<u8>) -> Self {
        Self { script, version, counts: HashMap::new(), input: Vec::new(), output: VecDeque::new(), handles: 0 }
    }

    fn answer(&mut self, bytes: &[u8]) {
        if bytes[4] == 1 {
            self.output.extend(&self.version);
            return;
        }
        let id: [u8; 4] = bytes[5..9].try_into().expect("a number");
        let len = bytes.get(9..13).map_or(0, |len| u32::from_be_bytes(len.try_into().expect("four")) as usize);
        let object = String::from_utf8_lossy(bytes.get(13..13 + len).unwrap_or_default()).into_owned();
        let path = object.split('\0').next().unwrap_or_default().to_owned();
        let rest = bytes.get(13 + len..).unwrap_or_default();
        let offset = rest.first_chunk::<8>().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let asked = rest.get(8..12).map_or(0, |bytes| u32::from_be_bytes(bytes.try_into().expect("four")));
        let second_len = rest.first_chunk::<4>().map_or(0, |len| u32::from_be_bytes(*len) as usize);
        let second = rest.get(4..4 + second_len.min(rest.len())).unwrap_or_default();
        let second = String::from_utf8_lossy(second).into_owned();
        let count = self.counts.entry((bytes[4], object)).or_default();
        let asked = Asked { kind: bytes[4], id, path, second, offset, len: asked, times: *count };
        *count += 1;
        let said = (self.script)(&asked).unwrap_or_else(|| vec![self.usual(&asked)]);
        said.into_iter().for_each(|packet| self.output.extend(packet));
    }

    /// The server of somebody who has nothing and permits everything.
    fn usual(&mut self, asked: &Asked) -> Vec<u8> {
        match asked.kind {
            REALPATH => names(asked.id, &[("/home/of/nobody", Vec::from(0_u32.to_be_bytes()))]),
            OPENDIR | OPEN => {
                // Each has a handle of its own: one directory may be read twice at a time.
                self.handles += 1;
                packet(102, asked.id, &text(format!("{}\0{}", asked.path, self.handles)))
            }
            READDIR | READ => status(asked.id, 1, "end"),
            7 | 8 | 17 => packet(105, asked.id, &attributes(4096, DIR, 7)),
            4 => status(asked.id, 0, ""),
            _ => status(asked.id, 4, "no"),
        }
    }
}

impl Transport for Scripted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.output.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = buffer.len().min(self.output.len());
        self.output.drain(..len).zip(buffer).for_each(|(from, to)| *to = from);
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.input.extend_from_slice(bytes);
        while let Some(len) = self.input.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize + 4) {
            if self.input.len() < len {
                break;
            }
            let packet: Vec<u8> = self.input.drain(..len).collect();
            self.answer(&packet);
        }
        Ok(bytes.len())
    }

    fn wait(&mut self, _: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        if self.output.is_empty() {
            let mut fds = [rustix::event::PollFd::from_borrowed_fd(wake, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec::try_from(timeout.min(Duration::from_millis(100))).ok();
            let _ = rustix::event::poll(&mut fds, limit.as_ref());
        }
        Ok(())
    }

    fn info(&self) -> TransportInfo {
        TransportInfo::default()
    }
}
