//! From what is written to what it means. Each part reads itself; then the parts are held against
//! one another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use toml::Table;

use super::secret::Secret;
use super::section::{Fault, Faults, Section};
use super::value::{Percent, Rate, Setting, Size};
use super::{
    Account, Audit, AuditTo, Bots, Breaker, Cache, Callers, Claims, Clients, Config, Credential, Fairness,
    Log, Oidc, Ops, Quota, Redaction, Reload, Retry, Server, Tracing, UnprovenSessions, Upstream,
};
use crate::lifecycle::phase::Rule;
use crate::routes::{Limits, Name, ROUTES, Scope, ids};

/// Where the vendor enforces JTI, a token may live this long at most.
const LONGEST_JTI_LIFETIME: Duration = Duration::from_secs(3600);

impl Config {
    /// What a table means, or everything that is wrong with it. Reads the secrets it points to.
    pub fn resolve(written: Table) -> Result<Self, Vec<Fault>> {
        let faults = Faults::default();
        let config = Self::read(Section::root(written, &faults));
        match faults.into_vec() {
            faults if faults.is_empty() => Ok(config),
            faults => Err(faults),
        }
    }

    fn read(mut root: Section<'_>) -> Self {
        let server = Server::read(root.section("server"));
        let ops = Ops::read(root.section("ops"));
        if server.listen == ops.listen && server.listen.port() != 0 {
            root.report("ops.listen", "is the address of server.listen too; the two need one each");
        }
        let log = Log::read(root.section("log"));
        let tracing = Tracing::read(root.section("tracing"));
        let reload = Reload::read(root.section("reload"));
        let audit = Audit::read(root.section("audit"));
        let (upstream, allow_plain_http) = Upstream::read(root.section("upstream"));
        let mut limits = root.section("limits");
        let conversation_details_limit = limits.required("conversation_details_limit");
        let callers = Callers {
            unauthenticated: limits.required("unauthenticated"),
            tracked: limits.required("tracked_callers"),
        };
        let redaction_work = limits.required("redaction_work");
        limits.close();
        let cache = Cache::read(root.section("cache"));
        let accounts = Account::read_all(&mut root, allow_plain_http);
        let redactions = Redaction::read_all(root.section("redaction"));
        let oidc = Oidc::read(root.section("oidc"));
        let clients = Clients::read_all(&mut root, &accounts, &redactions, &oidc);
        root.close();
        Self {
            limits: Limits { conversation_details_limit, max_json_depth: server.max_json_depth },
            callers,
            redaction_work,
            server,
            ops,
            log,
            tracing,
            reload,
            audit,
            upstream,
            cache,
            oidc,
            accounts,
            clients,
        }
    }
}

/// A count that has to fit the machine's words.
pub(super) fn count(section: &mut Section<'_>, key: &'static str) -> usize {
    usize::try_from(section.required::<u64>(key)).unwrap_or(usize::MAX)
}

pub(super) fn bytes(section: &mut Section<'_>, key: &'static str) -> usize {
    usize::try_from(section.required::<Size>(key).0).unwrap_or(usize::MAX)
}

/// A duration that makes no sense at zero.
pub(super) fn positive(section: &mut Section<'_>, key: &'static str) -> Duration {
    let duration: Duration = section.required(key);
    if duration.is_zero() {
        section.report(key, "is zero or no duration; it is longer than that");
    }
    duration
}

impl Reload {
    fn read(mut section: Section<'_>) -> Self {
        let reload = Self { check_files_every: section.required("check_files_every") };
        section.close();
        reload
    }
}

impl Audit {
    fn read(mut section: Section<'_>) -> Self {
        let to: String = section.required("to");
        let outcomes = [("serve", false), ("refuse", true)];
        let audit = Self {
            to: match to.as_str() {
                "off" => AuditTo::Nowhere,
                "stdout" => AuditTo::Stdout,
                path => AuditTo::File(path.into()),
            },
            refuse_on_failure: section.one_of("on_failure", &outcomes, None),
            sync: section.required("sync"),
            timeout: positive(&mut section, "timeout"),
        };
        if let AuditTo::File(path) = &audit.to
            && !path.is_absolute()
        {
            section
                .report("to", format!("is {to:?}; it is \"off\", \"stdout\" or the absolute path of a file"));
        }
        section.close();
        audit
    }
}

