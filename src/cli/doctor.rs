//! `pantheonfs doctor`: every step from the name to the attributes of `code`, each with "ok" or what to do. Changes nothing
//! of the site; how the server renames is tested in `tmp`.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use super::args;
use super::environ::{Environ, Platform};
use super::exit::{CliResult, Exit, Failure};
use super::options::Options;
use super::plan::{self, Plan};
use super::prompt::Terminal;
use super::report::Outcomes;
use super::source::Source;
use super::{connect, logging, machine, wake};
use crate::attr::Area;
use crate::control::Control;
use crate::fs::Layout;
use crate::gate::Gate;
use crate::path::RemotePath;
use crate::remote::{Base, Remote, Store};

/// Limit of a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Longest greeting that is read (bytes); the protocol allows 255.
const MAX_BANNER_BYTES: u64 = 1024;

pub(super) fn run(args: &args::Doctor) -> CliResult<()> {
    logging::start(0);
    let mut steps = Steps(Outcomes::new(args.output.json));
    let result = walk(args, &mut steps);
    steps.0.end()?;
    result
}

fn walk(args: &args::Doctor, steps: &mut Steps) -> CliResult<()> {
    let around = Environ::look()?;
    let source = match &args.source {
        Some(source) => Source::parse_or_dev(source)?.0,
        None => match around.sites.infer(&around.here) {
            Ok(source) => source,
            Err(_) => return machine(&around, steps),
        },
    };
    let options = Options::parse(&args.options, &around.here, around.home.as_deref())?;
    steps.step("fuse", machine::fuse())?;
    if let Source::Pantheon { .. } = source {
        let platform = around.platform()?;
        if let Some(settings) = &platform.settings {
            steps.note("settings", settings)?;
        }
        log_in(platform, steps)?;
    }
    let plan = steps.value("platform", plan::make(&source, &options, &around, &|_, _| None), describe_platform)?;
    if let Some(waker) = &plan.waker
        && !answers(&plan)
    {
        steps.step("sleep", wake::visit(waker, || answers(&plan)))?;
    }
    let addresses =
        steps.value("dns", resolve(&plan), |found| format!("{} is {}", plan.endpoint.address, found[0].ip()))?;
    let stream = steps.value("port", reach(&plan, &addresses), |(_, at)| format!("{at} answers"))?;
    steps.step("banner", banner(&plan, stream.0))?;
    steps.note("keys", &keys(&plan))?;
    let terminal = Arc::new(Terminal::new());
    let (remote, _) = steps.value("ssh and sftp", connect::connect(&plan, &options, &terminal), |_| {
        "connected, host key accepted, logged in, the directory is there".into()
    })?;
    describe_session(&remote, steps)?;
    steps.step("rename", renames(&remote, &plan))?;
    remote.close();
    steps.note("all well", &format!("pantheonfs mount {source}"))
}

/// Every need of a mount that this machine can meet by itself. A failure does not keep the other steps.
fn machine(around: &Environ, steps: &mut Steps) -> CliResult<()> {
    let mut failed = None;
    let mut step = |steps: &mut Steps, what: &str, result| match steps.step(what, result) {
        Err(failure) if failure.exit != Exit::Done => failed = failed.or(Some(failure.exit)),
        _ => {}
    };
    step(steps, "fuse", machine::fuse());
    step(steps, "login", around.platform().and_then(machine::login));
    step(steps, "keys", machine::keys(around));
    step(steps, "git", machine::program("git", "--version", "the .git of a mount and for reading from the repository"));
    step(steps, "ssh", machine::program("ssh", "-V", "ProxyJump, ProxyCommand and git"));
    step(steps, "state", around.state_root().map(|dir| format!("{} can be used", dir.display())));
    steps.note("mount(8)", &machine::mount_helper())?;
    match failed {
        Some(exit) => Err(Failure::silent(exit)),
        None => steps.note("all well", "check a site next: pantheonfs doctor SITE.ENV"),
    }
}

