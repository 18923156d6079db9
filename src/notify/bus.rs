//! The notification service of the session bus (`org.freedesktop.Notifications`), asked with a limit.

use std::collections::HashMap;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use zbus::connection::Builder;
use zbus::{Connection, Variant};

use super::text::Notice;

/// How long the bus and the service may take for all notices of a moment.
const LIMIT: Duration = Duration::from_secs(5);
const SERVICE: &str = "org.freedesktop.Notifications";
const PATH: &str = "/org/freedesktop/Notifications";
/// The urgency of a notice that stays until it is closed, and of others.
const CRITICAL: u8 = 2;
const NORMAL: u8 = 1;

/// Shows notices.
///
/// # Errors
///
/// There is no service, or it does not answer in time.
pub(super) fn show(address: &str, notices: &[Notice]) -> Result<(), String> {
    match within(LIMIT, send(address, notices)) {
        Some(sent) => sent.map_err(|error| error.to_string()),
        None => Err(format!("no answer within {} s", LIMIT.as_secs())),
    }
}

async fn send(address: &str, notices: &[Notice]) -> zbus::Result<()> {
    let bus = Builder::address(address).build().await?;
    // A service that takes markup takes `<` for its begin.
    let markup = capabilities(&bus).await?.iter().any(|name| name == "body-markup");
    for notice in notices {
        let body = if markup { escaped(&notice.body) } else { notice.body.clone() };
        let urgency = if notice.urgent { CRITICAL } else { NORMAL };
        let hints =
            HashMap::from([("urgency", Variant::from(urgency)), ("desktop-entry", Variant::from("pantheonfs"))]);
        let actions: [&str; 0] = [];
        let content =
            ("pantheonfs", 0_u32, "folder-remote", notice.summary.as_str(), body.as_str(), &actions[..], hints, -1_i32);
        bus.call_method(Some(SERVICE), PATH, Some(SERVICE), "Notify", &content).await?;
    }
    Ok(())
}

async fn capabilities(bus: &Connection) -> zbus::Result<Vec<String>> {
    let answer = bus.call_method(Some(SERVICE), PATH, Some(SERVICE), "GetCapabilities", &()).await?;
    answer.body().deserialize()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// The result of a future in this thread; `None`: it took too long. The bus has a thread of its own that goes on meanwhile.
fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let until = Instant::now() + limit;
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Some(result);
        }
        let left = until.checked_duration_since(Instant::now())?;
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_future_that_does_not_end_is_left() {
        assert_eq!(within(Duration::from_secs(5), async { 7 }), Some(7));
        let begun = Instant::now();
        assert_eq!(within(Duration::from_millis(50), std::future::pending::<()>()), None);
        assert!(begun.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn an_address_without_a_bus_is_an_error() {
        let notice = Notice { summary: String::new(), body: String::new(), urgent: false };
        assert!(show("unix:path=/nonexistent/bus", std::slice::from_ref(&notice)).is_err());
        assert!(show("nonsense", &[notice]).is_err());
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escaped("a<b>&c"), "a&lt;b&gt;&amp;c");
    }
}
