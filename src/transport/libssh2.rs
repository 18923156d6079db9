//! The default transport: one libssh2 session with one channel, driven without blocking.
//!
//! Connecting and logging in block, with a time limit; after that every call returns at once. libssh2 keeps one half-sent
//! packet for the whole session, so after "would block" the same bytes must be offered again, and waiting goes by
//! `block_directions` (polling for writability when the *window* is full would spin).

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use ssh2::{BlockDirections, Channel, ErrorCode, HashType, MethodType, Session};

use super::auth::{self, Trust};
use super::error::Cause;
use super::known_hosts::{self, KnownHosts, Verdict};
use super::ssh_config::Strict;
use super::{Endpoint, Prompt, Rates, Transport, TransportError, TransportInfo};
use crate::clock::Deadline;

/// Receive window of the channel, bytes. The default of 2 MiB caps reading at 42 MB/s over 50 ms; with this it is 118.
const WINDOW_BYTES: u32 = 64 * 1024 * 1024;
const PACKET_BYTES: u32 = 32 * 1024;
/// How long a server may take to send "SSH-2.0": one that sends nothing is no SSH server.
const BANNER_LIMIT: Duration = Duration::from_secs(10);

/// libssh2's error numbers that tell kinds of trouble apart.
const ERROR_KEX: [i32; 3] = [-5, -8, -33];
const ERROR_TIMEOUT: i32 = -9;
/// The server opens no channel.
const ERROR_CHANNEL_FAILURE: i32 = -21;
/// The server has no such subsystem.
const ERROR_DENIED: i32 = -22;
const ERROR_EAGAIN: i32 = -37;

/// Whether the server has started the SFTP subsystem.
enum Subsystem {
    /// The first requests go behind the request for it, in the same round trip.
    Requested {
        host: String,
    },
    Started,
}

struct LibSsh2 {
    session: Session,
    channel: Channel,
    stream: TcpStream,
    subsystem: Subsystem,
    info: TransportInfo,
    rates: Arc<Rates>,
}

pub(super) fn connect(
    endpoint: &Endpoint,
    prompt: &dyn Prompt,
    deadline: Deadline,
) -> Result<Box<dyn Transport>, TransportError> {
    let stream = reach(endpoint, deadline)?;
    let answered = expect_ssh(endpoint, &stream, deadline)?;
    let io = |error| TransportError::Io { host: endpoint.host.clone(), error };
    let mut session = Session::new().map_err(|e| io(e.into()))?;
    session.set_timeout(millis(deadline));
    session.set_compress(endpoint.rates.compress(answered));
    session.set_tcp_stream(stream.try_clone().map_err(io)?);
    let known = KnownHosts::read(&endpoint.host_keys);
    prefer_known_types(&session, endpoint, &known);
    session.handshake().map_err(|e| handshake_error(endpoint, e))?;
    let (host_key, trust) = check_host_key(&session, endpoint, &known, prompt)?;
    session.set_timeout(millis(deadline));
    let login = auth::login(&session, endpoint, prompt, trust)?;
    let channel = open_channel(&session, endpoint)?;
    session.set_blocking(false);
    let subsystem = Subsystem::Requested { host: endpoint.host.clone() };
    let peer = stream.peer_addr().map(|a| a.to_string()).unwrap_or_default();
    let compressed = session.methods(MethodType::CompSc).is_some_and(|method| method != "none");
    let software = session.banner().unwrap_or_default().to_owned();
    let info = TransportInfo { kind: "libssh2", host_key, peer, login, software, compressed };
    Ok(Box::new(LibSsh2 { session, channel, stream, subsystem, info, rates: endpoint.rates.clone() }))
}

fn millis(deadline: Deadline) -> u32 {
    // 0 would mean "no limit".
    u32::try_from(deadline.remaining().as_millis()).unwrap_or(u32::MAX).max(1)
}

