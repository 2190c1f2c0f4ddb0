//! TLS for callers (`server.tls`): its files, read, checked, and ready to serve with.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::aws_lc_rs::digest::{Context, Digest, SHA256};
use secrecy::zeroize::Zeroizing;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{ProducesTickets, WebPkiClientVerifier};
use tokio_rustls::rustls::{Error, RootCertStore, ServerConfig};
use x509_parser::parse_x509_certificate;

use super::file::read_file;
use super::section::Section;
use crate::clock::UnixMillis;

/// What the gateway shows to callers, and what it asks of them.
pub struct Tls {
    files: Files,
    held: Held,
    /// How often the files are looked at.
    pub refresh: Duration,
}

/// Paths only: not even the public half of a key belongs into a log.
impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("files", &self.files).finish_non_exhaustive()
    }
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_auth: ClientAuth,
}

/// Whether callers must show a certificate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum ClientAuth {
    Required,
    Optional,
}

/// What the files held when they were read.
struct Held {
    digest: Digest,
    server: Arc<ServerConfig>,
    not_after: UnixMillis,
}

/// A key of the section, and what is wrong with its file.
type Problem = (&'static str, String);

impl Tls {
    pub(super) fn read(mut section: Section<'_>) -> Option<Arc<Self>> {
        let mut path = |key| PathBuf::from(section.required::<String>(key));
        let (cert, key) = (path("cert"), path("key"));
        let client_ca: Option<String> = section.optional("client_ca");
        if client_ca.is_none() && section.has("client_auth") {
            section.report("client_auth", "needs client_ca, the authorities that vouch for callers");
        }
        let words = [("required", ClientAuth::Required), ("optional", ClientAuth::Optional)];
        let client_auth = section.one_of("client_auth", &words, Some(ClientAuth::Required));
        let refresh = section.positive_or("refresh", Duration::from_secs(10));
        let files = Files { cert, key, client_ca: client_ca.map(PathBuf::from), client_auth };
        let tls = match files.read() {
            Ok(held) => Some(Arc::new(Self { files, held, refresh })),
            Err((key, problem)) => {
                section.report(key, problem);
                None
            }
        };
        section.close();
        tls
    }

    /// What the files hold now; `None` if that is what they held before. The error is a problem for
    /// people to read.
    pub fn renewed(&self) -> Result<Option<Arc<Self>>, String> {
        let held = self.files.read().map_err(|(key, problem)| format!("server.tls.{key} {problem}"))?;
        if held.digest.as_ref() == self.held.digest.as_ref() {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self { files: self.files.clone(), held, refresh: self.refresh })))
    }

    pub fn server(&self) -> &Arc<ServerConfig> {
        &self.held.server
    }

    /// When the certificate expires.
    pub fn not_after(&self) -> UnixMillis {
        self.held.not_after
    }
}

impl Files {
    fn read(&self) -> Result<Held, Problem> {
        let contents = |key: &'static str, path: &PathBuf| {
            let read = read_file(path).map(Zeroizing::new);
            read.map_err(|error| (key, format!("cannot be read from {}: {error}", path.display())))
        };
        let (cert, key) = (contents("cert", &self.cert)?, contents("key", &self.key)?);
        let client_ca = self.client_ca.as_ref().map(|path| contents("client_ca", path)).transpose()?;
        let mut callers = Context::new(&SHA256);
        callers.update(&[
            u8::from(self.client_ca.is_some()),
            u8::from(self.client_auth == ClientAuth::Required),
        ]);
        callers.update(client_ca.as_deref().map_or(&[][..], |pem| pem));
        let mut digest = Context::new(&SHA256);
        for file in [Some(&cert), Some(&key), client_ca.as_ref()].into_iter().flatten() {
            digest.update(&file.len().to_be_bytes());
            digest.update(file);
        }

        let chain = certificates("cert", &cert)?;
        let not_after = not_after(&chain)?;
        let key = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|_| ("key", "holds no private key; it is a PEM file with one".to_owned()))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| ("cert", format!("cannot be used: {error}")))?;
        let builder = match client_ca {
            None => builder.with_no_client_auth(),
            Some(pem) => builder.with_client_cert_verifier(self.verifier(&pem, provider)?),
        };
        let mut server = builder
            .with_single_cert(chain, key)
            .map_err(|error| ("key", format!("does not go with the certificate: {error}")))?;
        server.ticketer =
            tickets(callers.finish()).map_err(|error| ("cert", format!("cannot be used: {error}")))?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Held { digest: digest.finish(), server: Arc::new(server), not_after })
    }

    fn verifier(
        &self,
        pem: &[u8],
        provider: Arc<CryptoProvider>,
    ) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates("client_ca", pem)? {
            authorities
                .add(certificate)
                .map_err(|error| ("client_ca", format!("holds what is no certificate: {error}")))?;
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(authorities), provider);
        let verifier = match self.client_auth {
            ClientAuth::Required => verifier.build(),
            ClientAuth::Optional => verifier.allow_unauthenticated().build(),
        };
        verifier.map_err(|error| ("client_ca", format!("cannot be used: {error}")))
    }
}

/// What makes tickets, with which a caller goes on with a session in place of a full handshake: keys that are changed
/// every few hours, and live as long as the process. So a renewed certificate costs nobody a handshake. A ticket vouches
/// for the certificate that its caller once showed, without another look at it: so where `callers`, which authorities
/// vouch for callers, has changed, tickets made before are worth nothing.
fn tickets(callers: Digest) -> Result<Arc<dyn ProducesTickets>, Error> {
    static KNOWN: Mutex<Vec<(Digest, Arc<dyn ProducesTickets>)>> = Mutex::new(Vec::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let (known_callers, ticketer) =
        match known.iter().position(|(known, _)| known.as_ref() == callers.as_ref()) {
            Some(at) => known.remove(at),
            None => (callers, aws_lc_rs::Ticketer::new()?),
        };
    // The last one used is the last one forgotten.
    known.truncate(MOST_TICKETERS - 1);
    known.insert(0, (known_callers, ticketer.clone()));
    Ok(ticketer)
}

/// Sets of authorities whose tickets are kept apart: the one in use, and those that a reload may go back to.
const MOST_TICKETERS: usize = 8;

fn certificates(key: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Problem> {
    match CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>() {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err((key, "holds no certificate; it is a PEM file with one or more".to_owned())),
    }
}

/// When the first certificate of a chain expires: it is the gateway's own. An old root behind it may have
/// expired without harm.
fn not_after(chain: &[CertificateDer<'_>]) -> Result<UnixMillis, Problem> {
    let parsed = chain.first().and_then(|own| parse_x509_certificate(own).ok());
    let (_, own) = parsed.ok_or_else(|| ("cert", "begins with what is no X.509 certificate".to_owned()))?;
    Ok(UnixMillis(own.validity().not_after.timestamp().saturating_mul(1000)))
}
