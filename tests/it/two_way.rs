//! Both directions of one connection at once: neither side may stop reading because it cannot write.

use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pantheonfs::clock::Deadline;
use pantheonfs::sim::{Sim, SimConfig};
use pantheonfs::transport::Transport;
use rustix::event::{EventfdFlags, eventfd};

use crate::common::scripted::{OPEN, READ, packet, text};
use crate::common::{eventually, sim_remote};

const LIMIT: Duration = Duration::from_secs(10);
const LSTAT: u8 = 7;

/// A connection on which the test decides what goes into one SSH packet: each [`Wire::send`] is one.
struct Wire(Box<dyn Transport>);

impl Wire {
    fn wait(&mut self, want_write: bool) {
        let wake = eventfd(0, EventfdFlags::CLOEXEC).expect("made");
        self.0.wait(want_write, wake.as_fd(), Duration::from_millis(50)).expect("waited");
    }

    /// How much of it went.
    fn offer(&mut self, bytes: &[u8]) -> usize {
        match self.0.write(bytes) {
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        loop {
            match self.offer(bytes) {
                0 => self.wait(true),
                n => return assert_eq!(n, bytes.len(), "one packet"),
            }
        }
    }

    fn answers(&mut self, wanted: usize) -> usize {
        self.answers_while_sending(wanted, &[])
    }

    /// Takes answers until there are `wanted` or none came for the limit; says how many came. What is to be sent beside goes
    /// as it can.
    fn answers_while_sending(&mut self, wanted: usize, mut output: &[u8]) -> usize {
        let (mut until, mut input, mut count) = (Instant::now() + LIMIT, Vec::new(), 0);
        let mut buffer = vec![0; 64 * 1024];
        while count < wanted && Instant::now() < until {
            if !output.is_empty() {
                output = &output[self.offer(output)..];
            }
            match self.0.read(&mut buffer) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(n) => input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(!output.is_empty()),
                Err(error) => panic!("{error}"),
            }
            while let Some(len) = input.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize + 4) {
                if input.len() < len {
                    break;
                }
                input.drain(..len);
                count += 1;
                until = Instant::now() + LIMIT;
            }
        }
        count
    }
}

fn request(kind: u8, id: usize, path: &str, rest: &[u8]) -> Vec<u8> {
    packet(kind, (id as u32).to_be_bytes(), &[&text(path), rest].concat())
}

/// Requests that arrive while the server is busy with one of them are answered afterwards, however many they are. Opening
/// a FIFO takes as long as the test wants.
#[test]
fn the_simulator_answers_all_that_came_while_it_was_busy() {
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let fifo = sim.home("dev").join("code/fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs").success());
    let mut wire = Wire(sim_remote::dial(&sim)(Deadline::after(LIMIT)).expect("connected"));
    wire.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
    assert_eq!(wire.answers(1), 1, "the version");
    let (together, apart) = (40, 300);
    let mut first = request(OPEN, 0, "code/fifo", &[0, 0, 0, 1, 0, 0, 0, 0]);
    (1..together).for_each(|id| first.extend(request(LSTAT, id, "code", &[])));
    wire.send(&first);
    (0..apart).for_each(|id| wire.send(&request(LSTAT, together + id, "code", &[])));
    // Time for them to arrive: with less of it the test sees less.
    thread::sleep(Duration::from_millis(500));
    let mut released = None;
    eventually("the FIFO is being opened", || {
        released = File::options().write(true).custom_flags(libc::O_NONBLOCK).open(&fifo).ok();
        released.is_some()
    });
    assert_eq!(wire.answers(together + apart), together + apart);
}

/// Carries one connection like a server that does one thing at a time: as long as it has something to say, it does not
/// listen. Gives the port.
fn half_duplex(target: u16) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    thread::spawn(move || -> std::io::Result<()> {
        let mut client = listener.accept()?.0;
        let mut server = TcpStream::connect(("127.0.0.1", target))?;
        server.set_read_timeout(Some(Duration::from_millis(100)))?;
        client.set_read_timeout(Some(Duration::from_millis(1)))?;
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let mut carry = |from: &mut TcpStream, to: &mut TcpStream| match from.read(&mut buffer) {
                Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => to.write_all(&buffer[..n]).map(|()| true),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
                Err(error) => Err(error),
            };
            while carry(&mut server, &mut client)? {}
            carry(&mut client, &mut server)?;
        }
    });
    port
}

/// The client has half a packet sent when its receive window is to be enlarged: it must go on reading, or a server that does
/// one thing at a time never takes the other half.
#[test]
fn the_client_reads_on_while_it_cannot_write() {
    let sim = Sim::start(&SimConfig::default()).expect("the simulator starts");
    let (piece, pieces) = (32 * 1024_u32, 1280_u32);
    fs::write(sim.home("dev").join("code/large"), vec![7; (piece * pieces) as usize]).expect("written");
    let target = sim.describe()["ssh"]["port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
    let dial = sim_remote::dial_through(&sim, Some(half_duplex(target)));
    let mut wire = Wire(dial(Deadline::after(LIMIT)).expect("connected"));
    wire.send(&[0, 0, 0, 5, 1, 0, 0, 0, 3]);
    wire.send(&request(OPEN, 0, "code/large", &[0, 0, 0, 1, 0, 0, 0, 0]));
    assert_eq!(wire.answers(2), 2, "the version and a handle");
    for n in 0..pieces {
        let range = [&(u64::from(n) * u64::from(piece)).to_be_bytes()[..], &piece.to_be_bytes()].concat();
        // The simulator's first handle.
        wire.send(&request(READ, n as usize, "h1", &range));
    }
    // More than all the buffers on the way hold.
    let (name, many) = ("x".repeat(4000), 4000);
    let output: Vec<u8> = (0..many).flat_map(|id| request(LSTAT, id, &name, &[])).collect();
    let (mut gone, mut stuck) = (0, Instant::now());
    while stuck.elapsed() < Duration::from_millis(500) {
        match wire.offer(&output[gone..]) {
            0 => thread::sleep(Duration::from_millis(10)),
            n => (gone, stuck) = (gone + n, Instant::now()),
        }
    }
    assert!(gone < output.len(), "the test must send more");
    let wanted = pieces as usize + many;
    assert_eq!(wire.answers_while_sending(wanted, &output[gone..]), wanted);
}