/// Connects to the first address that answers, IPv4 before IPv6 (the platform's own tools force IPv4).
fn reach(endpoint: &Endpoint, deadline: Deadline) -> Result<TcpStream, TransportError> {
    let mut addresses = look_up(endpoint, deadline)?;
    addresses.sort_by_key(|a| matches!(a.ip(), IpAddr::V6(_)));
    let mut last = None;
    for address in &addresses {
        let left = deadline.remaining();
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(address, left) {
            Ok(stream) => {
                drop(stream.set_nodelay(true));
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    let detail = last.as_ref().map_or("no address".into(), io::Error::to_string);
    let (host, source) = (endpoint.address.clone(), last.map(Cause::from));
    Err(TransportError::Unreachable { host, port: endpoint.port, detail, source })
}

/// The resolver has no time limit: it runs on a thread of its own, which is abandoned when it takes too long.
fn look_up(endpoint: &Endpoint, deadline: Deadline) -> Result<Vec<SocketAddr>, TransportError> {
    let host = endpoint.address.clone();
    let no_such_host = |error: io::Error| TransportError::NoSuchHost {
        host: host.clone(),
        detail: error.to_string(),
        source: Some(error.into()),
    };
    let target = (endpoint.address.clone(), endpoint.port);
    let (sender, receiver) = mpsc::channel();
    std::thread::Builder::new()
        .name("resolver".into())
        .spawn(move || drop(sender.send(target.to_socket_addrs().map(Iterator::collect::<Vec<_>>))))
        .map_err(no_such_host)?;
    match receiver.recv_timeout(deadline.remaining()) {
        Ok(Ok(addresses)) if !addresses.is_empty() => Ok(addresses),
        Ok(Ok(_)) => Err(no_such_host(io::Error::other("no address"))),
        Ok(Err(error)) => Err(no_such_host(error)),
        Err(_) => Err(no_such_host(io::Error::other("no answer from the resolver"))),
    }
}

/// Looks at the first bytes without taking them: a web server on the port deserves a better message than "kex failure".
/// Returns how long the server took for them.
fn expect_ssh(endpoint: &Endpoint, stream: &TcpStream, deadline: Deadline) -> Result<Duration, TransportError> {
    let not_ssh = |detail: &str| TransportError::NotSsh {
        host: endpoint.address.clone(),
        port: endpoint.port,
        detail: detail.to_owned(),
        source: None,
    };
    let limit = deadline.remaining().min(BANNER_LIMIT).max(Duration::from_millis(1));
    let mut start = [0; 4];
    let began = Instant::now();
    drop(stream.set_read_timeout(Some(limit)));
    let seen = stream.peek(&mut start);
    let took = began.elapsed();
    drop(stream.set_read_timeout(None));
    match seen {
        Ok(0) => Err(not_ssh("it closed the connection at once")),
        // Some servers say other lines first (RFC 4253, 4.2); what begins like HTTP or with bytes outside ASCII does not.
        Ok(n) if start[..n].starts_with(b"SSH-"[..n].as_ref()) => Ok(took),
        Ok(n) if start[..n].starts_with(b"HTTP") || !start[..n].is_ascii() => {
            Err(not_ssh("it speaks another protocol"))
        }
        Ok(_) => Ok(took),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
            Err(not_ssh("it sends nothing"))
        }
        Err(error) => Err(TransportError::Io { host: endpoint.address.clone(), error }),
    }
}

/// Asks for the key types that are known first. Certificates are left out: libssh2 cannot check their authority.
fn prefer_known_types(session: &Session, endpoint: &Endpoint, known: &KnownHosts) {
    let types = known.key_types(&endpoint.host_keys.name, endpoint.host_keys.port);
    let mut wanted: Vec<&str> = Vec::new();
    for kind in &types {
        match kind.as_str() {
            // One key, three signature algorithms; SHA-1 is not compiled in.
            "ssh-rsa" => wanted.extend(["rsa-sha2-512", "rsa-sha2-256"]),
            other => wanted.push(other),
        }
    }
    let supported = session.supported_algs(MethodType::HostKey).unwrap_or_default();
    wanted.extend(supported.iter().filter(|algorithm| !algorithm.contains("cert")));
    wanted.retain(|algorithm| supported.contains(algorithm));
    let mut list: Vec<&str> = Vec::new();
    wanted.into_iter().for_each(|a| {
        if !list.contains(&a) {
            list.push(a)
        }
    });
    if !list.is_empty() {
        drop(session.method_pref(MethodType::HostKey, &list.join(",")));
    }
}

fn handshake_error(endpoint: &Endpoint, error: ssh2::Error) -> TransportError {
    let (host, detail, code) = (endpoint.host.clone(), error.message().to_owned(), error.code());
    let source: Option<Cause> = Some(error.into());
    match code {
        ErrorCode::Session(code) if ERROR_KEX.contains(&code) => {
            TransportError::NoCommonAlgorithm { host, detail, source }
        }
        ErrorCode::Session(ERROR_TIMEOUT | ERROR_EAGAIN) => TransportError::Timeout { host },
        _ => TransportError::NotSsh { host: endpoint.address.clone(), port: endpoint.port, detail, source },
    }
}

fn check_host_key(
    session: &Session,
    endpoint: &Endpoint,
    known: &KnownHosts,
    prompt: &dyn Prompt,
) -> Result<(String, Trust), TransportError> {
    let policy = &endpoint.host_keys;
    let (host, port) = (endpoint.host.clone(), endpoint.port);
    let Some((key, _)) = session.host_key() else {
        return Err(TransportError::NotSsh { host, port, detail: "it shows no host key".into(), source: None });
    };
    debug_assert!(session.host_key_hash(HashType::Sha256).is_some());
    let fingerprint = known_hosts::fingerprint(key);
    match known.verdict(&policy.name, policy.port, key) {
        Verdict::Known => {}
        Verdict::Revoked(file) => return Err(TransportError::HostKeyRevoked { host, fingerprint, file }),
        Verdict::Changed(file) if policy.strict != Strict::No => {
            let entry = known_hosts::lookup_name(&policy.name, policy.port);
            return Err(TransportError::HostKeyChanged { host, fingerprint, entry, file });
        }
        Verdict::Changed(_) => {
            prompt.tell(&format!(
                "{host}: THE HOST KEY CHANGED; accepted, since checking is off, but no password is sent"
            ));
            return Ok((fingerprint, Trust::None));
        }
        Verdict::Unknown => {
            if !accept_new(endpoint, &fingerprint, prompt) {
                return Err(TransportError::HostKeyUnknown { host, fingerprint });
            }
            remember(endpoint, key, &fingerprint, prompt);
        }
    }
    Ok((fingerprint, Trust::Host))
}

fn accept_new(endpoint: &Endpoint, fingerprint: &str, prompt: &dyn Prompt) -> bool {
    let question = || format!("{}: new host key {fingerprint}. Connect and remember it?", endpoint.host);
    match endpoint.host_keys.strict {
        Strict::Yes => false,
        Strict::AcceptNew | Strict::No => true,
        Strict::Ask => prompt.confirm(&question()).unwrap_or(false),
    }
}

fn remember(endpoint: &Endpoint, key: &[u8], fingerprint: &str, prompt: &dyn Prompt) {
    let Some(file) = endpoint.host_keys.files.first() else { return };
    match known_hosts::remember(file, &endpoint.host_keys.name, endpoint.host_keys.port, key) {
        Ok(()) => log::info!("{}: host key {fingerprint} added to {}", endpoint.host, file.display()),
        Err(error) => prompt.tell(&format!("{}: the host key could not be remembered: {error}", file.display())),
    }
}

fn open_channel(session: &Session, endpoint: &Endpoint) -> Result<Channel, TransportError> {
    let opened = session.channel_open("session", WINDOW_BYTES, PACKET_BYTES, None);
    opened.map_err(|error| match error.code() {
        ErrorCode::Session(ERROR_TIMEOUT) => TransportError::Timeout { host: endpoint.host.clone() },
        ErrorCode::Session(ERROR_CHANNEL_FAILURE) => no_subsystem(endpoint.host.clone(), error),
        // The connection ended before the server answered.
        _ => {
            let error = io::Error::new(io::ErrorKind::ConnectionReset, error);
            TransportError::Io { host: endpoint.host.clone(), error }
        }
    })
}

fn no_subsystem(host: String, error: ssh2::Error) -> TransportError {
    TransportError::NoSubsystem { host, detail: error.message().to_owned(), source: Some(error.into()) }
}

impl LibSsh2 {
    /// Requests the SFTP subsystem, and later looks for the answer. Returns whether data may be written behind the request.
    ///
    /// # Errors
    ///
    /// The server has no such subsystem ([`TransportError::NoSubsystem`] inside), or the connection is gone.
    fn start_subsystem(&mut self) -> io::Result<bool> {
        let Subsystem::Requested { host } = &self.subsystem else { return Ok(true) };
        match self.channel.subsystem("sftp") {
            Ok(()) => self.subsystem = Subsystem::Started,
            Err(error) if error.code() == ErrorCode::Session(ERROR_EAGAIN) => return Ok(!self.has_half_a_packet()),
            Err(error) if error.code() == ErrorCode::Session(ERROR_DENIED) => {
                return Err(io::Error::other(no_subsystem(host.clone(), error)));
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    fn has_half_a_packet(&self) -> bool {
        matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
    }

    /// Takes what came off the socket into libssh2's queue, at most a receive window. A read of the channel does not while
    /// it has to enlarge that window first and cannot, because half a packet waits before it; and a server that writes
    /// before it reads again would never take the other half.
    fn drain(&mut self) -> io::Result<()> {
        match self.channel.wait_eof().map_err(io::Error::from) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

impl Transport for LibSsh2 {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.start_subsystem()?;
        match self.channel.read(buffer) {
            Ok(0) if !self.channel.eof() => Err(io::ErrorKind::WouldBlock.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && self.has_half_a_packet() => {
                self.drain()?;
                Err(error)
            }
            other => other,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !self.start_subsystem()? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.channel.write(bytes)
    }

    fn wait(&mut self, want_write: bool, wake: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
        let mut flags = PollFlags::IN;
        flags.set(PollFlags::OUT, want_write && self.has_half_a_packet());
        wait_for(
            &mut [PollFd::from_borrowed_fd(self.stream.as_fd(), flags), PollFd::from_borrowed_fd(wake, PollFlags::IN)],
            timeout,
        )
    }

    fn info(&self) -> TransportInfo {
        self.info.clone()
    }

    fn report_rate(&mut self, rate: u64) -> bool {
        self.rates.measured(self.info.compressed, rate)
    }
}

/// Polls; an interrupted wait is over early, which every caller expects anyway.
pub(super) fn wait_for(fds: &mut [PollFd<'_>], timeout: Duration) -> io::Result<()> {
    let timeout = Timespec::try_from(timeout).ok();
    match poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
