//! Whose certificates are trusted.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};

use super::error::ControlError;

/// `file`: the only certificates (PEM) that are trusted; `None`: those that Mozilla trusts.
///
/// # Errors
///
/// The file cannot be read, or has no certificate.
pub(super) fn config(file: Option<&Path>) -> Result<TlsConfig, ControlError> {
    let Some(file) = file else { return Ok(TlsConfig::default()) };
    let unusable = |e: io::Error| ControlError::NoCertificates { file: file.to_owned(), source: Arc::new(e) };
    let text = fs::read(file).map_err(unusable)?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(unusable(io::Error::other("it has no certificate in PEM form")));
    }
    Ok(TlsConfig::builder().root_certs(RootCerts::new_with_certs(&certificates)).build())
}

/// The error for a connection that was not made. rustls has no other mark of a certificate that it does not accept.
pub(super) fn failed(host: &str, error: ureq::Error) -> ControlError {
    if error.to_string().contains("invalid peer certificate") {
        return ControlError::Untrusted { host: host.to_owned(), source: Arc::new(error) };
    }
    ControlError::unreachable(host, error)
}