impl Upstream {
    fn read(mut section: Section<'_>) -> (Self, bool) {
        let upstream = Self {
            connect_timeout: positive(&mut section, "connect_timeout"),
            timeout: positive(&mut section, "timeout"),
            max_body: bytes(&mut section, "max_body"),
            max_bytes_in_flight: bytes(&mut section, "max_bytes_in_flight"),
            large_timeout: positive(&mut section, "large_timeout"),
            max_waiting: count(&mut section, "max_waiting"),
            max_bots: count(&mut section, "max_bots"),
            idle_timeout: section.required("idle_timeout"),
            max_connection_age: positive(&mut section, "max_connection_age"),
            ca: section.optional::<Certificates>("ca_file").map(|certificates| certificates.0),
            breaker: Breaker::read(section.section("breaker")),
            retry: Retry::read(section.section("retry")),
            fairness: Fairness::read(section.section("fairness")),
        };
        // moka weighs an entry in 32 bits.
        if upstream.max_body > 1 << 30 {
            section.report("max_body", "is more than 1GiB, the largest answer that is held");
        }
        let allow_plain_http = section.required("allow_plain_http");
        section.close();
        (upstream, allow_plain_http)
    }
}

impl Breaker {
    fn read(mut section: Section<'_>) -> Self {
        let failures = u32::try_from(section.required::<u64>("failures")).unwrap_or(u32::MAX);
        let breaker = Self { failures, open_for: positive(&mut section, "open_for") };
        section.close();
        breaker
    }
}

impl Retry {
    fn read(mut section: Section<'_>) -> Self {
        let retry = Self {
            budget: section.required::<Percent>("budget").0,
            first_wait: section.required("first_wait"),
            longest_wait: section.required("longest_wait"),
        };
        section.close();
        retry
    }
}

impl Fairness {
    fn read(mut section: Section<'_>) -> Self {
        let fairness = Self {
            headroom: section.required::<Percent>("headroom").0,
            reserve: section.required::<Percent>("reserve").0,
            background_minimum: section.required::<Percent>("background_minimum").0,
        };
        for (name, percent) in [("headroom", fairness.headroom), ("reserve", fairness.reserve)] {
            if percent > 50 {
                section.report(name, "is more than 50; half of the quota would lie idle");
            }
        }
        section.close();
        fairness
    }
}

/// A file of PEM certificates, read.
pub(super) struct Certificates(pub Vec<u8>);

impl Setting for Certificates {
    const EXPECTED: &'static str = r#"the path of a PEM file, for example "/etc/ssl/our-ca.pem""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let path = String::read(value)?;
        let pem = std::fs::read(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
        match reqwest::Certificate::from_pem_bundle(&pem) {
            Ok(certificates) if !certificates.is_empty() => Ok(Self(pem)),
            _ => Err(format!("{path} holds no certificate; it is {}", Self::EXPECTED)),
        }
    }

    fn placeholder() -> Self {
        Self(Vec::new())
    }
}

impl Cache {
    fn read(mut section: Section<'_>) -> Self {
        let capacity = section.required::<Size>("capacity").0;
        let seen = section.required("seen");
        let back_off = section.required("back_off");
        let rules = ROUTES.each_ref().map(|route| {
            let mut section = section.section(route.name.as_str());
            let rule = Rule {
                settle: section.required("settle"),
                settled_ttl: section.required("settled_ttl"),
                over_ttl: section.required("over_ttl"),
                live_ttl: section.required("live_ttl"),
                summary_ttl: (route.name == Name::ConversationDetails)
                    .then(|| section.required("summary_ttl")),
                not_found_ttl: section.required("not_found_ttl"),
                stale_while_revalidate: section.required("stale_while_revalidate"),
                stale_if_error: section.required("stale_if_error"),
            };
            section.close();
            rule
        });
        section.close();
        Self { capacity, seen, back_off, rules }
    }
}

