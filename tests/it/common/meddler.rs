//! Between us and a server, packet by packet: requests that are answered with an error instead of being passed on, answers
//! that come late, in another order, twice, never, or are no answers at all; and another writer between two requests.

use parking_lot::Mutex;
use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use pantheonfs::transport::{Transport, TransportInfo};

/// What becomes of one request.
pub enum Fate {
    Pass,
    /// It never reaches the server; this status (code, message) comes back.
    Refuse(u32, &'static str),
    /// It never reaches the server, and nothing comes back.
    Swallow,
}

type OnRequest = dyn Fn(u64, u8) -> Fate + Send + Sync;
type OnReply = dyn Fn(u64, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync;
type Act = Box<dyn FnOnce() + Send>;

/// What to do with packets. Requests and replies are counted from 0 after the version was exchanged, over all connections.
#[derive(Default)]
pub struct Plan {
    on_request: Mutex<Option<Arc<OnRequest>>>,
    on_reply: Mutex<Option<Arc<OnReply>>>,
    /// Replies are handed out in this many at a time, last first.
    shuffle: AtomicU64,
    pub requests: AtomicU64,
    replies: AtomicU64,
    pub refused: AtomicU64,
    /// Requests with a handle that is not open: the server may have given it to another file.
    pub misused: AtomicU64,
    /// What happens on the server after so many more requests, with all of them answered.
    between: Mutex<Option<(u64, Act)>>,
    /// So many answers still arrive; the connection is lost with the next one, which the server has sent.
    answers_left: Mutex<Option<u64>>,
    /// Shared by the clients of a server.
    links: Mutex<Option<Arc<AtomicBool>>>,
}

impl Plan {
    /// `act` happens once, between two requests: `after` more of them are carried out before it, and none is under way. It
    /// never comes between a hard link and the request behind it: no client can see what happens there.
    #[allow(dead_code)] // tests/model.rs
    pub fn between(&self, after: u64, act: impl FnOnce() + Send + 'static) {
        *self.between.lock() = Some((after, Box::new(act)));
    }

    /// The connection is lost with the answer that comes after so many others.
    pub fn lose_answer(&self, after: u64) {
        *self.answers_left.lock() = Some(after);
    }

    /// The clients that share `links` do not come between a hard link of another one and the request behind it.
    #[allow(dead_code)] // tests/model.rs
    pub fn share_links(&self, links: Arc<AtomicBool>) {
        *self.links.lock() = Some(links);
    }

    /// Nothing more is planned by [`Plan::between`] and [`Plan::lose_answer`].
    #[allow(dead_code)] // tests/model.rs
    pub fn calm(&self) {
        *self.between.lock() = None;
        *self.answers_left.lock() = None;
    }

    fn is_lost_with_this_answer(&self) -> bool {
        let mut left = self.answers_left.lock();
        let Some(count) = left.as_mut() else { return false };
        if *count > 0 {
            *count -= 1;
            return false;
        }
        *left = None;
        true
    }

    pub fn on_request(&self, fate: impl Fn(u64, u8) -> Fate + Send + Sync + 'static) {
        self.requests.store(0, Ordering::Relaxed);
        *self.on_request.lock() = Some(Arc::new(fate));
    }

    /// `change` gets the number of the reply and the packet (with its length), and returns what arrives instead.
    pub fn on_reply(&self, change: impl Fn(u64, Vec<u8>) -> Vec<Vec<u8>> + Send + Sync + 'static) {
        self.replies.store(0, Ordering::Relaxed);
        *self.on_reply.lock() = Some(Arc::new(change));
    }

    pub fn shuffle(&self, at_a_time: u64) {
        self.shuffle.store(at_a_time, Ordering::Relaxed);
    }
}

/// See the module header.
pub struct Meddler {
    inner: Box<dyn Transport>,
    plan: Arc<Plan>,
    /// Written by the client, not a whole packet yet.
    outgoing: Vec<u8>,
    /// Whole packets for the server.
    to_server: VecDeque<u8>,
    incoming: Vec<u8>,
    /// Whole packets that wait for their turn.
    held: Vec<Vec<u8>>,
    to_client: VecDeque<u8>,
    /// Handles that the server has given out.
    open: HashSet<Vec<u8>>,
    /// Requests that the server has not answered.
    under_way: u64,
    /// The last request was a hard link.
    linked: bool,
    /// Told to the other clients from a hard link on, until nothing is under way.
    linking: Option<Arc<AtomicBool>>,
    lost: bool,
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.end_linking();
    }
}

/// The handle, in the packet of a reply or request that begins with one.
fn handle(packet: &[u8]) -> Option<&[u8]> {
    let len = u32::from_be_bytes(packet.get(9..13)?.try_into().ok()?) as usize;
    packet.get(13..13 + len)
}

/// The first packet of a whole one in `bytes`.
fn split(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = bytes.get(..4)?;
    let len = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize + 4;
    (bytes.len() >= len).then(|| bytes.drain(..len).collect())
}

/// Whether the first of these packets asks for a hard link.
fn is_link(packets: &[u8]) -> bool {
    packets.get(4) == Some(&200) && packets.get(13..21) == Some(b"hardlink")
}

/// A status packet.
pub fn status(id: [u8; 4], code: u32, message: &str) -> Vec<u8> {
    let mut body = vec![101];
    body.extend(id);
    body.extend(code.to_be_bytes());
    for text in [message, ""] {
        body.extend((text.len() as u32).to_be_bytes());
        body.extend(text.as_bytes());
    }
    [(body.len() as u32).to_be_bytes().to_vec(), body].concat()
}

impl Meddler {
    pub fn new(inner: Box<dyn Transport>, plan: Arc<Plan>) -> Self {
        let (outgoing, incoming, held) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            inner,
            plan,
            outgoing,
            to_server: VecDeque::new(),
            incoming,
            held,
            to_client: VecDeque::new(),
            open: HashSet::new(),
            under_way: 0,
            linked: false,
            linking: None,
            lost: false,
        }
    }

