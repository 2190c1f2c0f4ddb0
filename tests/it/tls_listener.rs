//! TLS for callers: both versions by ALPN, certificates that are taken up when their files change,
//! and callers' own certificates where they are asked for.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, RootCertStore, SupportedProtocolVersion};

use crate::caller::http2;
use crate::world::{OPS_TOKEN, Setup, World, admin, change_config, got, reload, with_ops_token};

/// Somebody who vouches for certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A date in seconds: 3000-01-01.
const FAR: u64 = 32_503_680_000;

/// A certificate and its key.
#[derive(Clone)]
pub struct Identity {
    cert: String,
    key: String,
    cert_der: CertificateDer<'static>,
    key_der: Vec<u8>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn issue(&self) -> Identity {
        self.issue_until(UNIX_EPOCH + Duration::from_secs(FAR))
    }

    pub fn issue_until(&self, not_after: SystemTime) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        params.not_after = not_after.into();
        let cert = params.signed_by(&key, &self.0).unwrap();
        let (cert, cert_der) = (cert.pem(), cert.der().clone());
        Identity { cert, key: key.serialize_pem(), cert_der, key_der: key.serialize_der() }
    }
}

/// Where an identity is written in a folder.
pub fn files(folder: &Path) -> (PathBuf, PathBuf) {
    (folder.join("tls.crt"), folder.join("tls.key"))
}

impl Identity {
    /// As files, each swapped whole, as it is done by whoever renews certificates.
    pub fn write(&self, folder: &Path) {
        let (cert, key) = files(folder);
        for (path, pem) in [(cert, &self.cert), (key, &self.key)] {
            let new = path.with_extension("new");
            std::fs::write(&new, pem).unwrap();
            std::fs::rename(new, path).unwrap();
        }
    }
}

/// Sets TLS up with an identity, and more keys of `server.tls`.
pub fn with_tls(setup: &mut Setup, identity: &Identity, more: &str) {
    let folder = setup.secrets.path().to_owned();
    identity.write(&folder);
    let (cert, key) = files(&folder);
    let (cert, key) = (cert.display(), key.display());
    setup.config.push_str(&format!(
        "server.tls = {{ cert = \"{cert}\", key = \"{key}\", refresh = \"20ms\"{more} }}\n"
    ));
}

/// A handshake, as a caller who trusts the authority.
pub async fn connected(
    world: &World,
    authority: &Authority,
    protocols: &[&str],
    own: Option<&Identity>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let config = ClientConfig::builder().with_root_certificates(roots);
    let mut config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::Pkcs8(own.key_der.clone().into());
            config.with_client_auth_cert(vec![own.cert_der.clone()], key).unwrap()
        }
    };
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(world.address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// The certificate that the gateway shows.
async fn shown(world: &World, authority: &Authority) -> Vec<u8> {
    let stream = connected(world, authority, &[], None).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

fn request(world: &World) -> Request<Full<Bytes>> {
    let uri = format!("https://{}/nowhere", world.address);
    Request::get(uri).body(Full::default()).unwrap()
}

/// One exchange in the version that was agreed on; the answer's status.
async fn asked(world: &World, stream: TlsStream<TcpStream>) -> hyper::Result<StatusCode> {
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let answer = if is_http2 {
        let (mut sender, _) = http2(stream).await?;
        sender.send_request(request(world)).await?
    } else {
        let (mut sender, running) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(running);
        let mut request = request(world);
        *request.uri_mut() = "/nowhere".parse().unwrap();
        request.headers_mut().insert("host", "x".parse().unwrap());
        sender.send_request(request).await?
    };
    let (head, body) = answer.into_parts();
    body.collect().await?;
    Ok(head.status)
}

#[tokio::test]
async fn the_caller_chooses_the_version_by_alpn() {
    let authority = Authority::new();
    let identity = authority.issue();
    let world = World::with(|setup| with_tls(setup, &identity, "")).await;
    for (offered, chosen) in [
        (&["h2", "http/1.1"][..], Some(&b"h2"[..])),
        (&["http/1.1"], Some(b"http/1.1")),
        (&["http/1.1", "h2"], Some(b"h2")),
        (&[], None),
    ] {
        let stream = connected(&world, &authority, offered, None).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), chosen, "{offered:?}");
        assert_eq!(asked(&world, stream).await.unwrap(), 404, "{offered:?}");
    }
    assert!(connected(&world, &authority, &["spdy/3"], None).await.is_err());
    // The ops listener is for inside, and in the clear.
    assert_eq!(world.ops("/livez").await.status, 200);
}

