//! One HTTP call: URL, headers, limits, and the error that a failure becomes.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use ureq::Agent;
use ureq::http::{Request, StatusCode, Uri};

use super::config::ControlConfig;
use super::error::ControlError;

pub(super) const USER_AGENT: &str = concat!("pantheonfs/", env!("CARGO_PKG_VERSION"));
/// Largest answer that is read (bytes): an environment with thousands of pending files is about 1 MB. Parsed, an answer may
/// take thirty times as much memory.
const MAX_ANSWER_BYTES: u64 = 8 * 1024 * 1024;
/// How much of a web page is looked at for its words (characters).
const MAX_PAGE_CHARS: usize = 4000;
/// Longest error text of the API that is shown (characters).
const MAX_MESSAGE_CHARS: usize = 300;

pub(super) struct Http {
    agent: Agent,
    base: String,
    host: String,
    /// The time in the last answer (seconds since the epoch), and when the answer was received.
    server_time: Mutex<Option<(u32, Instant)>>,
}

impl Http {
    /// `api`: the host of the API and what stands in front of every path.
    pub(super) fn new(config: &ControlConfig, api: (&str, &str), limit: Duration) -> Result<Self, ControlError> {
        let protocol = config.protocol.as_deref().unwrap_or("https");
        let host = config.host.as_deref().unwrap_or(api.0);
        let port = config.port.unwrap_or(if protocol == "http" { 80 } else { 443 });
        let base = format!("{protocol}://{host}:{port}/{}", api.1);
        let uri: Uri = base.parse().map_err(|_| ControlError::Insecure { url: base.clone() })?;
        let secure = uri.scheme_str() == Some("https");
        if !secure && !is_loopback(uri.host().unwrap_or_default()) {
            return Err(ControlError::Insecure { url: base });
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(limit))
            // A redirect would send the session to another host.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(USER_AGENT)
            .build()
            .into();
        Ok(Self { agent, base, host: host.to_owned(), server_time: Mutex::default() })
    }

    pub(super) fn server_time(&self) -> Option<(u32, Instant)> {
        *self.server_time.lock()
    }

    pub(super) fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        session: Option<&str>,
    ) -> Result<Value, ControlError> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        request = request.header("Accept", "application/json");
        if let Some(session) = session {
            request = request.header("Authorization", format!("Bearer {session}"));
        }
        let sent = match body {
            Some(body) => {
                let request = request.header("Content-Type", "application/json").body(body.to_string());
                self.agent.run(request.map_err(|e| ControlError::malformed(path, e))?)
            }
            None => self.agent.run(request.body(()).map_err(|e| ControlError::malformed(path, e))?),
        };
        let mut response = sent.map_err(|e| ControlError::unreachable(&self.host, e))?;
        let status = response.status();
        let retry_after = response.headers().get("retry-after").and_then(|value| pause(value.to_str().ok()?));
        let date = response.headers().get("date").and_then(|value| seconds(value.to_str().ok()?));
        if let Some(secs) = date {
            *self.server_time.lock() = Some((secs, Instant::now()));
        }
        let bytes = response.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let bytes = bytes.map_err(|error| match error {
            ureq::Error::BodyExceedsLimit(most) => {
                ControlError::malformed(path, format!("it is longer than {most} bytes"))
            }
            // The answer broke off or came too slowly.
            other => ControlError::unreachable(&self.host, other),
        })?;
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(|e| ControlError::malformed(path, e));
        }
        Err(refusal(path, (status, retry_after), &message(&bytes)))
    }
}

/// Parses a `Date` header, such as `Thu, 26 Nov 2026 15:25:23 GMT`: seconds since the epoch.
fn seconds(date: &str) -> Option<u32> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let words: Vec<&str> = date.split(' ').collect();
    let [_, day, month, year, time, "GMT"] = words.as_slice() else { return None };
    let month = MONTHS.iter().position(|name| name == month)? + 1;
    let time = humantime::parse_rfc3339(&format!("{year}-{month:02}-{day}T{time}Z")).ok()?;
    u32::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}