    /// Whether another client is between a hard link and the request behind it. A hard link keeps the others out.
    fn others_link(&mut self) -> bool {
        let Some(links) = self.plan.links.lock().clone().filter(|_| self.linking.is_none()) else { return false };
        if !is_link(&self.outgoing) {
            return links.load(Ordering::Acquire);
        }
        let taken = links.swap(true, Ordering::AcqRel);
        self.linking = Some(links).filter(|_| !taken);
        taken
    }

    fn end_linking(&mut self) {
        if let Some(links) = self.linking.take() {
            links.store(false, Ordering::Release);
        }
    }

    /// Whether the next request has to wait until those before it are answered. If another writer is due, it acts now.
    fn must_wait(&mut self) -> bool {
        let mut between = self.plan.between.lock();
        let Some((left, _)) = between.as_mut() else { return false };
        if *left > 0 {
            *left -= 1;
            return false;
        }
        if self.linked || self.under_way > 0 {
            return !self.linked;
        }
        let act = between.take();
        drop(between);
        if let Some((_, act)) = act {
            act();
        }
        false
    }

    fn sort_requests(&mut self) {
        loop {
            // Type 1 is the exchange of versions.
            let whole = self.outgoing.get(..4).is_some_and(|head| {
                self.outgoing.len() >= 4 + u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize
            });
            if whole && self.outgoing[4] != 1 && (self.others_link() || self.must_wait()) {
                return;
            }
            let Some(packet) = split(&mut self.outgoing) else { return };
            self.follow_request(&packet);
            let (kind, id) = (packet[4], packet.get(5..9).and_then(|id| <[u8; 4]>::try_from(id).ok()));
            self.linked = is_link(&packet);
            let hook = self.plan.on_request.lock().clone();
            let (Some(hook), Some(id)) = (hook.filter(|_| kind != 1), id) else {
                self.under_way += u64::from(kind != 1);
                self.to_server.extend(packet);
                continue;
            };
            match hook(self.plan.requests.fetch_add(1, Ordering::Relaxed), kind) {
                Fate::Pass => {
                    self.under_way += 1;
                    self.to_server.extend(packet);
                }
                Fate::Refuse(code, message) => {
                    self.plan.refused.fetch_add(1, Ordering::Relaxed);
                    self.to_client.extend(status(id, code, message));
                }
                Fate::Swallow => {}
            }
        }
    }