/// `["*"]` or a list of bot ids.
pub(super) fn bots(section: &mut Section<'_>, default: Option<Bots>) -> Bots {
    let read = match default {
        Some(default) => match section.optional::<Vec<String>>("bots") {
            Some(list) => list,
            None => return default,
        },
        None => section.required("bots"),
    };
    match &read[..] {
        [any] if any == "*" => return Bots::Any,
        [] => section.report("bots", r#"is empty; it is ["*"] or a list of ids"#),
        list => {
            for bot in list {
                if let Err(expected) = ids::stream(bot) {
                    section.report(
                        "bots",
                        format!("{bot:?} is no bot id: {expected}, or [\"*\"] alone for any"),
                    );
                }
            }
        }
    }
    Bots::These(read)
}

/// Bytes of a base URL: enough for any, and route and query still have room in what the client takes (64 KiB).
const MAX_BASE_URL: usize = 2048;

/// A base URL without its trailing slash, as it is spelled on the wire.
fn base_url(section: &mut Section<'_>, key: &'static str, allow_plain_http: bool) -> String {
    let text: String = section.required(key);
    if text.is_empty() {
        return text; // Reported as missing.
    }
    match read_base_url(&text, allow_plain_http) {
        Ok(url) => url,
        Err(problem) => {
            section.report(key, problem);
            text
        }
    }
}

fn read_base_url(text: &str, allow_plain_http: bool) -> Result<String, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password; credentials have a place of their own".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment; it is a base URL, for example \"https://platform.kore.ai\""
            .to_owned());
    }
    match url.scheme() {
        "https" => {}
        "http" if allow_plain_http || is_loopback(&url) => {}
        "http" => {
            return Err(
                "is plain http to another machine; use https, or set upstream.allow_plain_http".to_owned()
            );
        }
        other => return Err(format!("has the scheme {other:?}; it is https")),
    }
    if url.as_str().len() > MAX_BASE_URL {
        return Err(format!("is longer than {MAX_BASE_URL} bytes"));
    }
    // What the client takes is narrower than what is a URL.
    http::Uri::try_from(url.as_str()).map_err(|error| format!("is no URL that can be asked: {error}"))?;
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Account {
    fn read_all(root: &mut Section<'_>, allow_plain_http: bool) -> Vec<Arc<Self>> {
        let mut accounts: Vec<Arc<Self>> = Vec::new();
        let mut held: HashMap<String, Arc<str>> = HashMap::new();
        let mut any: Option<Arc<str>> = None;
        for mut section in root.sections("accounts") {
            let id: String = section.required("id");
            if !id.is_empty()
                && let Err(expected) = ids::account(&id)
            {
                section.report("id", format!("is {id:?}; it is {expected}"));
            }
            if accounts.iter().any(|account| *account.id == *id) {
                section.report("id", "is the id of an earlier account too");
            }
            let id: Arc<str> = id.into();
            let bots = bots(&mut section, None);
            match &bots {
                Bots::Any => {
                    if let Some(other) = any.replace(id.clone()) {
                        section.report(
                            "bots",
                            format!("is [\"*\"] here and in account {other}; a bot must lead to one account"),
                        );
                    }
                }
                Bots::These(list) => {
                    for bot in list {
                        if let Some(other) = held.insert(bot.clone(), id.clone()) {
                            section.report(
                                "bots",
                                format!(
                                    "{bot} belongs to account {other} too; a bot must lead to one account"
                                ),
                            );
                        }
                    }
                }
            }
            let contact_center_url = base_url(&mut section, "contact_center_url", allow_plain_http);
            let automation_url = base_url(&mut section, "automation_url", allow_plain_http);
            let credentials: Vec<_> = section
                .sections("credentials")
                .into_iter()
                .map(|section| Arc::new(Credential::read(section)))
                .collect();
            if credentials.is_empty() {
                section.report(
                    "credentials",
                    "is missing; an account needs at least one [[accounts.credentials]]",
                );
            }
            let quota = Quota::read(section.section("quota"));
            let known = [("refuse", UnprovenSessions::Refuse), ("pass", UnprovenSessions::Pass)];
            let unproven_sessions =
                section.one_of("unproven_sessions", &known, Some(UnprovenSessions::Refuse));
            section.close();
            accounts.push(Arc::new(Self {
                id,
                contact_center_url,
                automation_url,
                bots,
                credentials,
                quota,
                unproven_sessions,
            }));
        }
        if accounts.is_empty() {
            root.report("accounts", "is missing; at least one [[accounts]] says where the upstream is");
        }
        accounts
    }
}

