//! A relay in front of a server that counts round trips on the level of TCP, the one in which TCP connects included.
//!
//! All of the delay is on the way to the server. What the client sends belongs to the round after the newest answer that the
//! relay has handed to it, and an answer to the newest round that has reached the server.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// See the module header.
pub struct Turns {
    port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU32,
    /// The newest round whose answer the first connection has.
    answered: AtomicU32,
}

impl Turns {
    /// Before the server on this port.
    pub fn before(server: u16, rtt: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let first = counted.connections.fetch_add(1, Ordering::SeqCst) == 0;
                let counts = if first { counted.clone() } else { Arc::default() };
                std::thread::spawn(move || carry(client, server, rtt, &counts));
            }
        });
        Self { port, counts }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connections(&self) -> u32 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    /// Round trips of the first connection so far.
    pub fn rounds(&self) -> u32 {
        self.counts.answered.load(Ordering::SeqCst)
    }
}

/// Until one side ends.
fn carry(client: TcpStream, server: u16, rtt: Duration, counts: &Counts) {
    counts.answered.store(1, Ordering::SeqCst);
    // The connection itself, and its last packet, with which the server may begin to speak.
    let reached = AtomicU32::new(2);
    let (sender, queue) = mpsc::channel::<(Instant, u32, Vec<u8>)>();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = vec![0; 65_536];
            while let Ok(len @ 1..) = (&client).read(&mut buffer) {
                let round = counts.answered.load(Ordering::SeqCst) + 1;
                if sender.send((Instant::now() + rtt, round, buffer[..len].to_vec())).is_err() {
                    break;
                }
            }
            drop(sender);
        });
        std::thread::sleep(rtt * 2);
        let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (to, arrived) = (server.try_clone().expect("cloned"), &reached);
        scope.spawn(move || {
            for (due, round, bytes) in queue {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                arrived.fetch_max(round, Ordering::SeqCst);
                if (&to).write_all(&bytes).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        let mut buffer = vec![0; 65_536];
        while let Ok(len @ 1..) = (&server).read(&mut buffer) {
            counts.answered.fetch_max(reached.load(Ordering::SeqCst), Ordering::SeqCst);
            if (&client).write_all(&buffer[..len]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
}
