//! The SFTP engine: a server that sends any bytes at all, against requests that wait. Each gets exactly one answer, within
//! its time limit, whatever comes.
//!
//! An input is two bytes that say how the stream arrives, and the stream: the version packet first.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use pantheonfs::clock::Deadline;
use pantheonfs::sftp::{Class, Config, Engine, RawAttrs, Request};
use pantheonfs::transport::{Transport, TransportInfo};

use super::driver::Target;
use super::{as_it_is, must};

#[test]
fn engine() {
    Target { name: "engine", cases: 1024, seal: as_it_is, check, budget }.run();
}

/// Buffers for reading (256 KiB and 64 KiB, once per read), the input a few times over, what the replies hold.
fn budget(len: usize) -> usize {
    3 * 1024 * 1024 + 100 * len
}

/// How long an answer may take; a stream that ends without being closed costs this much.
const LIMIT: Duration = Duration::from_millis(40);
/// By then everything must be over, on a busy machine, too.
const OVER: Duration = Duration::from_secs(20);

/// One of each kind.
pub fn requests() -> Vec<Request> {
    let (path, handle) = (|| b"x".to_vec(), || vec![0, 0, 0, 0]);
    let attrs = RawAttrs { perm: Some(0o644), ..RawAttrs::default() };
    vec![
        Request::RealPath { path: b".".to_vec() },
        Request::OpenDir { path: b".".to_vec() },
        Request::ReadDir { handle: handle() },
        Request::ReadDir { handle: handle() },
        Request::Close { handle: handle() },
        Request::Lstat { path: path() },
        Request::Stat { path: path() },
        Request::Open { path: path(), flags: 1, perm: None },
        Request::Fstat { handle: handle() },
        Request::Read { handle: handle(), offset: 0, len: 1000 },
        Request::Read { handle: handle(), offset: 1 << 40, len: 1000 },
        Request::Close { handle: handle() },
        Request::SetStat { path: path(), attrs },
        Request::FsetStat { handle: handle(), attrs },
        Request::ReadLink { path: b"link".to_vec() },
        Request::MkDir { path: b"d".to_vec(), perm: 0o755 },
        Request::Rename { from: b"d".to_vec(), to: b"e".to_vec() },
        Request::RmDir { path: b"e".to_vec() },
        Request::Symlink { text: b"x".to_vec(), link: b"new".to_vec(), link_first: false },
        Request::Remove { path: b"new".to_vec() },
        Request::Write { handle: handle(), offset: 0, data: vec![7; 100] },
        Request::Extended { name: "statvfs@openssh.com", payload: vec![0, 0, 0, 1, b'.'] },
    ]
}

/// A server that says what is written down, and goes on to the next packet when it was asked the next thing: an answer that
/// comes before its request would end every case at once.
struct Script {
    stream: Vec<u8>,
    at: usize,
    /// Ends of the packets, as far as there are any.
    ends: Vec<usize>,
    chunk: usize,
    silent: bool,
    written: VecDeque<u8>,
    asked: usize,
}

impl Script {
    fn new(input: &[u8]) -> Self {
        let (how, stream) = input.split_at(input.len().min(2));
        let (chunk, mode) = (how.first().copied().unwrap_or(0), how.get(1).copied().unwrap_or(0));
        let (mut ends, mut at) = (Vec::new(), 0);
        while let Some(len) = stream[at..].first_chunk::<4>().map(|bytes| u32::from_be_bytes(*bytes) as usize) {
            at = at.saturating_add(4).saturating_add(len);
            if at >= stream.len() {
                break;
            }
            ends.push(at);
        }
        let chunk = if chunk < 128 { 1 << 20 } else { usize::from(chunk - 127) * 3 };
        let stream = stream.to_vec();
        Self { stream, at: 0, ends, chunk, silent: mode >= 240, written: VecDeque::new(), asked: 0 }
    }

    /// Up to where it may speak by now.
    fn allowed(&self) -> usize {
        self.ends.get(self.asked).copied().unwrap_or(self.stream.len())
    }
}

impl Transport for Script {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let until = self.allowed();
        if self.at >= self.stream.len() {
            return if self.silent { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(0) };
        }
        if self.at >= until {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let len = (until - self.at).min(self.chunk).min(buffer.len());
        buffer[..len].copy_from_slice(&self.stream[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.written.extend(bytes);
        loop {
            let head: Vec<u8> = self.written.iter().take(5).copied().collect();
            let [a, b, c, d, kind] = head[..] else { return Ok(bytes.len()) };
            let len = u32::from_be_bytes([a, b, c, d]) as usize + 4;
            if self.written.len() < len {
                return Ok(bytes.len());
            }
            self.written.drain(..len);
            // 1 is the exchange of versions.
            self.asked += usize::from(kind != 1);
        }
    }

    fn wait(&mut self, _: bool, _: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        std::thread::sleep(timeout.min(Duration::from_micros(200)));
        Ok(())
    }

    fn info(&self) -> TransportInfo {
        TransportInfo::default()
    }
}

fn check(input: &[u8]) -> Result<(), String> {
    let (closed, ended) = mpsc::channel();
    let script = Box::new(Script::new(input));
    let config = Config { timeout: LIMIT };
    let began = Instant::now();
    let over = move |error| drop(closed.send(error));
    let engine = match Engine::start(script, config, Vec::new(), Deadline::after(LIMIT), over) {
        Ok((engine, _)) => engine,
        Err(_) => return must(began.elapsed() < OVER, "the greeting took for ever"),
    };
    let requests = requests();
    let answers: Arc<Vec<AtomicU32>> = Arc::new(requests.iter().map(|_| AtomicU32::new(0)).collect());
    let (answered, all) = mpsc::channel();
    for (number, request) in requests.into_iter().enumerate() {
        let (answers, answered) = (answers.clone(), answered.clone());
        let class = if number.is_multiple_of(3) { Class::Background } else { Class::Interactive };
        engine.submit(request, class, move |_| {
            answers[number].fetch_add(1, Ordering::SeqCst);
            let _ = answered.send(());
        });
    }
    drop(answered);
    let until = Instant::now() + OVER;
    for _ in 0..answers.len() {
        let left = until.saturating_duration_since(Instant::now());
        must(all.recv_timeout(left).is_ok(), "a request was never answered")?;
    }
    drop(engine);
    must(ended.recv_timeout(OVER).is_ok(), "the end was not said")?;
    must(ended.recv().is_err(), "the end was said twice")?;
    let counts: Vec<u32> = answers.iter().map(|count| count.load(Ordering::SeqCst)).collect();
    must(counts.iter().all(|count| *count == 1), format!("answers per request: {counts:?}"))
}
