//! The platform's gateway fails at any single request of a commit: what is reported is what the repository has in the end.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;

use pantheonfs::clock::Clock;
use pantheonfs::control::{Control, ControlConfig};
use pantheonfs::env::{Env, EnvConfig};
use pantheonfs::gate::Gate;
use pantheonfs::sim::{Sim, SimConfig};
use parking_lot::Mutex;

use crate::common::mounted::post;

/// How a request fails.
#[derive(Debug, Clone, Copy, PartialEq)]
enum How {
    /// The connection ends before the platform has the request.
    Closed,
    /// The platform has the request, and the answer is lost.
    AnswerLost,
    /// A page of the gateway in place of an answer.
    Page,
    /// All sessions have ended.
    Expired,
}

#[derive(Clone, Copy)]
struct Plan {
    how: How,
    /// Number of the request that fails, and of those so far.
    at: usize,
    seen: usize,
}

/// A server between client and platform.
struct Gateway {
    port: u16,
    plan: Arc<Mutex<Plan>>,
}

impl Gateway {
    fn start(sim: &Sim) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let plan = Arc::new(Mutex::new(Plan { how: How::Closed, at: usize::MAX, seen: 0 }));
        let (to, control, shared) = (sim.env()["TERMINUS_PORT"].clone(), sim.control(), plan.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (to, control, plan) = (to.clone(), control.clone(), shared.clone());
                // A client that has gone away is no fault of the gateway.
                std::thread::spawn(move || drop(pass(stream, &to, &control, &plan)));
            }
        });
        Self { port, plan }
    }
}

/// Passes one request on, with its answer, unless it is the one that fails.
fn pass(mut client: TcpStream, to: &str, control: &str, plan: &Mutex<Plan>) -> io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
        if line == "\r\n" {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let fails = {
        let mut plan = plan.lock();
        plan.seen += 1;
        (plan.seen - 1 == plan.at).then_some(plan.how)
    };
    match fails {
        Some(How::Closed) => return Ok(()),
        Some(How::Page) => {
            let page = "<html><body><h1>502 Bad Gateway</h1></body></html>";
            let length = page.len();
            return write!(
                client,
                "HTTP/1.1 502 Bad Gateway\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{page}"
            );
        }
        Some(How::Expired) => drop(post(&format!("{control}/expire"), "{}")),
        Some(How::AnswerLost) | None => {}
    }
    let mut server = TcpStream::connect(format!("127.0.0.1:{to}"))?;
    write!(server, "{head}Connection: close\r\n\r\n")?;
    server.write_all(&body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    if fails == Some(How::AnswerLost) { Ok(()) } else { client.write_all(&answer) }
}

fn head(sim: &Sim) -> String {
    let mut git = Command::new("git");
    git.arg("--git-dir").arg(sim.repository()).args(["log", "-1", "--format=%H %s", "master"]);
    let log = git.output().expect("git runs");
    String::from_utf8_lossy(&log.stdout).trim().to_owned()
}

fn environment(sim: &Sim, gateway: &Gateway) -> Env {
    let config = ControlConfig {
        protocol: Some("http".into()),
        host: Some("127.0.0.1".into()),
        port: Some(gateway.port),
        token: Some(sim.env()["TERMINUS_MACHINE_TOKEN"].clone().into()),
        ..ControlConfig::default()
    };
    let config = EnvConfig {
        name: Some("dev".into()),
        api: Some((Control::new(config).expect("a client"), sim.site_id().to_owned())),
        mode: None,
        memory: None,
        read_only: false,
        author: Some(("Dev".into(), "dev@x.example".into())),
    };
    Env::start(config, Gate::new(), Clock::system(), None)
}

/// A commit whose request number `at` fails. Returns whether there was such a request.
fn commit_with_failure(sim: &Sim, gateway: &Gateway, env: &Env, how: How, at: usize) -> bool {
    let message = format!("{how:?} at {at}");
    fs::write(sim.home("dev").join("code/index.php"), format!("<?php // {message}\n")).expect("written");
    let before = head(sim);
    *gateway.plan.lock() = Plan { how, at, seen: 0 };
    let done = env.commit(&message);
    let reached = gateway.plan.lock().seen > at;
    let after = head(sim);
    match done {
        Ok(committed) => assert_eq!(after, format!("{} {message}", committed.hash)),
        Err(error) => {
            assert_eq!(after, before, "{message}: reported as failed: {error}");
            assert!(how != How::Expired, "{message}: {error}");
        }
    }
    reached
}

#[test]
fn what_is_reported_of_a_commit_is_what_the_repository_has() {
    let quirks = vec![("sync".to_owned(), "none".to_owned()), ("single-environment".to_owned(), "served".to_owned())];
    let sim = Sim::start(&SimConfig { quirks, ..SimConfig::default() }).expect("the simulator starts");
    let gateway = Gateway::start(&sim);
    let env = environment(&sim, &gateway);
    for how in [How::AnswerLost, How::Page, How::Expired, How::Closed] {
        let requests = (0..40).take_while(|at| commit_with_failure(&sim, &gateway, &env, how, *at)).count();
        assert!((4..40).contains(&requests), "{how:?}: {requests} requests of a commit");
    }
    env.stop();
}
