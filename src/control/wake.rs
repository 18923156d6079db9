//! Waking an environment. The platform stops containers whose web site has no visitors; SFTP to a stopped container fails,
//! and only a web request starts it: the health check, which every environment answers under its platform domain.
//!
//! The health check is not part of the API: it needs no session, and its answer is a status and a header instead of JSON.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::Agent;
use ureq::http::{Request, Response, Uri};

use super::environment::Lock;
use super::error::ControlError;
use super::http::{USER_AGENT, is_loopback, segment};
use super::tls;

use crate::clock::Deadline;

/// Which environment to wake, and by which request.
#[derive(Debug, Clone, Default)]
pub struct WakeConfig {
    pub site: String,
    pub env: String,
    /// The platform domain of the site; `None`: `pantheonsite.io`, which nearly every site has.
    pub dns_zone: Option<String>,
    /// Address of a simulator, which gets all requests, with the name of the environment in the Host header.
    pub url: Option<String>,
    pub lock: Option<Lock>,
    /// As in [`ControlConfig`](super::config::ControlConfig).
    pub certificates: Option<PathBuf>,
}

/// Wakes one environment; see the module header.
pub struct Waker {
    agent: Agent,
    url: String,
    domain: String,
    lock: Option<Lock>,
}

const DNS_ZONE: &str = "pantheonsite.io";
const PATH: &str = "pantheon_healthcheck";
/// Limit of one request: the platform answers when the container runs, usually within 30 s.
const REQUEST_LIMIT: Duration = Duration::from_secs(45);
/// Limit of name resolution and connecting, so that a network without a route does not delay the caller.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// Pause before the next request while the container starts.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a request without an answer is made, as Terminus does it.
const MAX_LOST: u32 = 2;
/// Longest part of a header that is shown (characters).
const MAX_SHOWN: usize = 200;
/// The platform's own status for a frozen site.
const FROZEN: u16 = 530;

impl Waker {
    pub fn new(config: WakeConfig) -> Result<Self, ControlError> {
        let is_name = |zone: &&str| zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        let zone = config.dns_zone.as_deref().filter(is_name).unwrap_or(DNS_ZONE);
        let domain = format!("{}-{}.{zone}", segment(&config.env), segment(&config.site));
        let base = config.url.unwrap_or_else(|| format!("https://{domain}"));
        let url = format!("{}/{PATH}", base.trim_end_matches('/'));
        let insecure = || ControlError::Insecure { url: base.clone() };
        let uri: Uri = url.parse().map_err(|_| insecure())?;
        if uri.scheme_str() != Some("https") && !is_loopback(uri.host().unwrap_or_default()) {
            return Err(insecure());
        }
        let agent = Agent::config_builder().http_status_as_error(false).max_redirects(0);
        let agent = agent.max_redirects_will_error(false).user_agent(USER_AGENT);
        let agent = agent.tls_config(tls::config(config.certificates.as_deref())?);
        let agent = agent.timeout_resolve(Some(CONNECT_LIMIT)).timeout_connect(Some(CONNECT_LIMIT)).build().into();
        Ok(Self { agent, url, domain, lock: config.lock })
    }

    /// The name of the environment's web site.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Repeats the health check until the environment answers with 200, and returns how long that took: an environment
    /// that runs answers at once. No header is asked for: the platform's older CDN added one, its present one does not.
    ///
    /// # Errors
    ///
    /// The site is frozen, its web site cannot be reached, or it does not pass the health check before `deadline`.
    pub fn wake(&self, deadline: Deadline) -> Result<Duration, ControlError> {
        let (began, mut lost, mut with_lock) = (Instant::now(), 0, false);
        loop {
            let last = match self.request(deadline, with_lock) {
                Ok(answer) => match answer.status().as_u16() {
                    200 => return Ok(began.elapsed()),
                    FROZEN => return Err(ControlError::Frozen { name: self.domain.clone() }),
                    401 if self.lock.is_some() && !with_lock => {
                        with_lock = true;
                        continue;
                    }
                    401 => return Err(self.unhealthy("status 401: the site is locked, and its password is not known")),
                    429 | 500..=599 => self.unhealthy(&described(&answer)),
                    _ => return Err(self.unhealthy(&described(&answer))),
                },
                Err(error) => {
                    lost += 1;
                    let unreachable = tls::failed(&self.domain, error);
                    if lost >= MAX_LOST {
                        return Err(unreachable);
                    }
                    unreachable
                }
            };
            if deadline.remaining() <= PAUSE {
                return Err(last);
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn request(&self, deadline: Deadline, with_lock: bool) -> Result<Response<ureq::Body>, ureq::Error> {
        let mut request = Request::builder().method("GET").uri(&self.url).header("Host", &self.domain);
        if let Some(lock) = self.lock.as_ref().filter(|_| with_lock) {
            let pair = STANDARD.encode(format!("{}:{}", lock.user, lock.password.as_str()));
            request = request.header("Authorization", format!("Basic {pair}"));
        }
        let limit = deadline.remaining().clamp(Duration::from_millis(100), REQUEST_LIMIT);
        let request = request.body(())?;
        let request = self.agent.configure_request(request).timeout_global(Some(limit)).build();
        self.agent.run(request)
    }

    fn unhealthy(&self, detail: &str) -> ControlError {
        ControlError::Unhealthy { domain: self.domain.clone(), detail: detail.to_owned() }
    }
}

/// What came instead of 200: the status with its name, and where it leads or of what type it is.
fn described(answer: &Response<ureq::Body>) -> String {
    let header =
        |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.chars().take(MAX_SHOWN).collect::<String>());
    let reason = answer.status().canonical_reason().map(|reason| format!(" {reason}")).unwrap_or_default();
    let led = header("location").map(|place| format!(", which leads to {place}"));
    let more = led.or_else(|| header("content-type").map(|kind| format!(", {kind}"))).unwrap_or_default();
    format!("status {}{reason}{more}", answer.status().as_u16())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_the_platforms_and_plain_http_stays_here() {
        let config = WakeConfig { site: "mysite".into(), env: "dev".into(), ..WakeConfig::default() };
        let waker = Waker::new(config.clone()).expect("valid");
        assert_eq!(waker.url, "https://dev-mysite.pantheonsite.io/pantheon_healthcheck");
        let at = |url: &str| Waker::new(WakeConfig { url: Some(url.into()), ..config.clone() });
        assert_eq!(at("http://127.0.0.1:80/").expect("here").url, "http://127.0.0.1:80/pantheon_healthcheck");
        assert!(matches!(at("http://example.org"), Err(ControlError::Insecure { .. })));
        assert!(matches!(at("no url"), Err(ControlError::Insecure { .. })));
        let zone = WakeConfig { dns_zone: Some("evil.example/x".into()), ..config.clone() };
        assert_eq!(Waker::new(zone).expect("valid").domain(), "dev-mysite.pantheonsite.io");
    }
}
