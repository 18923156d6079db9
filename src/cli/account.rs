//! `pantheonfs login` and `pantheonfs sites`.

use std::io::IsTerminal;

use serde_json::json;
use zeroize::Zeroizing;

use super::exit::{CliResult, Exit, Failure};
use super::report;
use super::surroundings::Surroundings;
use crate::control::{Control, EnvKind, Environment};

/// Exchanges a machine token for a session; both are kept where Terminus keeps them, for their owner only.
pub(super) fn login(as_json: bool) -> CliResult<()> {
    let around = Surroundings::look()?;
    let token = read_token()?;
    if token.trim().is_empty() {
        let text =
            "no machine token was given; make one at https://dashboard.pantheon.io/personal-settings/machine-tokens";
        return Err(Failure::new(Exit::Usage, text));
    }
    let mut config = around.control;
    // What is saved counts, not what the environment says for single runs.
    config.token = None;
    let profile = Control::new(config)?.log_in_with(token.trim())?;
    if as_json {
        let answer = json!({ "email": profile.email, "name": profile.full_name });
        return report::print(format!("{answer:#}\n").as_bytes());
    }
    report::print(format!("logged in as {} ({})\n", profile.email, profile.full_name).as_bytes())
}

fn read_token() -> CliResult<Zeroizing<String>> {
    let failed = |e: std::io::Error| Failure::new(Exit::Failed, format!("the token cannot be read: {e}"));
    if std::io::stdin().is_terminal() {
        return rpassword::prompt_password("Machine token: ").map(Zeroizing::new).map_err(failed);
    }
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().read_line(&mut line).map_err(failed)?;
    Ok(line)
}

pub(super) fn sites(only: Option<&str>, as_json: bool) -> CliResult<()> {
    let control = Control::new(Surroundings::look()?.control)?;
    let mut sites = control.sites()?;
    if let Some(name) = only {
        sites.retain(|site| site.name == name || site.id == name);
        if sites.is_empty() {
            return Err(Failure::new(Exit::NoSuchSite, format!("{name}: no such site in your account")));
        }
    }
    let mut out = Vec::new();
    for site in sites {
        let environments = control.environments(&site.id)?;
        if !as_json {
            println!("{} ({}{})", site.name, site.framework, if site.frozen { ", frozen" } else { "" });
            environments.iter().for_each(|(name, env)| println!("  {}.{name}\t{}", site.name, describe(name, env)));
        }
        let list: Vec<_> =
            environments.iter().map(|(name, env)| json!({ "name": name, "mode": env.mode.to_string() })).collect();
        out.push(json!({ "name": site.name, "id": site.id, "framework": site.framework, "environments": list }));
    }
    if as_json {
        report::print(format!("{:#}\n", serde_json::Value::from(out)).as_bytes())?;
    }
    Ok(())
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
