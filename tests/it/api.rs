//! An API that is broken or means harm: more than anybody can read, other things than JSON, other places, other types, and
//! nothing at all, slowly. An error that says so, in bounded time and memory. And an account of 10,000 sites.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use pantheonfs::control::{Control, ControlConfig};
use serde_json::{Value, json};

use crate::common::program::Environ;
use crate::memory::peak_of;

const API: i32 = 5;
/// How long one call may take, and a little more.
const CALL: Duration = Duration::from_secs(30);
/// What an answer may take in memory at most (bytes); other tests run meanwhile.
const MEMORY: usize = 700 << 20;

type Says = dyn Fn(&str, &mut TcpStream) + Send + Sync;

/// A server on loopback that logs anybody in and says what a test wants to everything else.
struct Api {
    at: SocketAddr,
    asked: Arc<AtomicU64>,
}

impl Api {
    fn start(says: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let (at, says, asked) =
            (listener.local_addr().expect("an address"), Arc::new(says), Arc::new(AtomicU64::new(0)));
        let count = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (says, count) = (says.clone(), count.clone());
                std::thread::spawn(move || serve(stream, says.as_ref(), &count));
            }
        });
        Self { at, asked }
    }

    fn config(&self) -> ControlConfig {
        ControlConfig {
            protocol: Some("http".into()),
            host: Some(self.at.ip().to_string()),
            port: Some(self.at.port()),
            token: Some("token".to_owned().into()),
            ..ControlConfig::default()
        }
    }

    fn environ(&self) -> Environ {
        let pairs = [
            ("TERMINUS_PROTOCOL", "http".to_owned()),
            ("TERMINUS_HOST", self.at.ip().to_string()),
            ("TERMINUS_PORT", self.at.port().to_string()),
            ("TERMINUS_MACHINE_TOKEN", "token".to_owned()),
        ];
        Environ::new().with(pairs.map(|(name, value)| (name.to_owned(), value)))
    }
}

fn serve(mut stream: TcpStream, says: &Says, count: &AtomicU64) {
    let mut lines = BufReader::new(stream.try_clone().expect("a copy"));
    let mut first = String::new();
    if lines.read_line(&mut first).is_err() {
        return;
    }
    let mut body = 0;
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        let line = line.to_ascii_lowercase();
        body = line.strip_prefix("content-length:").map_or(body, |len| len.trim().parse().unwrap_or(0));
    }
    std::io::copy(&mut std::io::Read::take(&mut lines, body), &mut std::io::sink()).ok();
    count.fetch_add(1, Ordering::SeqCst);
    let path = first.split(' ').nth(1).unwrap_or_default();
    if path.contains("authorize") {
        answer(
            &mut stream,
            200,
            "",
            &json!({ "session": "s", "user_id": "u", "expires_at": 9_999_999_999_i64 }).to_string(),
        );
    } else {
        says(path, &mut stream);
    }
}

fn answer(stream: &mut TcpStream, status: u16, headers: &str, body: &str) {
    let len = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {len}\r\n{headers}\r\n");
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
}

/// A body without an announced length, piece by piece, for as long as somebody listens.
fn pour(stream: &mut TcpStream, piece: &[u8], times: usize, pause: Duration) {
    let mut said = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
    for _ in 0..times {
        if said.is_err() {
            return;
        }
        said = stream.write_all(piece);
        std::thread::sleep(pause);
    }
}

/// The calls of a mount and of `sites` on such a server: each fails in time, says whose answer it was and what to do.
fn fails(what: &str, says: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) {
    let api = Api::start(says);
    let control = Control::new(api.config()).expect("fine");
    let (error, peak) = peak_of(|| {
        let began = Instant::now();
        let error = control.sites().err().or_else(|| control.environment("site", "dev").err());
        assert!(began.elapsed() < CALL, "{what}: {:?}", began.elapsed());
        error
    });
    let said = error.unwrap_or_else(|| panic!("{what}: no error")).to_string();
    assert!(said.contains("API") && said.contains("; "), "{what}: {said}");
    assert!(said.len() < 1000 && !said.contains('\n'), "{what}: {said}");
    assert!(peak < MEMORY, "{what}: {peak} bytes");
}

