//! Detects that this machine was suspended or moved to another network. After either a connection may look alive and carry
//! nothing, and what failed a moment ago may work now.

use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// See the module header.
pub trait WakeDetect: Send + Sync {
    /// What happened since the last call, as a text for the log. `peer` is the server's address as far as it is known.
    fn disturbance(&self, peer: Option<SocketAddr>) -> Option<String>;
}

/// By the clocks and the routes of this machine.
#[derive(Default)]
pub struct Machine(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    /// How long the machine has slept since it started.
    slept: Option<Duration>,
    peer: Option<SocketAddr>,
    /// The local addresses that packets to the peer and to any other host would have.
    sources: Option<Sources>,
    /// There was no route at the last check.
    gone: bool,
}

type Sources = [Option<IpAddr>; 3];

/// Less than this is no suspend: the two clocks are not read at the same instant.
const GRAIN: Duration = Duration::from_secs(1);

impl WakeDetect for Machine {
    fn disturbance(&self, peer: Option<SocketAddr>) -> Option<String> {
        let mut seen = self.0.lock();
        seen.slept(time_asleep()).or_else(|| seen.moved(peer, sources(peer)))
    }
}

impl Seen {
    fn slept(&mut self, total: Duration) -> Option<String> {
        let more = total.saturating_sub(self.slept.replace(total)?);
        (more > GRAIN).then(|| format!("the machine slept for {} s", more.as_secs()))
    }

    /// A missing route says nothing: a connection outlives a moment without one. A route that is back, or another one, does.
    fn moved(&mut self, peer: Option<SocketAddr>, now: Sources) -> Option<String> {
        if now == Sources::default() {
            self.gone = self.sources.is_some();
            return None;
        }
        let before = self.sources.replace(now);
        let same_peer = std::mem::replace(&mut self.peer, peer) == peer;
        let was_gone = std::mem::take(&mut self.gone);
        match before {
            Some(_) if was_gone => Some("the network is back".into()),
            Some(before) if before[1..] != now[1..] || (same_peer && before != now) => {
                Some("the network changed".into())
            }
            _ => None,
        }
    }
}

/// The monotonic clock stands still while the machine is suspended, the boot-time clock does not.
fn time_asleep() -> Duration {
    let read = |id| Duration::try_from(clock_gettime(id)).unwrap_or_default();
    read(ClockId::Boottime).saturating_sub(read(ClockId::Monotonic))
}

/// By the routing table alone: connecting a UDP socket sends nothing. The last two are for any other host (addresses that are
/// reserved for documentation).
fn sources(peer: Option<SocketAddr>) -> Sources {
    let anywhere =
        [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
    let [v4, v6] = anywhere.map(|ip| source(SocketAddr::new(ip, 9)));
    [peer.and_then(source), v4, v6]
}

fn source(to: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(last: u8) -> Sources {
        let ip = Some(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)));
        [ip, ip, None]
    }

    #[test]
    fn a_suspend_is_noticed_once() {
        let mut seen = Seen::default();
        let after = |secs| Duration::from_secs(secs);
        assert_eq!(seen.slept(after(100)), None, "what was before us");
        assert_eq!(seen.slept(after(100) + GRAIN / 2), None);
        assert!(seen.slept(after(700)).is_some_and(|what| what.contains("599 s")));
        assert_eq!(seen.slept(after(700)), None);
    }

    #[test]
    fn route_changes_are_noticed() {
        let mut seen = Seen::default();
        let peer = Some(SocketAddr::from(([127, 0, 0, 1], 22)));
        assert_eq!(seen.moved(peer, Sources::default()), None, "no network from the start");
        assert_eq!(seen.moved(peer, from(1)), None);
        assert_eq!(seen.moved(peer, from(1)), None);
        assert!(seen.moved(peer, from(2)).is_some());
        assert_eq!(seen.moved(peer, Sources::default()), None, "gone");
        assert!(seen.moved(peer, from(2)).is_some_and(|what| what.contains("back")));
        let other = Some(SocketAddr::from(([127, 0, 0, 2], 22)));
        let [_, v4, v6] = from(2);
        assert_eq!(seen.moved(other, [None, v4, v6]), None, "another server has another way");
    }

    #[test]
    fn an_unchanged_network_reports_nothing() {
        let (machine, peer) = (Machine::default(), Some(SocketAddr::from(([127, 0, 0, 1], 22))));
        assert!((0..5).all(|_| machine.disturbance(peer).is_none()));
        assert_eq!(source(SocketAddr::from(([127, 0, 0, 1], 22))), Some(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    }
}
