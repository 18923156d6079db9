//! The client: questions to the API, with a session that is renewed and pauses before a second try.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::board::Board;
use super::config::ControlConfig;
use super::environment::{ConnectionMode, Diffstat, Environment};
use super::error::ControlError;
use super::history::Commit;
use super::http::{self, Http};
use super::json;
use super::login::{self, Login};
use super::routes::{self, Call, Routes};
use super::site::{Profile, Site};
use super::throttle::Throttle;
use super::workflow::{Outcome, Workflow};

/// Sites in one page of the list.
const PAGE: usize = 100;
/// Pages that are asked for at most.
const MAX_PAGES: usize = 200;
/// Limit of one call.
const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Pauses before a call that the API failed to answer is repeated.
const RETRIES: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(600), Duration::from_millis(1500)];
/// How often a call is repeated after a 429: with the pauses of [`Throttle`] that takes 70 s.
const MAX_REFUSALS: usize = 3;
/// Longest pause after a 429 that a call waits for.
const MAX_THROTTLE: Duration = Duration::from_secs(60);
/// Pauses between looks at a running workflow.
const WORKFLOW_POLL: Duration = Duration::from_secs(1);
/// How long a workflow is waited for; the platform ends a commit after two minutes.
const WORKFLOW_LIMIT: Duration = Duration::from_secs(300);

/// A client of the platform's API with one account.
pub struct Control {
    http: Http,
    routes: Box<dyn Routes>,
    login: Mutex<Login>,
    throttle: Throttle,
    board: Board,
    /// The API does not know single environments, only their list.
    only_lists: AtomicBool,
}

type Answer<T> = Result<T, ControlError>;

impl Control {
    /// A client that has not connected yet.
    ///
    /// # Errors
    ///
    /// The configuration names an unknown API, or plain HTTP to another machine.
    pub fn new(config: ControlConfig) -> Answer<Self> {
        let unknown = || ControlError::NoSuchApi(config.api.clone().unwrap_or_default());
        let routes = routes::named(config.api.as_deref()).ok_or_else(unknown)?;
        let http = Http::new(&config, (routes.host(), routes.base()), CALL_LIMIT)?;
        let name = format!("throttle-{}.json", http::segment(config.host.as_deref().unwrap_or(routes.host())));
        let throttle = Throttle::new(config.shared_dir.as_ref().map(|dir| dir.join(name)));
        let (board, only_lists) = (Board::new(config.shared_dir.clone()), AtomicBool::new(false));
        Ok(Self { http, routes, throttle, board, only_lists, login: Mutex::new(Login::new(config)) })
    }

    /// The platform's time (seconds since the epoch) in its last answer, and when the answer was received.
    pub fn server_time(&self) -> Option<(u32, Instant)> {
        self.http.server_time()
    }

    /// The platform's time now (seconds since the epoch), as far as it is known.
    fn platform_now(&self) -> Option<i64> {
        self.server_time().map(|(secs, heard)| i64::from(secs) + heard.elapsed().as_secs().cast_signed())
    }

    /// Whether there is anything to log in with.
    pub fn can_log_in(&self) -> bool {
        self.login().has_credentials()
    }

