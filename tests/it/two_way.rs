//! Both directions of one connection at once: neither side may stop reading because it cannot write.

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use pantheonfs::clock::Deadline;
use pantheonfs::sim::{Sim, SimConfig};
use pantheonfs::transport::Transport;
use rustix::event::{EventfdFlags, eventfd};

use crate::common::scripted::{OPEN, packet, text};
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

    fn send(&mut self, bytes: &[u8]) {
        loop {
            match self.0.write(bytes) {
                Ok(n) => return assert_eq!(n, bytes.len(), "one packet"),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(true),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Takes answers until there are `wanted` or the limit is over; says how many came.
    fn answers(&mut self, wanted: usize) -> usize {
        let (until, mut input, mut count) = (Instant::now() + LIMIT, Vec::new(), 0);
        let mut buffer = vec![0; 64 * 1024];
        while count < wanted && Instant::now() < until {
            match self.0.read(&mut buffer) {
                Ok(0) => panic!("the server closed the connection"),
                Ok(n) => input.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(false),
                Err(error) => panic!("{error}"),
            }
            while let Some(len) = input.first_chunk::<4>().map(|len| u32::from_be_bytes(*len) as usize + 4) {
                if input.len() < len {
                    break;
                }
                input.drain(..len);
                count += 1;
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
fn the_simulator_answers_whatever_came_while_it_was_busy() {
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
