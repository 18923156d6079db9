//! HTTPS on loopback, with a certificate that is made at the start and that a client can be told to trust.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::{self, ServerConfig, crypto::ring};
use tokio_rustls::server::TlsStream;

/// What the certificate is for.
const NAMES: [&str; 2] = ["127.0.0.1", "localhost"];
/// Longest time for the handshake of a client.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Connections that may wait for the server.
const WAITING: usize = 16;

type Ready = (TlsStream<TcpStream>, SocketAddr);

/// Listens with TLS. A client that is slow with its handshake, or never makes one, holds nobody else.
pub(super) struct Secure {
    address: SocketAddr,
    ready: mpsc::Receiver<Ready>,
}

impl Secure {
    /// Listens on any port and writes the certificate that vouches for the server's to `authority` (PEM). Needs a runtime.
    pub(super) async fn start(authority: &Path) -> io::Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(server(authority).map_err(io::Error::other)?));
        let mut listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (give, ready) = mpsc::channel(WAITING);
        tokio::spawn(async move {
            loop {
                let (stream, from) = Listener::accept(&mut listener).await;
                let (acceptor, give) = (acceptor.clone(), give.clone());
                tokio::spawn(async move {
                    match tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await {
                        // The simulator ends if nobody takes it.
                        Ok(Ok(stream)) => drop(give.send((stream, from)).await),
                        Ok(Err(error)) => log::debug!("{from}: no TLS: {error}"),
                        Err(_) => log::debug!("{from}: no TLS in {HANDSHAKE_LIMIT:?}"),
                    }
                });
            }
        });
        Ok(Self { address, ready })
    }
}

impl Listener for Secure {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Ready {
        match self.ready.recv().await {
            Some(ready) => ready,
            // The runtime ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

/// An authority, and a certificate of it for this machine.
fn server(authority: &Path) -> Result<ServerConfig, Box<dyn std::error::Error + Send + Sync>> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "pantheonfs simulator");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    fs::write(authority, params.self_signed(&key)?.pem())?;
    let issuer = Issuer::new(params, key);
    let own = KeyPair::generate()?;
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&own, &issuer)?;
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(own.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], secret)?;
    Ok(config)
}
