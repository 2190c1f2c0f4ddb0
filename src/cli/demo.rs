//! `kore-gateway demo`: the gateway in front of the stand-in upstream, with nothing to configure.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::Duration;

use jiff::{Timestamp, Zoned, tz::TimeZone};
use kore_standin::Standin;
use tokio_util::sync::CancellationToken;

use super::serve::{address, start, stop_on_signal};
use super::{Failure, print, runtime};
use crate::config::{self, Layer, Sources};
use crate::server::Server;
use crate::upstream::random_id;

const CONFIG: &str = include_str!("../../config/demo.toml");
/// The key whose digest is in the demo's configuration.
const KEY: &str = "kg_demo";
/// For the last lines of the log, once it has ended.
const LAST_LINES: Duration = Duration::from_secs(1);

pub(super) fn run(port: u16) -> Result<(), Failure> {
    // The ops listener takes the next port; after the last there is none.
    let ops_port = match port {
        0 => 0,
        port => port.checked_add(1).ok_or_else(|| Failure::new("--port", "65535 leaves no port for ops"))?,
    };
    runtime(None)?.block_on(demo(port, ops_port))
}

async fn demo(port: u16, ops_port: u16) -> Result<(), Failure> {
    let options = kore_standin::Options::demo(kore_standin::Clock::system());
    let ids = kore_standin::DemoIds::of(&options);
    let upstream =
        Standin::start(options).await.map_err(|error| Failure::new("cannot start the stand-in", error))?;

    let secret = SecretFile::new(kore_standin::example_secret())?;
    let overlay = [
        ("SERVER__LISTEN", SocketAddr::from(([127, 0, 0, 1], port)).to_string()),
        ("OPS__LISTEN", SocketAddr::from(([127, 0, 0, 1], ops_port)).to_string()),
        ("ACCOUNTS__0__CONTACT_CENTER_URL", upstream.url()),
        ("ACCOUNTS__0__AUTOMATION_URL", upstream.url()),
        ("ACCOUNTS__0__CREDENTIALS__0__CLIENT_SECRET__FILE", secret.0.display().to_string()),
    ];
    let sources = Sources {
        layers: vec![Layer::Text(CONFIG.to_owned())],
        environment: overlay
            .into_iter()
            .map(|(name, value)| (format!("{}{name}", config::ENVIRONMENT_PREFIX), value))
            .collect(),
    };
    let (app, log) = start(sources)?;

    let stop = CancellationToken::new();
    stop_on_signal(&stop)?;
    let server = Server::bind(app).map_err(|error| Failure::new("cannot start", error))?;
    let (main, ops) = (address(server.address())?, address(server.ops_address())?);
    print(&lines(main, ops, &ids))?;
    server.run(stop).await;
    log.flush(LAST_LINES);
    // Until here: a secret's file is read again now and then.
    drop(secret);
    Ok(())
}

/// The stand-in's secret in a file of its own, as a real one would be; gone when the demo is over.
struct SecretFile(PathBuf);

impl SecretFile {
    fn new(secret: &str) -> Result<Self, Failure> {
        let name = random_id().map_err(|error| Failure::new("cannot name a file", error))?;
        let path = std::env::temp_dir().join(format!("kore-gateway-demo-{name}"));
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| file.write_all(secret.as_bytes()))
            .map_err(|error| Failure::new("cannot write a temporary file", error))?;
        Ok(Self(path))
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Lines for a second terminal. Each says first what it shows.
fn lines(main: SocketAddr, ops: SocketAddr, ids: &kore_standin::DemoIds) -> String {
    let kore_standin::DemoIds { account, stream, settled, live, session, .. } = ids;
    let today = Zoned::new(Timestamp::now(), TimeZone::UTC).date();
    let days_ago = |days: i32| {
        let day = today.checked_sub(jiff::Span::new().days(days)).unwrap_or(today);
        day.to_string()
    };
    let head = "curl -s -o /dev/null -D - -H 'X-Api-Key: ";
    let body = "curl -s -H 'X-Api-Key: ";
    let conversation = format!("http://{main}/agentassist/api/v1/public/{stream}/conversations");
    let windows = format!("http://{main}/agentassist/api/public/analytics/account");
    let transcripts = format!("http://{main}/api/public/bot/{stream}/conversationDetails");
    let json = "-H 'Content-Type: application/json' -d";
    let window =
        |from: &str, to: &str| format!(r#"'{{"startDate":"{from}","endDate":"{to}","timeZoneOffset":0}}'"#);
    // Not until yesterday: shortly after midnight that is when the live ones began.
    let (week, too_long) = (window(&days_ago(8), &days_ago(2)), window(&days_ago(10), &days_ago(2)));
    let transcript = format!(r#"'{{"sessionId":"{session}"}}'"#);
    format!(
        "\
The gateway listens on http://{main}, its ops endpoints on http://{ops}, and behind it runs a
stand-in for Kore.ai. Paste these into another terminal; Ctrl-C here ends it.

# a miss: fetched from the upstream, and stored, for it closed three days ago
{head}{KEY}' {conversation}/{settled}
# the same again is a hit
{head}{KEY}' {conversation}/{settled}
# and a 304 for who has it already
{head}{KEY}' -H \"If-None-Match: $({body}{KEY}' -o /dev/null -w '%header{{etag}}' {conversation}/{settled})\" {conversation}/{settled}
# a live conversation is passed on and never stored
{head}{KEY}' {conversation}/{live}
# the transcript: over, as the first answer told
{head}{KEY}' {json} {transcript} {transcripts}
# all conversations of a week that is past
{body}{KEY}' {json} {week} {windows}/{account}/v2/interactionDetails | head -c 300; echo
# a refused range: nine days, and no call upstream
{body}{KEY}' {json} {too_long} {windows}/{account}/v2/interactionDetails; echo
# a 403: an account of somebody else's
{body}{KEY}' {json} {week} {windows}/{other}/v2/interactionDetails; echo
# the metrics
curl -s http://{ops}/metrics | grep -E '^kore_gateway_(cache_|upstream_attempts|tokens)'

",
        other = kore_standin::OTHER_ACCOUNT,
    )
}