/// Bodies of errors are a JSON string, an object with a message, or plain text.
fn message(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(Value::String(text)) => text,
        Ok(value) => ["/message", "/errors/0/message", "/error"]
            .iter()
            .find_map(|at| value.pointer(at)?.as_str().map(str::to_owned))
            .unwrap_or_else(|| value.to_string()),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // A page is no message; its words without the tags may be.
    let text = if text.trim_start().starts_with('<') { without_tags(&text) } else { text };
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_MESSAGE_CHARS).collect::<String>().trim().into()
}

/// The words of a web page, such as proxies and maintenance pages send.
fn without_tags(page: &str) -> String {
    let mut out = String::new();
    for part in page.chars().take(MAX_PAGE_CHARS).collect::<String>().split('<') {
        let words = part.split_once('>').map_or("", |(_, words)| words);
        out.extend(words.split_whitespace().flat_map(|word| [word, " "]));
    }
    out
}

/// Parses a `Retry-After` header: seconds, or a date.
fn pause(text: &str) -> Option<Duration> {
    let from_date = || {
        let then = std::time::UNIX_EPOCH + Duration::from_secs(seconds(text)?.into());
        Some(then.duration_since(std::time::SystemTime::now()).unwrap_or_default())
    };
    text.trim().parse().ok().map(Duration::from_secs).or_else(from_date)
}

fn refusal(what: &str, (status, retry_after): (StatusCode, Option<Duration>), message: &str) -> ControlError {
    let (what, message) = (what.to_owned(), message.to_owned());
    match status.as_u16() {
        401 => ControlError::Unauthorized { what, message },
        403 => ControlError::Forbidden { what, message },
        404 => ControlError::NotFound { what, message },
        409 => ControlError::NotSupported { what, message },
        429 => ControlError::TooManyCalls { what, message, retry_after },
        status => ControlError::Status { what, status, message },
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Encodes a name as one path segment, whatever it contains.
pub(super) fn segment(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(protocol: &str, host: &str) -> Result<Http, ControlError> {
        let config =
            ControlConfig { protocol: Some(protocol.into()), host: Some(host.into()), ..ControlConfig::default() };
        Http::new(&config, ("api.example", "api/"), Duration::from_secs(1))
    }

    #[test]
    fn plain_http_stays_on_this_machine() {
        assert!(with("http", "127.0.0.1").is_ok());
        assert!(with("http", "localhost").is_ok());
        assert!(matches!(with("http", "terminus.pantheon.io"), Err(ControlError::Insecure { .. })));
        assert!(matches!(with("ftp", "example.org"), Err(ControlError::Insecure { .. })));
        assert!(with("https", "terminus.pantheon.io").is_ok());
    }

    #[test]
    fn a_date_header_is_parsed() {
        assert_eq!(seconds("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        for nonsense in ["", "now", "Sun, 06 Nov 1994 08:49:37 CET", "Sun, 06 Foo 1994 08:49:37 GMT"] {
            assert_eq!(seconds(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(pause("12"), Some(Duration::from_secs(12)));
        assert_eq!(pause("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!((pause("-1"), pause("soon")), (None, None));
    }

    #[test]
    fn every_shape_of_error_body_is_understood() {
        assert_eq!(message(br#""No such site""#), "No such site");
        assert_eq!(message(br#"{"message": "expired"}"#), "expired");
        assert_eq!(message(br#"{"errors": [{"message": "bad"}]}"#), "bad");
        assert_eq!(message(b"<html>\n<h1>502 Bad\nGateway</h1></html>"), "502 Bad Gateway");
        assert_eq!(message(&vec![b'x'; 10_000]).len(), MAX_MESSAGE_CHARS);
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("my-site"), "my-site");
        assert_eq!(segment("../users?x"), "..%2Fusers%3Fx");
    }
}