/// Whether there is something to log in with. Without it a site that was mounted before can be mounted, so this is no failure.
fn log_in(platform: Platform, steps: &mut Steps) -> CliResult<()> {
    let warning = Control::new(platform.control.clone())?.token_warning();
    match machine::login(platform) {
        Ok(from) => steps.note("login", &from)?,
        Err(failure) => steps.note("login", &failure.explain())?,
    }
    warning.map_or(Ok(()), |warning| steps.note("token", &warning))
}

/// The results of the steps.
struct Steps(Outcomes);

impl Steps {
    fn note(&mut self, what: &str, text: &str) -> CliResult<()> {
        self.0.add(what, text)
    }

    fn step(&mut self, what: &str, result: CliResult<String>) -> CliResult<()> {
        self.value(what, result, String::clone).map(drop)
    }

    fn value<T>(&mut self, what: &str, result: CliResult<T>, say: impl Fn(&T) -> String) -> CliResult<T> {
        match result {
            Ok(value) => {
                self.note(what, &format!("ok: {}", say(&value)))?;
                Ok(value)
            }
            Err(failure) => {
                self.note(what, &format!("FAILED: {}", failure.explain()))?;
                Err(Failure::silent(failure.exit))
            }
        }
    }
}

/// Whether an SSH server answers; while an environment sleeps there may be none.
fn answers(plan: &Plan) -> bool {
    let reached = resolve(plan).and_then(|addresses| reach(plan, &addresses));
    reached.and_then(|(stream, _)| banner(plan, stream)).is_ok()
}

/// The greeting of the SSH server.
fn banner(plan: &Plan, stream: TcpStream) -> CliResult<String> {
    let host = &plan.endpoint.address;
    let silent = |e: std::io::Error| {
        let text =
            format!("{host}: connected, but no SSH greeting came ({e}); check for a proxy or firewall in between");
        Failure::caused(Exit::NotSftp, text, e)
    };
    stream.set_read_timeout(Some(CONNECT_LIMIT)).map_err(silent)?;
    let mut line = Vec::new();
    BufReader::new(stream.take(MAX_BANNER_BYTES)).read_until(b'\n', &mut line).map_err(silent)?;
    let text: String = String::from_utf8_lossy(&line).chars().filter(|c| !c.is_control()).collect();
    if text.starts_with("SSH-2.0-") {
        return Ok(text);
    }
    Err(Failure::new(
        Exit::NotSftp,
        format!("{host}: the server is no SSH server (its greeting is '{text}'); check the port"),
    ))
}

/// The keys that can be offered, with their types.
fn keys(plan: &Plan) -> String {
    let mut out: Vec<String> = Vec::new();
    if plan.endpoint.agent.is_some() {
        out.push("the agent's".into());
    }
    for file in &plan.endpoint.identity_files {
        let public = std::fs::read_to_string(format!("{}.pub", file.display())).unwrap_or_default();
        let kind = public.split_whitespace().next().unwrap_or("type unknown");
        let remark = if kind == "ssh-ed25519" { ", which Pantheon does not accept" } else { "" };
        if file.exists() {
            out.push(format!("{} ({kind}{remark})", file.display()));
        }
    }
    if out.is_empty() {
        "none found; Pantheon accepts only keys, other servers may ask for a password".into()
    } else {
        out.join(", ")
    }
}

fn describe_platform(plan: &Plan) -> String {
    match (&plan.initial, &plan.env.name) {
        (Some(environment), Some(name)) => format!(
            "environment {name}, mode {}, commit {}, {} uncommitted (as the platform lists them)",
            environment.mode,
            environment.target_commit.as_deref().unwrap_or("unknown"),
            environment.diffstat.len()
        ),
        (None, Some(name)) => format!("environment {name}; the API was not asked, so the mode is not known"),
        (_, None) => "a plain SFTP server, without an API".into(),
    }
}