#[tokio::test]
async fn who_does_not_shake_hands_is_closed() {
    let authority = Authority::new();
    let identity = authority.issue();
    let world = World::with(|setup| {
        setup.config.push_str("server.handshake_timeout = \"50ms\"\n");
        with_tls(setup, &identity, "");
    })
    .await;
    let mut silent = TcpStream::connect(world.address).await.unwrap();
    let mut plain = TcpStream::connect(world.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    for stream in [&mut silent, &mut plain] {
        let mut sent = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut sent)).await;
        let _ = closed.expect("the gateway closes");
        assert!(!sent.starts_with(b"HTTP"));
    }
    let series = r#"kore_gateway_connections_ended_total{listener="main",reason="handshake"}"#;
    assert_eq!(world.metric(series).await, 2.0);
}

async fn reloads(world: &World, result: &str) -> f64 {
    world.metric(&format!("kore_gateway_certificate_reloads_total{{result=\"{result}\"}}")).await
}

async fn until_reloads(world: &World, result: &str, count: f64) {
    let wait = async { while reloads(world, result).await < count {} };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the files are looked at");
}

#[tokio::test]
async fn a_renewed_certificate_is_taken_up_and_a_bad_pair_is_not() {
    let authority = Authority::new();
    let (old, new) =
        (authority.issue(), authority.issue_until(UNIX_EPOCH + Duration::from_secs(64_060_588_800)));
    let world = World::with(|setup| {
        with_ops_token(setup);
        with_tls(setup, &old, "");
    })
    .await;
    let early = connected(&world, &authority, &["h2"], None).await.unwrap();
    assert_eq!(shown(&world, &authority).await, old.cert_der.to_vec());

    new.write(world.secrets.path());
    until_reloads(&world, "success", 1.0).await;
    assert_eq!(shown(&world, &authority).await, new.cert_der.to_vec());
    assert_eq!(expiry(&world).await.as_deref(), Some("64060588800"));
    assert_eq!(asked(&world, early).await.unwrap(), 404, "an open connection goes on");

    // The certificate of one and the key of another, as in the middle of a renewal that stopped there.
    Identity { key: old.key.clone(), ..authority.issue() }.write(world.secrets.path());
    until_reloads(&world, "failure", 1.0).await;
    assert_eq!(shown(&world, &authority).await, new.cert_der.to_vec());
    let refused = reload(&world).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(refused.json()["errors"][0]["path"], "server.tls.key");
    assert_eq!(shown(&world, &authority).await, new.cert_der.to_vec());

    old.write(world.secrets.path());
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(shown(&world, &authority).await, old.cert_der.to_vec());
    // No key is ever shown.
    let config = got(admin(&world, http::Method::GET, "/admin/config", OPS_TOKEN)).await;
    assert!(!String::from_utf8_lossy(&config.body).contains("PRIVATE"));
}

#[tokio::test]
async fn tls_comes_and_goes_by_reload() {
    let authority = Authority::new();
    let identity = authority.issue();
    let world = World::with(with_ops_token).await;
    assert_eq!(world.get("/nowhere").await.status, 404);
    identity.write(world.secrets.path());
    let (cert, key) = files(world.secrets.path());
    let (cert, key) = (cert.display(), key.display());
    change_config(&world, |written| {
        format!("server.tls = {{ cert = \"{cert}\", key = \"{key}\" }}\n{written}")
    });
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(shown(&world, &authority).await, identity.cert_der.to_vec());
}

/// The whole line is asked for: a series that is gone is no zero.
async fn expiry(world: &World) -> Option<String> {
    let scrape = String::from_utf8(world.ops("/metrics").await.body.to_vec()).unwrap();
    let line =
        scrape.lines().find(|line| line.starts_with("kore_gateway_certificate_expiry_timestamp_seconds"));
    line.and_then(|line| line.rsplit(' ').next()).map(str::to_owned)
}

#[tokio::test]
async fn a_scrape_says_when_the_certificate_in_use_expires_and_an_expired_one_stops_no_reload() {
    let authority = Authority::new();
    let world = World::with(|setup| {
        with_ops_token(setup);
        authority.issue().write(setup.secrets.path());
    })
    .await;
    assert_eq!(expiry(&world).await, None);

    let (cert, key) = files(world.secrets.path());
    let line = format!("server.tls = {{ cert = \"{}\", key = \"{}\" }}\n", cert.display(), key.display());
    let plain = std::fs::read_to_string(&world.config_file).unwrap();
    change_config(&world, |written| line + &written);
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(expiry(&world).await.as_deref(), Some(&*FAR.to_string()));

    let year_2020 = UNIX_EPOCH + Duration::from_secs(1_577_836_800);
    authority.issue_until(year_2020).write(world.secrets.path());
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(expiry(&world).await.as_deref(), Some("1577836800"));

    change_config(&world, |_| plain);
    assert_eq!(reload(&world).await.status, StatusCode::OK);
    assert_eq!(expiry(&world).await, None);
}