    fn login(&self) -> parking_lot::MutexGuard<'_, Login> {
        self.login.lock()
    }

    /// How long the API has to be left alone; `None`: it can be asked now.
    pub fn throttled(&self) -> Option<Duration> {
        self.throttle.pause()
    }

    /// A sentence about a saved token that ends soon.
    pub fn token_warning(&self) -> Option<String> {
        self.login().token_warning()
    }

    /// Makes a call with the session. One that has ended is renewed once.
    fn ask(&self, call: &Call) -> Answer<Value> {
        let session = self.session()?;
        let send = |session: &str| self.http.call(call.method, &call.path, call.body.as_ref(), Some(session));
        match self.patiently(call.repeatable, || send(&session)) {
            Err(error) if error.is_ended_session() => {
                log::info!("the API session has ended: logging in again");
                self.login().forget(&session);
                let session = self.log_in()?;
                self.patiently(call.repeatable, || send(&session))
            }
            other => other,
        }
    }

    /// Repeats a call that the API refused for now, if it may be sent twice. A 429 was not carried out, so any call may.
    fn patiently(&self, repeatable: bool, call: impl Fn() -> Answer<Value>) -> Answer<Value> {
        let (mut refusals, mut pauses) = (0, RETRIES.iter());
        loop {
            self.wait_for_throttle()?;
            let answer = call();
            let pause = match &answer {
                Err(ControlError::TooManyCalls { retry_after, .. }) => {
                    refusals += 1;
                    let pause = self.throttle.refused(*retry_after);
                    log::warn!("the API answered 429, too many calls: asking again after {} s", pause.as_secs());
                    (refusals <= MAX_REFUSALS).then_some(Duration::ZERO)
                }
                Err(ControlError::Status { status: 500..=599, .. }) if repeatable => pauses.next().copied(),
                _ => {
                    self.throttle.answered();
                    None
                }
            };
            let Some(pause) = pause else { return answer };
            std::thread::sleep(pause);
        }
    }

    /// Waits as long as the API has to be left alone; a long time is an error, so that the caller can say so.
    fn wait_for_throttle(&self) -> Answer<()> {
        let Some(pause) = self.throttle.pause() else { return Ok(()) };
        if pause > MAX_THROTTLE {
            let message = format!("it can be asked again in {} s", pause.as_secs());
            return Err(ControlError::TooManyCalls { what: "the API".into(), message, retry_after: None });
        }
        std::thread::sleep(pause);
        Ok(())
    }

    fn get(&self, path: String) -> Answer<Value> {
        self.ask(&Call { method: "GET", path, body: None, repeatable: true })
    }

    fn session(&self) -> Answer<Zeroizing<String>> {
        let known = self.login().current();
        let Some(session) = known else { return self.log_in() };
        if self.login().is_anonymous() {
            self.identify(&session);
        }
        Ok(session)
    }

    /// Asks once whose session it is, so that it can be renewed by the right one of several tokens.
    fn identify(&self, session: &str) {
        let Some(user) = self.login().user_id() else { return };
        let path = format!("users/{}", http::segment(&user));
        match self.http.call("GET", &path, None, Some(session)).and_then(|value| Profile::from_json(&value)) {
            Ok(profile) => self.login().identified(profile.email),
            Err(error) => log::debug!("whose session it is cannot be asked: {error}"),
        }
    }

    fn log_in(&self) -> Answer<Zeroizing<String>> {
        let token = self.login().token()?;
        let answer = self.patiently(true, || login::log_in(&self.http, &token.secret))?;
        self.login().keep(&answer, &token.email, self.platform_now())
    }

    /// The id of a site that the account may see.
    pub fn site_id(&self, name: &str) -> Answer<String> {
        let answer = self.get(format!("site-names/{}", http::segment(name)));
        match answer {
            Ok(value) => json::text(&value, "id", "the site"),
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
        let mut said = String::new();
        let single = self.routes.environment(site, env).filter(|_| !self.only_lists.load(Ordering::Relaxed));
        if let Some(call) = &single {
            match self.ask(call) {
                Ok(value) => return Environment::from_json(&value),
                Err(ControlError::NotFound { message, .. }) => said = message,
                Err(error) => return Err(error),
            }
        }
        let all = match self.environments(site) {
            Err(ControlError::NotFound { .. }) => return Err(missing(said)),
            all => all?,
        };
        let found = all.into_iter().find(|(name, _)| name == env).map(|(_, environment)| environment);
        // It is listed, and not there by itself: the platform's clients have used the list alone since 2017.
        self.only_lists.fetch_or(found.is_some(), Ordering::Relaxed);
        found.ok_or_else(|| missing(said))
    }

    /// An environment as another process of the user learned it within `max_age`, and when that one asked.
    pub fn known_environment(&self, site: &str, env: &str, max_age: Duration) -> Option<(Environment, SystemTime)> {
        self.board.environment(site, env, max_age)
    }

    /// Whether code was deployed to Test or Live yet; `None`: the API does not say. Other environments always have code.
    pub fn is_initialized(&self, site: &str, env: &str) -> Answer<Option<bool>> {
        let path = format!("sites/{}/environments/{}/settings", http::segment(site), http::segment(env));
        Ok(json::truthy(self.get(path)?.get("is_initialized")))
    }

    /// The uncommitted changes as the platform lists them; the list may be stale.
    pub fn diffstat(&self, site: &str, env: &str) -> Answer<Diffstat> {
        Ok(Diffstat::from_json(&self.ask(&self.routes.diffstat(site, env))?))
    }

    /// Switches the connection mode and waits for the outcome. A switch to Git mode deletes uncommitted changes; the
    /// caller has the user's consent.
    ///
    /// # Errors
    ///
    /// The API cannot be asked, or the workflow failed or did not end in time.
    pub fn set_mode(&self, site: &str, env: &str, mode: ConnectionMode) -> Answer<()> {
        self.run_workflow(site, &format!("the switch to {mode} mode"), &self.routes.set_mode(site, env, mode))
    }

    /// Commits all uncommitted changes and waits for the outcome.
    ///
    /// # Errors
    ///
    /// The API cannot be asked, or the workflow failed or did not end in time.
    pub fn commit(&self, site: &str, env: &str, message: &str, name: &str, email: &str) -> Answer<()> {
        let params = json!({ "message": message, "committer_name": name.trim(), "committer_email": email.trim() });
        self.run_workflow(site, "the commit", &self.routes.commit(site, env, params))
    }

    /// The history, newest first.
    pub fn log(&self, site: &str, env: &str) -> Answer<Vec<Commit>> {
        Commit::list(&self.ask(&self.routes.log(site, env))?)
    }

    /// Workflows of the site that run now, or ran when another process of the user asked within `max_age`.
    pub fn jobs(&self, site: &str, max_age: Duration) -> Answer<Vec<Workflow>> {
        if let Some(known) = self.board.jobs(site, max_age) {
            return Ok(known);
        }
        let mut jobs = Workflow::list(&self.ask(&self.routes.workflows(site))?);
        jobs.retain(|job| job.outcome.is_none());
        self.board.write_jobs(site, &jobs);
        Ok(jobs)
    }

    /// A workflow as it is now.
    pub fn workflow(&self, site: &str, id: &str) -> Answer<Workflow> {
        Workflow::from_json(&self.ask(&self.routes.workflow(site, id))?)
    }

    /// The account that is logged in.
    pub fn profile(&self) -> Answer<Profile> {
        let user = self.user_id()?;
        Profile::from_json(&self.get(format!("users/{}", http::segment(&user)))?)
    }

    /// The sites of the account and of its organizations, each once, by name.
    pub fn sites(&self) -> Answer<Vec<Site>> {
        let user = self.user_id()?;
        let mut out = self.memberships(&format!("users/{}", http::segment(&user)))?;
        for organization in self.organizations(&user) {
            match self.memberships(&format!("organizations/{}", http::segment(&organization))) {
                Ok(sites) => out.extend(sites),
                Err(error) => log::warn!("the sites of an organization cannot be listed: {error}"),
            }
        }
        out.sort_by(|a: &Site, b: &Site| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        out.dedup_by(|a, b| a.id == b.id);
        Ok(out)
    }

    /// The sites of a user or an organization. Pages may be short: the last one is empty, or has nothing new.
    fn memberships(&self, of: &str) -> Answer<Vec<Site>> {
        let (mut out, mut start) = (Vec::new(), String::new());
        let mut ids = HashSet::new();
        for _ in 0..MAX_PAGES {
            let page = self.get(format!("{of}/memberships/sites?limit={PAGE}{start}"))?;
            let (sites, members) = Site::memberships(&page);
            let before = ids.len();
            ids.extend(members.iter().cloned());
            out.extend(sites);
            match members.last() {
                Some(last) if ids.len() > before => start = format!("&start={}", http::segment(last)),
                _ => return Ok(out),
            }
        }
        log::warn!("only the first {} sites are listed", out.len());
        Ok(out)
    }

    /// The ids of the user's organizations; none where the API does not list them.
    fn organizations(&self, user: &str) -> Vec<String> {
        let path = format!("users/{}/memberships/organizations?limit={PAGE}", http::segment(user));
        match self.get(path) {
            Ok(page) => Site::organizations(&page),
            Err(error) => {
                log::info!("the organizations cannot be listed: {error}");
                Vec::new()
            }
        }
    }

    /// Names of a site's environments with what the API says about each.
    pub fn environments(&self, site: &str) -> Answer<Vec<(String, Environment)>> {
        let asked = SystemTime::now();
        let all = self.ask(&self.routes.environments(site))?;
        let Some(all) = all.as_object() else {
            return Err(ControlError::malformed("the environments", "not an object"));
        };
        self.board.write_environments(site, all, asked);
        all.iter().map(|(name, value)| Ok((name.clone(), Environment::from_json(value)?))).collect()
    }

    /// Exchanges a token for a session, saves both where Terminus does, and returns the account.
    ///
    /// # Errors
    ///
    /// The token is refused, the API cannot be asked, or the token cannot be saved.
    pub fn log_in_with(&self, token: &str) -> Answer<Profile> {
        let answer = self.patiently(true, || login::log_in(&self.http, token))?;
        self.login().keep(&answer, "", self.platform_now())?;
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
        let until = Instant::now() + WORKFLOW_LIMIT;
        loop {
            match workflow.outcome {
                Some(Outcome::Succeeded) => return Ok(()),
                Some(Outcome::Failed(reason)) => {
                    return Err(ControlError::WorkflowFailed { kind: kind.into(), reason });
                }
                None if Instant::now() > until => {
                    return Err(ControlError::WorkflowSlow { kind: kind.into(), seconds: WORKFLOW_LIMIT.as_secs() });
                }
                None => std::thread::sleep(WORKFLOW_POLL),
            }
            match self.ask(&self.routes.workflow(site, &workflow.id)) {
                Ok(value) => workflow = Workflow::from_json(&value)?,
                // The workflow goes on while the API cannot be asked.
                Err(error) if error.is_passing() => log::info!("{kind}: {error}"),
                Err(error) => return Err(error),
            }
        }
    }
}
