//! A caller, and what it may do (`[[clients]]`).

use std::sync::Arc;
use std::time::Duration;

use super::account::Accounts;
use super::bots::Bots;
use super::oidc::{Oidc, OidcRule};
use super::redaction::Redaction;
use super::section::Section;
use super::setting::Setting;
use super::value::{Origin, Rate};
use crate::routes::{ROUTES, Route, RouteName};

/// The largest weight of a client: against 1 it leaves the other nothing of any real quota.
const HEAVIEST: u32 = 1000;

/// One caller, or one team, and what it may do. What is not allowed here is denied.
#[derive(Debug)]
pub struct Client {
    /// Its place in the file: what a configuration holds for each client, it holds in this order.
    pub number: usize,
    pub name: Arc<str>,
    pub accounts: Vec<Arc<str>>,
    pub bots: Bots,
    routes: [bool; ROUTES.len()],
    pub rate_limit: Rate,
    /// Of each bearer of a token apart, within the client's.
    pub subject_rate_limit: Option<Rate>,
    pub lane: Lane,
    /// At least 1.
    pub weight: u32,
    /// The pages whose scripts may read its answers, as browsers spell them in `Origin`.
    pub origins: Vec<String>,
    /// What its answers are shown without.
    pub redact: Vec<Arc<Redaction>>,
    /// It may ask for a whole account's window although it may see some bots only, and gets the rows
    /// of those.
    pub filter_rows: bool,
    /// Its `Cache-Control: no-cache` is heard.
    pub may_refresh: bool,
    /// Whose identity tokens make their bearers this client.
    pub oidc: Option<OidcRule>,
}

/// Whose misses go first when the upstream's quota is short.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    Interactive,
    Background,
}

impl Client {
    pub fn may_use(&self, route: &Route) -> bool {
        self.routes[route.name as usize]
    }
}

/// What clients are held against.
pub(super) struct Others<'a> {
    pub accounts: &'a Accounts,
    /// None if they cannot be read.
    pub redactions: Option<&'a [Arc<Redaction>]>,
    pub oidc: &'a Oidc,
}

impl Client {
    /// The client of that place in the file.
    pub(super) fn read(section: &mut Section<'_>, number: usize, others: &Others<'_>) -> Self {
        let name: String = section.required("name");
        let accounts: Vec<String> = section.required("accounts");
        let bots = Bots::read(section);
        let routes: Vec<RouteName> = section.required("routes");
        check_accounts(section, &accounts, others.accounts);
        // Whoever may see another account than is meant has no bots and no scopes to be held against.
        if section.is_known("accounts") {
            check_bots(section, &bots, &accounts, others.accounts);
            check_routes(section, &routes, &accounts, others.accounts);
        }
        if routes.is_empty() {
            section.report("routes", format!("is empty; it is a list of {}", RouteName::EXPECTED));
        }
        let filter_rows = section.or("filter_rows", false);
        if filter_rows && bots == Bots::Any {
            let problem = "is true, but this client may see all bots: there is nothing to filter";
            section.report("filter_rows", problem);
        }
        let subject_rate_limit = section.optional("subject_rate_limit");
        if subject_rate_limit.is_some() && !section.has("oidc") {
            let problem = "is there, but without `oidc` this client has no subjects";
            section.report("subject_rate_limit", problem);
        }
        let weight = u32::try_from(section.or::<u64>("weight", 1)).unwrap_or(u32::MAX);
        if weight > HEAVIEST {
            section.report("weight", format!("is more than {HEAVIEST}"));
        }
        let rule = section.optional_section("oidc");
        let lanes = [("interactive", Lane::Interactive), ("background", Lane::Background)];
        let origins: Vec<Origin> = section.or("origins", Vec::new());
        Self {
            number,
            name: name.into(),
            accounts: accounts.into_iter().map(Arc::from).collect(),
            bots,
            routes: ROUTES.each_ref().map(|route| routes.contains(&route.name)),
            rate_limit: section.or("rate_limit", Rate { amount: 600, window: Duration::from_secs(60) }),
            subject_rate_limit,
            lane: section.one_of("lane", &lanes, Some(Lane::Interactive)),
            weight,
            origins: origins.into_iter().map(|origin| origin.0).collect(),
            redact: redact(section, others.redactions),
            filter_rows,
            may_refresh: section.or("may_refresh", false),
            oidc: rule.and_then(|section| OidcRule::read(section, others.oidc)),
        }
    }
}

fn check_accounts(section: &Section<'_>, named: &[String], accounts: &Accounts) {
    if named.is_empty() {
        section.report("accounts", "is empty; a client sees what it is given, so name the accounts");
    }
    let unknown = named.iter().filter(|id| !accounts.may_have(id));
    let problems = unknown.map(|id| format!("{id:?} is no account of this file"));
    section.report_all("accounts", &problems.collect::<Vec<_>>());
}

fn check_bots(section: &Section<'_>, bots: &Bots, ids: &[String], accounts: &Accounts) {
    let Bots::These(list) = bots else { return };
    let foreign = list.iter().filter(|bot| !accounts.may_have_bot(ids, bot));
    let problems = foreign.map(|bot| format!("{bot:?} belongs to none of this client's accounts"));
    section.report_all("bots", &problems.collect::<Vec<_>>());
}

fn check_routes(section: &Section<'_>, named: &[RouteName], ids: &[String], accounts: &Accounts) {
    let routes = named.iter().map(|name| Route::named(*name));
    let unserved = routes.filter(|route| !accounts.may_have_scope(ids, route.scope));
    let problems = unserved.map(|route| {
        let (name, scope) = (route.name.as_str(), route.scope.as_str());
        format!("{name:?} needs the scope {scope:?}, which no credential of its accounts has")
    });
    section.report_all("routes", &problems.collect::<Vec<_>>());
}

fn redact(section: &mut Section<'_>, profiles: Option<&[Arc<Redaction>]>) -> Vec<Arc<Redaction>> {
    let named: Vec<String> = section.or("redact", Vec::new());
    let Some(profiles) = profiles else { return Vec::new() };
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    for name in named {
        match profiles.iter().find(|profile| *profile.name == *name) {
            Some(profile) => found.push(profile.clone()),
            None => problems.push(format!("{name:?} is no profile of this file; write [redaction.{name}]")),
        }
    }
    section.report_all("redact", &problems);
    found
}

impl Setting for RouteName {
    const EXPECTED: &'static str = r#""conversation", "interaction_details" or "conversation_details""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let named = |text: &str| ROUTES.iter().map(|route| route.name).find(|name| name.as_str() == text);
        value.as_str().and_then(named).ok_or_else(|| format!("is no route; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self::Conversation
    }
}
