//! A link with a latency and a bandwidth: a delay line per direction, so that much data can be on its way at once, as on a
//! real link. It can be cut, and it can stop carrying data without ending connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// How a link behaves. Cheap to clone; changes also affect existing connections.
#[derive(Clone)]
pub struct LinkConfig(Arc<Inner>);

struct Inner {
    rtt_micros: AtomicU64,
    /// Per direction; 0: unlimited.
    bytes_per_second: AtomicU64,
    silent: AtomicBool,
    /// Connections up to this number are silent for ever.
    abandoned: AtomicU64,
    joined: AtomicU64,
    /// Connections up to this number are to end.
    cut: watch::Sender<u64>,
}

/// Bytes taken from the sender at a time.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks on the line: enough for 1 Gbit/s at 300 ms.
const MAX_CHUNKS: usize = 1024;
/// Waits shorter than this are not worth a timer.
const TIMER_GRAIN: Duration = Duration::from_micros(500);
/// How often a silent link checks whether it may carry data again.
const SILENT_TICK: Duration = Duration::from_millis(20);

impl LinkConfig {
    /// `mbit` per second and direction; 0: unlimited.
    pub fn new(rtt: Duration, mbit: u64) -> Self {
        let (cut, _) = watch::channel(0);
        let inner = Inner {
            rtt_micros: AtomicU64::new(0),
            bytes_per_second: AtomicU64::new(0),
            silent: AtomicBool::new(false),
            abandoned: AtomicU64::new(0),
            joined: AtomicU64::new(0),
            cut,
        };
        let link = Self(Arc::new(inner));
        link.set_rtt(rtt);
        link.set_mbit(mbit);
        link
    }

    /// Changes the round trip.
    pub fn set_rtt(&self, rtt: Duration) {
        self.0.rtt_micros.store(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Changes the bandwidth per direction, in Mbit/s; 0: unlimited.
    pub fn set_mbit(&self, mbit: u64) {
        self.0.bytes_per_second.store(mbit.saturating_mul(1_000_000 / 8), Ordering::Relaxed);
    }

    /// The round trip.
    pub fn rtt(&self) -> Duration {
        Duration::from_micros(self.0.rtt_micros.load(Ordering::Relaxed))
    }

    /// Stops or resumes carrying data, without ending connections.
    pub fn set_silent(&self, silent: bool) {
        self.0.silent.store(silent, Ordering::Relaxed);
    }

    /// Stops carrying data of existing connections for good, without ending them; new connections work.
    pub fn abandon(&self) {
        self.0.abandoned.store(self.0.joined.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Ends every connection.
    pub fn cut(&self) {
        self.0.cut.send_replace(self.0.joined.load(Ordering::Relaxed));
    }

    /// Ends every connection but the newest.
    pub(super) fn cut_older(&self) {
        self.0.cut.send_replace(self.0.joined.load(Ordering::Relaxed).saturating_sub(1));
    }

    fn silent(&self, number: u64) -> bool {
        self.0.silent.load(Ordering::Relaxed) || number <= self.0.abandoned.load(Ordering::Relaxed)
    }

    /// Carries bytes both ways until one side ends or the link is cut.
    pub(super) async fn join<A, B>(&self, a: A, b: B)
    where
        A: AsyncRead + AsyncWrite + Send + 'static,
        B: AsyncRead + AsyncWrite + Send + 'static,
    {
        let mut cut = self.0.cut.subscribe();
        let number = self.0.joined.fetch_add(1, Ordering::Relaxed) + 1;
        let (a_in, a_out) = tokio::io::split(a);
        let (b_in, b_out) = tokio::io::split(b);
        tokio::select! {
            () = self.pump(number, a_in, b_out) => {}
            () = self.pump(number, b_in, a_out) => {}
            _ = cut.wait_for(|last| number <= *last) => {}
        }
    }

    async fn pump(&self, number: u64, mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
        let (sender, mut receiver) = mpsc::channel::<(Instant, Vec<u8>)>(MAX_CHUNKS);
        let take = async move {
            let mut free_at = Instant::now();
            // Most packets are short: clearing so many bytes for each would take longer than carrying it.
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                let chunk = match from.read(&mut buffer).await {
                    Ok(n) if n > 0 => buffer[..n].to_vec(),
                    _ => return,
                };
                free_at = free_at.max(Instant::now()) + self.sending_time(chunk.len());
                if sender.send((free_at + self.rtt() / 2, chunk)).await.is_err() {
                    return;
                }
            }
        };
        let give = async {
            while let Some((due, chunk)) = receiver.recv().await {
                // Timers have a resolution of a millisecond: rounding every packet up to it would make a link of 0 ms slow.
                if due > Instant::now() + TIMER_GRAIN {
                    tokio::time::sleep_until(due.into()).await;
                }
                while self.silent(number) {
                    tokio::time::sleep(SILENT_TICK).await;
                }
                if to.write_all(&chunk).await.is_err() || to.flush().await.is_err() {
                    return;
                }
            }
            // All data has arrived: now the other side may see the end.
            let _ = to.shutdown().await;
        };
        tokio::join!(take, give);
    }

    fn sending_time(&self, bytes: usize) -> Duration {
        match self.0.bytes_per_second.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(bytes as f64 / rate as f64),
        }
    }
}

/// Puts the link in front of a server: connections to `port` on 127.0.0.1 are carried to `target`. Calls `ready` with the
/// address that it listens on, and runs until the process ends.
///
/// # Errors
///
/// The port cannot be opened.
pub fn run_link(target: &str, port: u16, link: &LinkConfig, ready: impl FnOnce(SocketAddr)) -> io::Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        ready(listener.local_addr()?);
        loop {
            let (client, _) = listener.accept().await?;
            let (target, link) = (target.to_owned(), link.clone());
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(&target).await else { return };
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                link.join(client, server).await;
            });
        }
    })
}
