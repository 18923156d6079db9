//! Client of the platform's API (the one that Terminus uses): log in, find a site, ask how an environment stands, start
//! workflows. Knows nothing of files, mounts or SSH. Every wait has a limit, every answer a maximal size.

mod error;
mod http;
mod login;
mod model;
mod routes;
mod wake;

use parking_lot::Mutex;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zeroize::Zeroizing;

pub use error::ControlError;
pub use model::{
    Commit, ConnectionMode, Diffstat, EnvKind, Environment, FileDiff, Lock, Outcome, Profile, Site, Workflow,
};
pub use wake::{WakeConfig, Waker};

use http::Http;
use login::Login;
use routes::{Call, Routes};

/// Where the API is and how to log in. Not `Debug`: it holds the token.
#[derive(Clone, Default)]
pub struct ControlConfig {
    /// `https`, or `http` for a simulator on this machine.
    pub protocol: Option<String>,
    pub host: Option<String>,
    pub port: Option<u16>,
    /// A machine token given for this run.
    pub token: Option<Zeroizing<String>>,
    /// Terminus' directory with `session` and `tokens/`.
    pub cache_dir: Option<PathBuf>,
    /// Whose saved token to use where there are several.
    pub user: Option<String>,
    /// `terminus` (the default) or `v0`: which of the platform's two APIs.
    pub api: Option<String>,
}

/// Sites asked for at a time, and pages at most.
const PAGE: usize = 100;
const MAX_PAGES: usize = 200;
/// How long one call may take.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Pauses before a question is asked again that the API could not answer.
const RETRIES: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1500)];
/// Pauses between looks at a running workflow.
const WORKFLOW_POLL: Duration = Duration::from_secs(1);
/// How long a workflow may take before we stop waiting; the platform ends a commit after two minutes.
const WORKFLOW_LIMIT: Duration = Duration::from_secs(300);

/// See the module header.
pub struct Control {
    http: Http,
    routes: Box<dyn Routes>,
    login: Mutex<Login>,
}

type Answer<T> = Result<T, ControlError>;

impl Control {
    pub fn new(config: ControlConfig) -> Answer<Self> {
        let unknown = || ControlError::NoSuchApi(config.api.clone().unwrap_or_default());
        let routes = routes::named(config.api.as_deref()).ok_or_else(unknown)?;
        let http = Http::new(&config, routes.as_ref(), CALL_LIMIT)?;
        Ok(Self { http, routes, login: Mutex::new(Login::new(config)) })
    }

    /// What the platform's clock said with its last answer (seconds since the epoch), and when that came.
    pub fn dated(&self) -> Option<(u32, Instant)> {
        self.http.dated()
    }

    /// Whether there is anything to log in with.
    pub fn can_log_in(&self) -> bool {
        self.login().has_credentials()
    }

