//! https for the stand-in and for an issuer: a front that takes TLS off and passes bytes on, errors included.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use rcgen::generate_simple_self_signed;
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Whose certificate the gateway is told to trust.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trust {
    Upstream,
    SomebodyElse,
}

/// A running front; it ends when it is dropped.
pub struct Front {
    address: SocketAddr,
    certificate: String,
    right: TlsAcceptor,
    shown: Arc<Mutex<TlsAcceptor>>,
    server: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Front {
    pub async fn before(upstream: SocketAddr) -> Self {
        Self::named("127.0.0.1", upstream).await
    }

    /// One whose certificate is made out to `name`.
    pub async fn named(name: &str, upstream: SocketAddr) -> Self {
        let (right, certificate) = acceptor(name);
        let shown = Arc::new(Mutex::new(right.clone()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let to_show = shown.clone();
        let server = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = to_show.lock().unwrap().clone();
                connections.spawn(pass(acceptor, stream, upstream));
            }
        });
        Self { address, certificate, right, shown, server }
    }

    /// From here on it shows somebody else's certificate; or its own again.
    pub fn pretends(&self, pretends: bool) {
        *self.shown.lock().unwrap() = if pretends { acceptor("127.0.0.1").0 } else { self.right.clone() };
    }

    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// PEM of what the gateway is to trust.
    pub fn certificate(&self, trust: Trust) -> String {
        match trust {
            Trust::Upstream => self.certificate.clone(),
            Trust::SomebodyElse => generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap().cert.pem(),
        }
    }
}

/// A certificate of its own, and its PEM.
fn acceptor(name: &str) -> (TlsAcceptor, String) {
    let own = generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), own.cert.pem())
}

/// One connection. A reset on the far side is one on the near side too.
async fn pass(acceptor: TlsAcceptor, near: TcpStream, upstream: SocketAddr) {
    let Ok(near) = acceptor.accept(near).await else { return };
    let Ok(far) = TcpStream::connect(upstream).await else { return };
    let (mut near_read, mut near_write) = tokio::io::split(near);
    let (mut far_read, mut far_write) = far.into_split();
    let there = async {
        let _ = copy(&mut near_read, &mut far_write).await;
        let _ = far_write.shutdown().await;
    };
    let back = async {
        let ended = copy(&mut far_read, &mut near_write).await;
        if ended.is_ok() {
            let _ = near_write.shutdown().await;
        }
    };
    tokio::select! {
        () = there => {}
        () = back => {}
    }
}
