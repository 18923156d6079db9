//! The connection that begins while the API is asked: host and user follow from the id of the site, and the API's answers decide
//! only whether and how to mount. Without the user: a connection that has a question or a message for the user is made again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use crate::clock::Deadline;
use crate::transport::{self, Endpoint, Prompt, Rates, Secret, Transport, TransportError};

type Dialled = Result<Box<dyn Transport>, TransportError>;

/// See the module header.
pub(super) struct Early {
    endpoint: Endpoint,
    unattended: Arc<Unattended>,
    result: mpsc::Receiver<Dialled>,
}

impl Early {
    /// Begins. `None`: no thread can be started, and the connection is made later.
    pub(super) fn begin(endpoint: Endpoint, deadline: Deadline) -> Option<Self> {
        let (sender, result) = mpsc::channel();
        let unattended = Arc::new(Unattended::default());
        let (target, prompt) = (endpoint.clone(), unattended.clone());
        let dial = move || drop(sender.send(transport::connect(&target, prompt.as_ref(), deadline)));
        std::thread::Builder::new().name("connect".into()).spawn(dial).ok()?;
        Some(Self { endpoint, unattended, result })
    }

    /// Whether it leads to this server and this account.
    pub(super) fn leads_to(&self, wanted: &Endpoint) -> bool {
        let place = |endpoint: &Endpoint| (endpoint.host.clone(), endpoint.port, endpoint.user.clone());
        place(&self.endpoint) == place(wanted)
    }

    /// What it notes its rates in.
    pub(super) fn rates(&self) -> Arc<Rates> {
        self.endpoint.rates.clone()
    }

    /// The outcome; `None`: the user has to be asked or told something.
    pub(super) fn finish(self, deadline: Deadline) -> Option<Dialled> {
        let timeout = TransportError::Timeout { host: self.endpoint.host };
        let result = self.result.recv_timeout(deadline.remaining()).unwrap_or(Err(timeout));
        (!self.unattended.0.load(Ordering::SeqCst)).then_some(result)
    }
}

/// Nobody to ask. Remembers that there was something to ask or to tell.
#[derive(Default)]
struct Unattended(AtomicBool);

impl Unattended {
    fn wanted<T>(&self) -> Option<T> {
        self.0.store(true, Ordering::SeqCst);
        None
    }
}

impl Prompt for Unattended {
    fn secret(&self, _: &str) -> Option<Secret> {
        self.wanted()
    }

    fn confirm(&self, _: &str) -> Option<bool> {
        self.wanted()
    }

    fn tell(&self, _: &str) {
        self.wanted::<()>();
    }
}