    fn login(&self) -> parking_lot::MutexGuard<'_, Login> {
        self.login.lock()
    }

    /// The platform has its bad minutes: what does no harm twice is asked again.
    fn ask(&self, call: &Call) -> Answer<Value> {
        let mut answer = self.call(call.method, &call.path, call.body.as_ref());
        for pause in if call.repeatable { RETRIES.as_slice() } else { &[] } {
            if !matches!(&answer, Err(ControlError::Status { status: 429 | 500..=599, .. })) {
                break;
            }
            std::thread::sleep(*pause);
            answer = self.call(call.method, &call.path, call.body.as_ref());
        }
        answer
    }

    fn get(&self, path: String) -> Answer<Value> {
        self.ask(&Call { method: "GET", path, body: None, repeatable: true })
    }

    /// An expired session is renewed once.
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Answer<Value> {
        let known = self.login().current();
        let session = match known {
            Some(session) => session,
            None => self.log_in()?,
        };
        match self.http.call(method, path, body, Some(&session)) {
            Err(ControlError::Unauthorized { .. }) => {
                log::info!("the API session has expired: logging in again");
                let session = self.log_in()?;
                self.http.call(method, path, body, Some(&session))
            }
            other => other,
        }
    }

    fn log_in(&self) -> Answer<Zeroizing<String>> {
        let token = self.login().token()?;
        let answer = login::log_in(&self.http, &token)?;
        self.login().keep(answer)
    }

    /// The id of a site that the account may see.
    pub fn site_id(&self, name: &str) -> Answer<String> {
        let answer = self.get(format!("site-names/{}", http::segment(name)));
        match answer {
            Ok(value) => model::text(&value, "id", "the site"),
            Err(ControlError::NotFound { message, .. } | ControlError::Forbidden { message, .. }) => {
                Err(ControlError::NoSuchSite { name: name.into(), message })
            }
            Err(error) => Err(error),
        }
    }

    pub fn site(&self, id: &str) -> Answer<Site> {
        let answer = self.get(format!("sites/{}?site_state=true", http::segment(id)))?;
        Site::from_json(&answer)
    }

    pub fn environment(&self, site: &str, env: &str) -> Answer<Environment> {
        let missing = |message: String| ControlError::NoSuchEnvironment { name: env.into(), message };
        let Some(call) = self.routes.environment(site, env) else {
            let all = self.environments(site)?;
            return all.into_iter().find(|(name, _)| name == env).map(|(_, e)| e).ok_or_else(|| missing(String::new()));
        };
        match self.ask(&call) {
            Ok(value) => Environment::from_json(&value),
            Err(ControlError::NotFound { message, .. }) => Err(missing(message)),
            Err(error) => Err(error),
        }
    }

    /// Whether Test or Live has anything in it yet; `None`: not told. Only these can be without.
    pub fn is_initialized(&self, site: &str, env: &str) -> Answer<Option<bool>> {
        let path = format!("sites/{}/environments/{}/settings", http::segment(site), http::segment(env));
        Ok(model::truthy(self.get(path)?.get("is_initialized")))
    }

    /// What the platform believes to be uncommitted; it may be stale.
    pub fn diffstat(&self, site: &str, env: &str) -> Answer<Diffstat> {
        Ok(Diffstat::from_json(&self.ask(&self.routes.diffstat(site, env))?))
    }

    /// Switches the connection mode and waits for the outcome. Going to Git mode discards what is uncommitted: callers
    /// ask first.
    pub fn set_mode(&self, site: &str, env: &str, mode: ConnectionMode) -> Answer<()> {
        self.run_workflow(site, &format!("the switch to {mode} mode"), &self.routes.set_mode(site, env, mode))
    }

    /// Commits everything that is uncommitted and waits for the outcome.
    pub fn commit(&self, site: &str, env: &str, message: &str, name: &str, email: &str) -> Answer<()> {
        let params = json!({ "message": message, "committer_name": name.trim(), "committer_email": email.trim() });
        self.run_workflow(site, "the commit", &self.routes.commit(site, env, params))
    }

    /// The history, newest first.
    pub fn log(&self, site: &str, env: &str) -> Answer<Vec<Commit>> {
        Commit::list(&self.ask(&self.routes.log(site, env))?)
    }

    /// Jobs of this environment that run now.
    pub fn running(&self, site: &str, env: &str) -> Answer<Vec<Workflow>> {
        let all = Workflow::list(&self.ask(&self.routes.workflows(site))?);
        Ok(all.into_iter().filter(|w| w.outcome.is_none() && w.environment.as_deref() == Some(env)).collect())
    }

    /// Who is logged in.
    pub fn profile(&self) -> Answer<Profile> {
        let user = self.user_id()?;
        Profile::from_json(&self.get(format!("users/{}", http::segment(&user)))?)
    }

    /// The sites of the account, by name.
    pub fn sites(&self) -> Answer<Vec<Site>> {
        let user = self.user_id()?;
        let (mut out, mut start) = (Vec::new(), String::new());
        // Page by page, until a page is short or brings nothing new.
        for number in 1..=MAX_PAGES {
            let path = format!("users/{}/memberships/sites?limit={PAGE}{start}", http::segment(&user));
            let page = self.get(path)?;
            let (sites, last) = Site::memberships(&page);
            let full = page.as_array().is_some_and(|page| page.len() >= PAGE);
            let known = sites.iter().all(|site: &Site| out.contains(site));
            out.extend(sites);
            match last {
                Some(_) if full && number == MAX_PAGES => log::warn!("only the first {} sites are listed", out.len()),
                Some(last) if full && !known => start = format!("&start={}", http::segment(&last)),
                _ => break,
            }
        }
        out.sort_by(|a: &Site, b: &Site| a.name.cmp(&b.name));
        out.dedup();
        Ok(out)
    }

    /// Names of a site's environments with what the API says about each.
    pub fn environments(&self, site: &str) -> Answer<Vec<(String, Environment)>> {
        let all = self.ask(&self.routes.environments(site))?;
        let Some(all) = all.as_object() else {
            return Err(ControlError::Malformed { what: "the environments".into(), detail: "not an object".into() });
        };
        all.iter().map(|(name, value)| Ok((name.clone(), Environment::from_json(value)?))).collect()
    }

    /// Exchanges a machine token for a session and keeps both where Terminus keeps them; says who logged in.
    pub fn log_in_with(&self, token: &str) -> Answer<Profile> {
        let answer = login::log_in(&self.http, token)?;
        self.login().keep(answer)?;
        let profile = self.profile()?;
        self.login().save_token(token, &profile.email)?;
        Ok(profile)
    }

    fn user_id(&self) -> Answer<String> {
        let known = self.login().user_id();
        match known {
            Some(id) => Ok(id),
            None => {
                self.log_in()?;
                self.login().user_id().ok_or(ControlError::NotLoggedIn)
            }
        }
    }

    fn run_workflow(&self, site: &str, kind: &str, call: &Call) -> Answer<()> {
        let mut workflow = Workflow::from_json(&self.ask(call)?)?;
        let until = std::time::Instant::now() + WORKFLOW_LIMIT;
        loop {
            match workflow.outcome {
                Some(Outcome::Succeeded) => return Ok(()),
                Some(Outcome::Failed(reason)) => {
                    return Err(ControlError::WorkflowFailed { kind: kind.into(), reason });
                }
                None if std::time::Instant::now() > until => {
                    return Err(ControlError::WorkflowSlow { kind: kind.into(), seconds: WORKFLOW_LIMIT.as_secs() });
                }
                None => std::thread::sleep(WORKFLOW_POLL),
            }
            match self.ask(&self.routes.workflow(site, &workflow.id)) {
                Ok(value) => workflow = Workflow::from_json(&value)?,
                // It runs there, whether or not we can see it.
                Err(error) if error.is_passing() => log::info!("{kind}: {error}"),
                Err(error) => return Err(error),
            }
        }
    }
}
