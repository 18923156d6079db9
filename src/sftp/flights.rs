//! Requests that were sent and have no answer yet.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use super::error::SftpError;
use super::queue::Callback;

/// Abandoned requests whose late answers are still recognised.
const MAX_ABANDONED: usize = 100_000;

/// One request.
pub(super) struct Flight {
    pub(super) callback: Callback,
    pub(super) sent: Instant,
    /// File bytes that it or its answer carries.
    pub(super) bulk: u64,
}

/// See the module header.
#[derive(Default)]
pub(super) struct Flights {
    last_id: u32,
    by_id: HashMap<u32, Flight>,
    /// Timed out here, not answered yet: their numbers are still taken.
    abandoned: HashSet<u32>,
    bulk: u64,
}

impl Flights {
    /// A request is sent now; gives its number.
    pub(super) fn begin(&mut self, callback: Callback, bulk: u64) -> u32 {
        loop {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.by_id.contains_key(&self.last_id) && !self.abandoned.contains(&self.last_id) {
                break;
            }
        }
        self.bulk += bulk;
        self.by_id.insert(self.last_id, Flight { callback, sent: Instant::now(), bulk });
        self.last_id
    }

    /// The answer to this request is there. `None`: it was abandoned.
    ///
    /// # Errors
    /// There is no such request.
    pub(super) fn end(&mut self, id: u32) -> Result<Option<Flight>, SftpError> {
        let Some(flight) = self.by_id.remove(&id) else {
            if self.abandoned.remove(&id) {
                return Ok(None);
            }
            return Err(SftpError::Protocol(format!("an answer to request {id}, which was not sent")));
        };
        self.bulk -= flight.bulk;
        Ok(Some(flight))
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// File bytes that are under way.
    pub(super) fn bulk(&self) -> u64 {
        self.bulk
    }

    /// Whether a request that was sent before this has no answer.
    pub(super) fn any_before(&self, before: Instant) -> bool {
        self.by_id.values().any(|flight| flight.sent < before)
    }

    /// Gives up the requests that were sent before this.
    pub(super) fn abandon(&mut self, before: Instant) -> Vec<Flight> {
        let overdue: Vec<(u32, Flight)> = self.by_id.extract_if(|_, flight| flight.sent < before).collect();
        let ids = overdue.iter().map(|(id, _)| *id);
        self.abandoned.extend(ids);
        self.bulk -= overdue.iter().map(|(_, flight)| flight.bulk).sum::<u64>();
        overdue.into_iter().map(|(_, flight)| flight).collect()
    }

    pub(super) fn too_many_abandoned(&self) -> bool {
        self.abandoned.len() > MAX_ABANDONED
    }

    pub(super) fn into_callbacks(self) -> impl Iterator<Item = Callback> {
        self.by_id.into_values().map(|flight| flight.callback)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_not_given_again_before_their_answer_and_bytes_are_counted() {
        let mut flights = Flights { last_id: u32::MAX - 1, ..Flights::default() };
        let begin = |flights: &mut Flights| flights.begin(Box::new(|_| {}), 10);
        assert_eq!((begin(&mut flights), begin(&mut flights)), (u32::MAX, 0));
        assert_eq!(flights.abandon(Instant::now()).len(), 2);
        assert_eq!((flights.len(), flights.bulk()), (0, 0));
        flights.last_id = u32::MAX - 1;
        assert_eq!(begin(&mut flights), 1, "the other numbers are taken");
        assert!(matches!(flights.end(0), Ok(None)));
        assert!(matches!(flights.end(0), Err(SftpError::Protocol(_))));
        assert!(matches!(flights.end(1), Ok(Some(Flight { bulk: 10, .. }))));
    }
}