#[tokio::test]
async fn a_caller_without_a_certificate_gets_in_only_where_it_is_optional() {
    let (authority, callers) = (Authority::new(), Authority::new());
    let identity = authority.issue();
    let (known, stranger) = (callers.issue(), Authority::new().issue());
    for (mode, let_in) in [("required", [false, true, false]), ("optional", [true, true, false])] {
        let world = World::with(|setup| {
            let ca = setup.secrets.path().join("callers.pem");
            std::fs::write(&ca, callers.0.pem()).unwrap();
            let more = format!(", client_ca = \"{}\", client_auth = \"{mode}\"", ca.display());
            with_tls(setup, &identity, &more);
        })
        .await;
        for (own, let_in) in [None, Some(&known), Some(&stranger)].into_iter().zip(let_in) {
            // In TLS 1.3 the caller may learn only afterwards that it was refused.
            let asked = match connected(&world, &authority, &["h2"], own).await {
                Ok(stream) => asked(&world, stream).await.is_ok(),
                Err(_) => false,
            };
            assert_eq!(asked, let_in, "{mode}, {}", own.is_some());
        }
    }
}

/// A caller that keeps its sessions, and knows this version of TLS alone.
fn keeping(
    authority: &Authority,
    version: &'static SupportedProtocolVersion,
    own: Option<&Identity>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let config = ClientConfig::builder_with_protocol_versions(&[version]).with_root_certificates(roots);
    Arc::new(match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let key = PrivateKeyDer::Pkcs8(own.key_der.clone().into());
            config.with_client_auth_cert(vec![own.cert_der.clone()], key).unwrap()
        }
    })
}

/// One exchange to its end, so that tickets have come; how its handshake went.
async fn shaken(world: &World, config: &Arc<ClientConfig>) -> std::io::Result<HandshakeKind> {
    let stream = TcpStream::connect(world.address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let mut stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
    stream.write_all(b"GET /nowhere HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    assert!(answer.starts_with(b"HTTP/1.1 404"), "{}", String::from_utf8_lossy(&answer));
    Ok(stream.get_ref().1.handshake_kind().unwrap())
}

const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

#[tokio::test]
async fn a_saved_session_is_resumed_after_two_hundred_others_and_a_renewed_certificate() {
    let authority = Authority::new();
    let world = World::with(|setup| with_tls(setup, &authority.issue(), "")).await;
    for version in VERSIONS {
        let saved = keeping(&authority, version, None);
        assert_eq!(shaken(&world, &saved).await.unwrap(), HandshakeKind::Full);
        for _ in 0..200 {
            shaken(&world, &keeping(&authority, version, None)).await.unwrap();
        }
        assert_eq!(shaken(&world, &saved).await.unwrap(), HandshakeKind::Resumed, "{version:?}");
        let before = shown(&world, &authority).await;
        authority.issue().write(world.secrets.path());
        while shown(&world, &authority).await == before {}
        assert_eq!(shaken(&world, &saved).await.unwrap(), HandshakeKind::Resumed, "{version:?}");
    }
}

#[tokio::test]
async fn who_is_vouched_for_no_longer_resumes_no_session() {
    for version in VERSIONS {
        let (authority, other) = (Authority::new(), Authority::new());
        let caller = authority.issue();
        let world = World::with(|setup| {
            let file = setup.secrets.path().join("callers.pem");
            std::fs::write(&file, authority.0.pem()).unwrap();
            with_tls(setup, &authority.issue(), &format!(", client_ca = \"{}\"", file.display()));
        })
        .await;
        let saved = keeping(&authority, version, Some(&caller));
        assert_eq!(shaken(&world, &saved).await.unwrap(), HandshakeKind::Full);
        assert_eq!(shaken(&world, &saved).await.unwrap(), HandshakeKind::Resumed);
        assert!(shaken(&world, &keeping(&authority, version, None)).await.is_err(), "required");
        let file = world.secrets.path().join("callers.pem");
        std::fs::write(file.with_extension("new"), other.0.pem()).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
        let newcomer = keeping(&authority, version, Some(&other.issue()));
        while shaken(&world, &newcomer).await.is_err() {}
        shaken(&world, &saved).await.expect_err("its authority is gone");
    }
}