impl Credential {
    fn read(mut section: Section<'_>) -> Self {
        let client_id: String = section.required("client_id");
        let secret = section.required::<Secret>("client_secret");
        let claims = match section.has("claims") {
            true => Claims::read(section.section("claims")),
            false => {
                let id = Some(client_id.clone());
                Claims { app_id: id.clone(), sub: id, ..Claims::default() }
            }
        };
        let credential = Self {
            client_id,
            client_secret: secret.value,
            secret_file: secret.file,
            claims,
            scopes: section.required("scopes"),
            bots: bots(&mut section, Some(Bots::Any)),
            lifetime: section.or("lifetime", Duration::from_secs(3600)),
            jti: section.or("jti", false),
        };
        if credential.scopes.is_empty() {
            section.report("scopes", format!("is empty; it is {}", <Vec<Scope>>::EXPECTED));
        }
        // Shorter ones would be renewed before their first use: iat lies 30 s back.
        if credential.lifetime < Duration::from_secs(60) {
            section.report("lifetime", "is less than a minute");
        }
        if credential.jti && credential.lifetime > LONGEST_JTI_LIFETIME {
            section.report("lifetime", "is more than an hour; an app that enforces JTI refuses that");
        }
        section.close();
        credential
    }
}

impl Claims {
    fn read(mut section: Section<'_>) -> Self {
        let claims = Self {
            app_id: section.optional("appId"),
            sub: section.optional("sub"),
            iss: section.optional("iss"),
            aud: section.optional("aud"),
        };
        if claims.app_id.is_none() && claims.iss.is_none() {
            section.report("appId", "is missing, and so is `iss`; one of them names the app");
        }
        section.close();
        claims
    }
}

impl Setting for Scope {
    const EXPECTED: &'static str = r#""analytics" or "chat_history""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let known = [Self::Analytics, Self::ChatHistory];
        let named = known.into_iter().find(|scope| value.as_str() == Some(scope.as_str()));
        named.ok_or_else(|| format!("is no scope; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self::Analytics
    }
}

impl Quota {
    fn read(mut section: Section<'_>) -> Self {
        let per_minute = Rate { amount: 60, window: Duration::from_secs(60) };
        let per_hour = Rate { amount: 1800, window: Duration::from_secs(3600) };
        let account = Self::windows(&mut section, "account", vec![per_minute]);
        let bot = Self::windows(&mut section, "bot", vec![per_minute, per_hour]);
        section.close();
        Self { account, bot }
    }

    /// Shortest first: it is the one that callers are told of.
    fn windows(section: &mut Section<'_>, name: &'static str, default: Vec<Rate>) -> Vec<Rate> {
        let mut windows = section.or(name, default);
        if windows.is_empty() {
            section.report(name, "is empty; the upstream has a limit, and without a window there is none");
        }
        windows.sort_by_key(|rate| rate.window);
        windows
    }
}

impl Setting for Name {
    const EXPECTED: &'static str = r#""conversation", "interaction_details" or "conversation_details""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let named = |text: &str| ROUTES.iter().map(|route| route.name).find(|name| name.as_str() == text);
        value.as_str().and_then(named).ok_or_else(|| format!("is no route; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self::Conversation
    }
}
