//! `pantheonfs login` and `pantheonfs sites`.

use std::io::IsTerminal;

use serde_json::json;
use zeroize::Zeroizing;

use super::environ::Environ;
use super::exit::{CliResult, Exit, Failure};
use super::report;
use crate::control::{Control, ControlError, EnvKind, Environment, Site};
use crate::text::{self, visible};

/// `pantheonfs login`: exchanges a token for a session and saves both where Terminus does.
pub(super) fn login(as_json: bool) -> CliResult<()> {
    let platform = Environ::look()?.platform()?;
    let token = read_token()?;
    if token.trim().is_empty() {
        let text =
            "no token was given; create a Personal Access Token (https://docs.pantheon.io/personal-access-tokens)";
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut config = platform.control;
    // The token is saved, so one from the environment, which is for single runs, must not be used.
    config.token = None;
    let profile = Control::new(config)?.log_in_with(token.trim())?;
    if as_json {
        let answer = json!({ "email": profile.email, "name": profile.full_name });
        return report::print(format!("{answer:#}\n").as_bytes());
    }
    report::print(format!("logged in as {} ({})\n", visible(&profile.email), visible(&profile.full_name)).as_bytes())
}

fn read_token() -> CliResult<Zeroizing<String>> {
    let failed = |e: std::io::Error| Failure::caused(Exit::Failed, "the token cannot be read", e);
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password("Personal Access Token: ").map(Zeroizing::new).map_err(failed);
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(line)
}

/// `pantheonfs sites`: lists the sites of the account, or one of them.
pub(super) fn sites(only: Option<&str>, as_json: bool) -> CliResult<()> {
    let control = Control::new(Environ::look()?.platform()?.control)?;
    let mut sites = control.sites()?;
    if let Some(name) = only {
        sites.retain(|site| site.name == name || site.id == name);
        if sites.is_empty() {
            return Err(Failure::new(Exit::NoSuchSite, format!("{name}: no such site in your account")));
        }
    }
    let mut out = Vec::new();
    for (site, environments) in with_environments(&control, sites) {
        let environments = environments?;
        if !as_json {
            report::print(listed(&site, &environments).as_bytes())?;
        }
        let list: Vec<_> =
            environments.iter().map(|(name, env)| json!({ "name": name, "mode": env.mode.to_string() })).collect();
        out.push(json!({ "name": site.name, "id": site.id, "framework": site.framework, "environments": list }));
    }
    if as_json {
        report::print(text::json(&out.into()).as_bytes())?;
    }
    Ok(())
}

/// How many sites the API is asked about at a time: one by one, an account with thousands of sites would take an hour.
const AT_A_TIME: usize = 16;

type Environments = Result<Vec<(String, Environment)>, ControlError>;

/// Every site with its environments, in order.
fn with_environments(control: &Control, sites: Vec<Site>) -> impl Iterator<Item = (Site, Environments)> {
    let mut sites = sites.into_iter();
    let next = move || {
        let some: Vec<Site> = sites.by_ref().take(AT_A_TIME).collect();
        let asked: Vec<Environments> = std::thread::scope(|scope| {
            let ask = |site: &Site| {
                let id = site.id.clone();
                scope.spawn(move || control.environments(&id))
            };
            let asking: Vec<_> = some.iter().map(ask).collect();
            let none = || ControlError::malformed("the environments", "no answer");
            asking.into_iter().map(|asked| asked.join().unwrap_or_else(|_| Err(none()))).collect()
        });
        (!some.is_empty()).then(|| some.into_iter().zip(asked).collect::<Vec<_>>())
    };
    std::iter::from_fn(next).flatten()
}

/// The lines about a site.
fn listed(site: &Site, environments: &[(String, Environment)]) -> String {
    let site_name = visible(&site.name);
    let frozen = if site.frozen { ", frozen" } else { "" };
    let mut text = format!("{site_name} ({}{frozen})\n", visible(&site.framework));
    for (name, environment) in environments {
        text.push_str(&format!("  {site_name}.{}\t{}\n", visible(name), describe(name, environment)));
    }
    text
}

fn describe(name: &str, environment: &Environment) -> String {
    if !EnvKind::of(name).takes_code() {
        return "code is read-only".into();
    }
    match environment.diffstat.len() {
        0 => format!("{} mode", environment.mode),
        n => format!("{} mode, {n} uncommitted", environment.mode),
    }
}