    fn follow_request(&mut self, packet: &[u8]) {
        let is_open = match (packet[4], handle(packet)) {
            // CLOSE; READ, WRITE, FSTAT, FSETSTAT, READDIR.
            (4, Some(handle)) => self.open.remove(handle),
            (5 | 6 | 8 | 10 | 12, Some(handle)) => self.open.contains(handle),
            _ => true,
        };
        self.plan.misused.fetch_add(u64::from(!is_open), Ordering::Relaxed);
    }

    fn push(&mut self) -> io::Result<()> {
        while !self.to_server.is_empty() {
            let (front, _) = self.to_server.as_slices();
            let n = self.inner.write(front)?;
            self.to_server.drain(..n);
        }
        Ok(())
    }

    fn sort_replies(&mut self) {
        while let Some(packet) = split(&mut self.incoming) {
            if packet[4] == 2 {
                // The version comes before all answers.
                self.to_client.extend(packet);
                continue;
            }
            self.under_way -= 1;
            if self.under_way == 0 && !self.linked {
                self.end_linking();
            }
            if self.plan.is_lost_with_this_answer() {
                self.lost = true;
                self.end_linking();
                return;
            }
            if let (102, Some(handle)) = (packet[4], handle(&packet)) {
                self.open.insert(handle.to_vec());
            }
            let hook = self.plan.on_reply.lock().clone();
            match hook {
                Some(hook) => self.held.extend(hook(self.plan.replies.fetch_add(1, Ordering::Relaxed), packet)),
                None => self.held.push(packet),
            }
        }
    }

    fn release(&mut self, all: bool) {
        let shuffle = self.plan.shuffle.load(Ordering::Relaxed) as usize;
        if all || self.held.len() >= shuffle {
            for packet in self.held.drain(..).rev() {
                self.to_client.extend(packet);
            }
        }
    }
}

impl Transport for Meddler {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.to_client.is_empty() && self.lost {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if self.to_client.is_empty() {
            let mut bytes = vec![0; 64 * 1024];
            match self.inner.read(&mut bytes) {
                Ok(0) => return Ok(0),
                Ok(n) => {
                    self.incoming.extend_from_slice(&bytes[..n]);
                    self.sort_replies();
                    self.release(self.lost);
                    // Those that waited for an answer.
                    self.sort_requests();
                    match self.push() {
                        Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                        _ => {}
                    }
                }
                // Nothing more is coming for now: whoever was held back may go.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.release(true);
                    // Those that waited for another client.
                    self.sort_requests();
                }
                Err(error) => return Err(error),
            }
        }
        if self.to_client.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let n = buffer.len().min(self.to_client.len());
        self.to_client.drain(..n).zip(buffer).for_each(|(from, to)| *to = from);
        Ok(n)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.lost {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        match self.push() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Err(_) if self.to_server.len() > 1 << 20 => return Err(io::ErrorKind::WouldBlock.into()),
            _ => {}
        }
        self.outgoing.extend_from_slice(bytes);
        self.sort_requests();
        match self.push() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(bytes.len()),
        }
    }

    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        if !self.to_client.is_empty() || self.lost {
            return Ok(());
        }
        match self.push() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        let want_write = want_write || !self.to_server.is_empty();
        self.inner.wait(want_write, wake, timeout.min(Duration::from_millis(5)))
    }

    fn info(&self) -> TransportInfo {
        self.inner.info()
    }
}