#[test]
fn an_answer_over_the_size_limit_is_an_error() {
    fails("100 MB of JSON", |_, stream| pour(stream, &b"[1,2,3],".repeat(1 << 17), 100, Duration::ZERO));
    fails("100 MB of numbers", |_, stream| pour(stream, &b"[0,0,0,0".repeat(1 << 17), 100, Duration::ZERO));
    fails("nested deeply", |_, stream| answer(stream, 200, "", &"[".repeat(1_000_000)));
    fails("nested deeply and closed", |_, stream| {
        answer(stream, 200, "", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)));
    });
    fails("headers without an end", |_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        (0..100_000).try_for_each(|n| stream.write_all(format!("X-{n}: {}\r\n", "x".repeat(1000)).as_bytes())).ok();
    });
    eprintln!("survived: 5 oversized replies of the API");
}

#[test]
fn answers_that_are_not_json_are_errors() {
    fails("a web page", |_, stream| {
        answer(stream, 200, "Content-Type: text/html\r\n", "<html>down for maintenance</html>")
    });
    fails("an error page", |_, stream| answer(stream, 503, "", &"<html>\x1b[31m</html>\n".repeat(100_000)));
    fails("no HTTP", |_, stream| drop(stream.write_all(b"SSH-2.0-OpenSSH_9.6\r\n")));
    fails("nothing", |_, _| {});
    fails("half of it", |_, stream| drop(stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[{\"id\"")));
    fails("no text", |_, stream| answer(stream, 200, "", "\u{0}\u{1}"));
    eprintln!("survived: 6 replies of the API that are not JSON");
}

#[test]
fn fields_of_wrong_types_are_errors_or_ignored() {
    let values =
        [json!(null), json!(7), json!(""), json!([]), json!({}), json!([[[]]]), json!({ "id": {}, "site": 1 })];
    let mut survived = 0;
    for value in values {
        let wrong: Value = json!([{ "id": value, "site_id": value, "site": value, "archived": value, "name": value }]);
        for body in [value.clone(), wrong, json!({ "dev": value, "diffstat": value, "target_commit": value })] {
            let text = body.to_string();
            let api = Api::start(move |_, stream| answer(stream, 200, "", &text));
            let control = Control::new(api.config()).expect("fine");
            let _ = (control.sites(), control.environments("s"), control.environment("s", "dev"));
            let _ = (control.site("s"), control.site_id("s"), control.diffstat("s", "dev"), control.log("s", "dev"));
            let _ = (control.profile(), control.running("s", "dev"));
            survived += 9;
        }
    }
    eprintln!("survived: {survived} replies of the API with wrong types");
}

/// A redirect would carry the session to whoever asks for it.
#[test]
fn redirects_are_not_followed() {
    let elsewhere = Api::start(|_, stream| answer(stream, 200, "", "[]"));
    let place = format!("Location: http://{}/api/stolen\r\n", elsewhere.at);
    for status in [301, 302, 303, 307, 308] {
        let place = place.clone();
        fails("elsewhere", move |_, stream| answer(stream, status, &place, ""));
    }
    assert_eq!(elsewhere.asked.load(Ordering::SeqCst), 0, "nobody went there");
}

#[test]
fn a_slow_drip_ends_with_the_time_limit() {
    let api = Api::start(|_, stream| pour(stream, b" ", 10_000, Duration::from_millis(100)));
    let began = Instant::now();
    let ran = api.environ().run(&["sites"]);
    assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
    ran.fails(API, &["API", "check the network"]);
}

#[test]
fn an_account_of_ten_thousand_sites_is_listed() {
    const SITES: usize = 10_000;
    let api = Api::start(|path, stream| {
        if !path.contains("memberships") {
            return answer(stream, 200, "", &json!({ "dev": { "on_server_development": true } }).to_string());
        }
        let from = path.split("start=m").nth(1).map_or(0, |last| last.parse::<usize>().expect("a number") + 1);
        let member = |n: usize| {
            let site = json!({ "name": format!("site-{n:05}\x1b[31m"), "framework": "drupal" });
            json!({ "id": format!("m{n}"), "site_id": format!("id-{n}"), "site": site })
        };
        let page: Vec<Value> = (from..SITES.min(from + 100)).map(member).collect();
        answer(stream, 200, "", &Value::from(page).to_string());
    });
    let ran = api.environ().run(&["sites"]).ok();
    let text = ran.out();
    assert_eq!(text.lines().filter(|line| line.ends_with("(drupal)")).count(), SITES);
    assert!(text.contains("  site-09999") && text.contains(".dev\tsftp mode\n") && !text.contains('\x1b'));
}