fn resolve(plan: &Plan) -> CliResult<Vec<std::net::SocketAddr>> {
    let (host, port) = (&plan.endpoint.address, plan.endpoint.port);
    let failed = |detail: String| {
        let text =
            format!("{host}: the name cannot be resolved ({detail}); check the spelling, or try another DNS server");
        Failure::new(Exit::Unreachable, text)
    };
    let found: Vec<_> = (host.as_str(), port).to_socket_addrs().map_err(|e| failed(e.to_string()))?.collect();
    if found.is_empty() {
        return Err(failed("no address".into()));
    }
    Ok(found)
}

fn reach(plan: &Plan, addresses: &[std::net::SocketAddr]) -> CliResult<(TcpStream, std::net::SocketAddr)> {
    let mut last = String::new();
    for address in addresses {
        match TcpStream::connect_timeout(address, CONNECT_LIMIT) {
            Ok(stream) => return Ok((stream, *address)),
            Err(error) => last = error.to_string(),
        }
    }
    let text = format!(
        "port {} of {} does not answer ({last}); the network may block it: try another network, or a jump host",
        plan.endpoint.port, plan.endpoint.address
    );
    Err(Failure::new(Exit::Unreachable, text))
}

fn describe_session(remote: &Remote, steps: &mut Steps) -> CliResult<()> {
    let Some(info) = remote.session_info() else { return Ok(()) };
    if !info.transport.login.is_empty() {
        steps.note("accepted", &info.transport.login)?;
    }
    let key = if info.transport.host_key.is_empty() { "checked by ssh" } else { &info.transport.host_key };
    steps.note("transport", &format!("{} to {}, host key {key}", info.transport.kind, info.transport.peer))?;
    let names = info.capabilities.names();
    steps.note("extensions", &if names.is_empty() { "none".to_owned() } else { names.join(", ") })?;
    if let Some(rtt) = info.round_trip {
        steps.note("round trip", &format!("{:.1} ms", rtt.as_secs_f64() * 1000.0))?;
    }
    Ok(())
}

/// Tests renames with a small file in `tmp`, which is no part of the site.
fn renames(remote: &Remote, plan: &Plan) -> CliResult<String> {
    if plan.layout != Layout::Pantheon {
        return Ok("not tested: this server has no directory for temporary files".into());
    }
    let failed = |e: &dyn std::fmt::Display| Failure::new(Exit::Failed, format!("tmp cannot be written: {e}"));
    // A gate of its own, because writes in tmp do not depend on the mode.
    let permit = Gate::new().admit(Area::Code).map_err(|e| failed(&e))?;
    let path = |tail: &str| {
        let name = format!("tmp/.pantheonfs-doctor-{}{tail}", std::process::id());
        RemotePath::parse(name).unwrap_or_else(|_| RemotePath::root())
    };
    let file = tempfile::tempfile().map_err(|e| failed(&e))?;
    let how = Store {
        base: Base::Any,
        base_sum: None,
        unchanged: Vec::new(),
        perm: None,
        made_with: None,
        own_perm: false,
        mtime: None,
        temp_dir: None,
    };
    remote.store(&permit, &path("-a"), &file, 0, &how, &|_| {}).map_err(|e| failed(&e))?;
    remote.store(&permit, &path("-b"), &file, 0, &how, &|_| {}).map_err(|e| failed(&e))?;
    let moved = remote.rename(&permit, &path("-a"), &path("-b"), true, None, &|_| {});
    let refused = remote.refuses_rename(Area::Code);
    for tail in ["-a", "-b"] {
        // One of them is gone after the rename.
        let _ = remote.unlink(&permit, &path(tail), None);
    }
    moved.map_err(|e| failed(&e))?;
    let atomic = remote.session_info().is_some_and(|info| info.capabilities.posix_rename);
    Ok(match (refused, atomic) {
        (true, _) => "refused by the server; files are moved by copy, verify, delete".into(),
        (false, true) => "posix-rename: a save replaces a file in one step".into(),
        (false, false) => "plain rename: a save writes over the old content".into(),
    })
}
