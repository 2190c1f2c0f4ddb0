//! The two listeners: where they are, and what they grant (`[server]`, `[ops]`).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};

use super::proxies::Proxies;
use super::secret::Secret;
use super::section::Section;
use super::tls::Tls;
use super::value::Percent;
use crate::overload::shares::Bound;
use crate::overload::waiting::Most;

/// Threads beyond this are a slip of the finger.
const MOST_WORKERS: usize = 1024;
/// Less has no room for a browser's, more is more than hyper takes in one piece.
const SMALLEST_HEAD: usize = 512;
const LARGEST_HEAD: usize = 64 * 1024;
/// Bytes of the ops token: what is shorter can be guessed.
const SHORTEST_TOKEN: usize = 16;
/// hyper's limit.
const MOST_FIELDS: usize = 100;

#[derive(Debug)]
pub struct Server {
    pub listen: SocketAddr,
    /// Another process may listen on the same address, to take over.
    pub share_port: bool,
    pub tls: Option<Arc<Tls>>,
    /// Threads that serve requests; `None` is one for each core.
    pub workers: Option<usize>,
    /// Requests that wait at the same time, and the shares of them.
    pub most_waiting: Most,
    /// Percent of a bound that one client may take.
    pub client_share: Percent,
    /// Bytes of bodies that responses hold at the same time, and a client's share of them.
    pub max_bytes_in_flight: Bound,
    pub max_connections: usize,
    pub max_connections_per_address: usize,
    /// Requests under way on one HTTP/2 connection.
    pub max_streams: u32,
    pub header_timeout: Duration,
    pub idle_timeout: Duration,
    pub write_timeout: Duration,
    pub handshake_timeout: Duration,
    pub body_timeout: Duration,
    /// Bytes of the request line and all fields.
    pub max_head: usize,
    /// Bytes of path and query.
    pub max_target: usize,
    pub max_fields: usize,
    /// Bytes.
    pub max_request_body: usize,
    pub max_json_depth: usize,
    pub drain_timeout: Duration,
    pub proxies: Proxies,
}

#[derive(Debug)]
pub struct Ops {
    pub listen: SocketAddr,
    /// What `/admin/*` asks for; without one there is no `/admin/*`.
    pub token: Option<SecretString>,
    /// Names by which it may be asked, beside those of loopback.
    pub hosts: Vec<String>,
}

impl Server {
    /// Of the time for a drain, what connections leave to what is said at the end: by the log, to the collector of spans.
    pub fn kept_back(drain_timeout: Duration) -> Duration {
        (drain_timeout / 10).min(Duration::from_secs(1))
    }

    pub(super) fn read(mut section: Section<'_>) -> Self {
        let client_share: Percent = section.required("client_share");
        let server = Self {
            listen: section.required::<SocketAddr>("listen"),
            share_port: section.required("share_port"),
            tls: section.optional_section("tls").and_then(Tls::read),
            workers: section.optional::<u64>("workers").and_then(|count| usize::try_from(count).ok()),
            most_waiting: most_waiting(&mut section, client_share),
            client_share,
            max_bytes_in_flight: bound(section.bytes("max_bytes_in_flight"), client_share),
            max_connections: section.count("max_connections"),
            max_connections_per_address: section.count("max_connections_per_address"),
            max_streams: u32::try_from(section.count("max_streams")).unwrap_or(u32::MAX),
            header_timeout: section.positive("header_timeout"),
            idle_timeout: section.positive("idle_timeout"),
            write_timeout: section.positive("write_timeout"),
            handshake_timeout: section.positive("handshake_timeout"),
            body_timeout: section.positive("body_timeout"),
            max_head: section.bytes("max_head"),
            max_target: section.bytes("max_target"),
            max_fields: section.count("max_fields"),
            max_request_body: section.bytes("max_request_body"),
            max_json_depth: section.count("max_json_depth"),
            drain_timeout: section.required("drain_timeout"),
            proxies: Proxies::read(&mut section),
        };
        if !(SMALLEST_HEAD..=LARGEST_HEAD).contains(&server.max_head) {
            section.report("max_head", "is less than 512 B or more than 64 KiB; it is something between");
        }
        if server.max_target > server.max_head && section.is_known("max_head") {
            section.report("max_target", "is larger than server.max_head, of which it is a part");
        }
        if !(1..=MOST_FIELDS).contains(&server.max_fields) {
            section.report("max_fields", "is 0 or more than 100, the most that are read");
        }
        // serde_json itself stops at 128.
        if server.max_json_depth > 100 {
            section.report("max_json_depth", "is more than 100, the deepest that is read");
        }
        if server.workers.is_some_and(|workers| workers > MOST_WORKERS) {
            section
                .report("workers", format!("is more than {MOST_WORKERS}; it is about the number of cores"));
        }
        section.close();
        server
    }
}

fn most_waiting(section: &mut Section<'_>, client_share: Percent) -> Most {
    let all = section.count("max_requests");
    Most {
        all,
        of_client: share(all, client_share),
        unauthenticated: share(all, section.required("unauthenticated_share")),
    }
}

/// A bound, and how much of it one client may take.
pub(super) fn bound(all: usize, client_share: Percent) -> Bound {
    Bound { all, of_one: share(all, client_share) }
}

/// One at least: a client that may have nothing could as well not be there.
fn share(all: usize, Percent(percent): Percent) -> usize {
    (all.saturating_mul(usize::try_from(percent).unwrap_or_default()) / 100).max(1)
}

impl Ops {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let listen = section.required("listen");
        let token = section.optional::<Secret>("token").map(|secret| secret.value);
        if let Some(problem) = token.as_ref().and_then(|token| unfit(token.expose_secret())) {
            section.report("token", problem);
        }
        let hosts: Vec<String> = section.required("hosts");
        let problem = |host: &String| format!("{host:?} is no host name; write it without scheme and port");
        let problems = hosts.iter().filter(|host| !is_name(host)).map(problem).collect::<Vec<_>>();
        section.report_all("hosts", &problems);
        section.close();
        Self { listen, token, hosts }
    }
}

/// What is wrong with an ops token, without the token.
fn unfit(token: &str) -> Option<String> {
    if token.len() < SHORTEST_TOKEN {
        return Some(format!("is shorter than {SHORTEST_TOKEN} bytes; `kore-gateway key` makes a good one"));
    }
    let is_sendable = token.bytes().all(|byte| byte.is_ascii_graphic());
    (!is_sendable).then(|| "holds a blank or a letter that no header field can carry".to_owned())
}

fn is_name(host: &str) -> bool {
    let is_of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    !host.is_empty() && host.bytes().all(is_of_a_name)
}
