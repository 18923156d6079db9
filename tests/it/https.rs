//! The API over HTTPS, with certificates that the program is told to trust and others.

use std::fs;

use pantheonfs::sim::{Sim, SimConfig};

use crate::common::has_fuse;
use crate::common::mounted::{get, post};
use crate::common::program::Environ;

fn sim() -> Sim {
    Sim::start(&SimConfig::default()).expect("the simulator starts")
}

fn without(sim: &Sim, left_out: &str) -> Environ {
    Environ::new().with(sim.secure_env().into_iter().filter(|(name, _)| name != left_out))
}

#[test]
fn a_certificate_is_trusted_where_ssl_cert_file_says_so() {
    if !has_fuse() {
        return;
    }
    let sim = sim();
    post(&format!("{}/habit", sim.control()), r#"{"name": "sleep", "value": "closed"}"#);
    let around = Environ::new().with(sim.secure_env());
    assert!(around.run(&["sites"]).ok().out().contains("sim-wordpress.dev"));
    // The environment sleeps, and is woken by HTTPS, too.
    let ran = around.run(&["doctor", &format!("{}.dev", sim.site()), "-o", &sim.options()]).ok();
    assert!(ran.out().contains("all well") && ran.out().contains("sleep: ok"), "{}", ran.out());
    assert!(get(&format!("{}/counters", sim.control()))["visits"].as_u64().expect("a number") > 0);
}

#[test]
fn an_unknown_certificate_is_refused_before_the_token_is_sent() {
    let (sim, other) = (sim(), sim());
    without(&sim, "SSL_CERT_FILE").run(&["sites"]).fails(
        5,
        &["127.0.0.1: the certificate of the server is not trusted", "UnknownIssuer", "SSL_CERT_FILE", "clock"],
    );
    let of_another = [("SSL_CERT_FILE".to_owned(), other.secure_env()["SSL_CERT_FILE"].clone())];
    Environ::new().with(sim.secure_env()).with(of_another).run(&["sites"]).fails(5, &["is not trusted"]);
    let calls = get(&format!("{}/counters", sim.control()))["api"]["calls"].as_u64();
    assert_eq!(calls, Some(0), "nothing was asked");
}

#[test]
fn a_file_without_certificates_is_said() {
    let sim = sim();
    let around = without(&sim, "SSL_CERT_FILE");
    let file = around.path("certificates.pem");
    let with = |path: &str| vec![("SSL_CERT_FILE".to_owned(), path.to_owned())];
    let path = file.display().to_string();
    let run = || around.command().arg("sites").envs(with(&path)).output().expect("runs");
    crate::common::program::Ran(run()).fails(2, &[&format!("SSL_CERT_FILE={path}"), "No such file"]);
    fs::write(&file, "nothing\n").expect("written");
    crate::common::program::Ran(run()).fails(2, &["no certificate in PEM form"]);
}
