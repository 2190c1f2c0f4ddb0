//! `POST /admin/explain`: what would happen to a request, and why. It goes through the same decisions as
//! a real one, by the same functions, and stops before the call: nothing is fetched, no limit is spent.

use std::sync::Arc;

use http::Method;
use http::uri::PathAndQuery;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::route::find;
use super::stages::visible::may_see;
use super::stages::{owner, permit, validate};
use crate::access::identify::bearer_of;
use crate::access::leaked;
use crate::access::permit::Grant;
use crate::app::{App, Snapshot};
use crate::cache::{Decision, Source};
use crate::config::{Account, Client};
use crate::error::cause::Cause;
use crate::error::{Error, Kind, whole_seconds};
use crate::http::problem;
use crate::routes::{self, Query, Route};

/// The request to explain.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Supposed {
    /// The name of a client of the configuration; or in its place:
    client: Option<String>,
    /// an identity token, which is neither logged nor repeated.
    token: Option<SecretString>,
    method: String,
    path: String,
    /// Without the question mark; may stand in the path as well.
    #[serde(default)]
    query: String,
    /// A string is the body as it is; anything else is a body of JSON, as it is spelled.
    body: Option<Box<RawValue>>,
}

/// What is known of it, as far as it gets.
pub async fn explain(app: &App, supposed: &Supposed) -> Value {
    let mut told = json!({ "outcome": "refused" });
    if let Err(error) = follow(app, supposed, &mut told).await {
        let mut problem = problem::document(&error, "");
        if let Some(members) = problem.as_object_mut() {
            members.remove("request_id");
        }
        told["refusal"] = problem;
        told["refusal"]["cause"] = error.reason().map(Cause::as_str).into();
        told["refusal"]["concerns"] = error.concerns().map(|name| &**name).into();
        if let Some(wait) = error.wait() {
            told["refusal"]["retry_after"] = whole_seconds(wait).into();
        }
    }
    told
}

/// Each step says what it has found; the first that refuses ends it.
async fn follow(app: &App, supposed: &Supposed, told: &mut Value) -> Result<(), Error> {
    let snapshot = app.snapshot();
    let target = target(supposed)?;
    let method = Method::from_bytes(supposed.method.as_bytes())
        .map_err(|_| Error::new(Kind::MethodNotAllowed, "`method` is no method"))?;
    let (route, ids) = find(&method, &target)?;
    told["route"] = json!({
        "name": route.name.as_str(),
        "account": ids.account(),
        "bot": ids.bot(),
        "conversation": ids.conversation(),
    });

    let client = &client(app, &snapshot, supposed).await?;
    told["client"] = (*client.name).into();
    let request = routes::Request {
        ids: &ids,
        query: target.query().unwrap_or_default(),
        body: None,
        limits: snapshot.config.limits,
    };
    let allowed = permit::allowed(client, route, &request, &snapshot.config);
    told["policy"] = policy(client, &allowed);
    let account = allowed?;

    let body = supposed.body.as_deref().map(RawValue::get).unwrap_or_default();
    let body = serde_json::from_str(body).unwrap_or_else(|_| body.to_owned());
    let has_body = route.method == Method::POST;
    let body = has_body.then_some(body.as_bytes());
    let sent = leaked::Sent { ids: &ids, query: request.query, body, presented: None };
    let credentials = leaked::credentials(&snapshot.config.clients, sent);
    if !credentials.is_empty() {
        return Err(Error::invalid_request(credentials));
    }
    let query = validate::canonical(account, route, &routes::Request { body, ..request })?;
    let parts = query.key.parts();
    told["canonical"] = json!({ "query": parts.query, "body": parts.body });
    told["key"] = hex::encode(query.key.as_bytes()).into();
    let grant = Grant { client: client.clone(), account: account.clone() };
    let record_first = visible_to(app, &snapshot, &grant, &query)?;
    outcome(app, &snapshot, &query, told)?;
    if record_first {
        told["because"] = "after the record of its conversation has told whose session it is".into();
    }
    Ok(())
}

/// Whether the client would be shown the answer, as far as that is known before it is there; `true` if another answer
/// is asked for first that tells it.
fn visible_to(app: &App, snapshot: &Snapshot, grant: &Grant, query: &Query) -> Result<bool, Error> {
    if let Some((entry, _)) = app.cache.fresh(&query.key, app.clock.moment()) {
        let projection = snapshot.projection(&grant.client, query.route)?;
        let chooses_rows = projection.is_some_and(|projection| projection.chooses_rows());
        may_see(grant, query.route, &entry, projection.is_some(), chooses_rows)?;
    }
    owner::foresee(app, snapshot, grant, query)
}

/// Who would be asking.
async fn client(app: &App, snapshot: &Snapshot, supposed: &Supposed) -> Result<Arc<Client>, Error> {
    let clients = &snapshot.config.clients;
    match (&supposed.client, &supposed.token) {
        (Some(name), None) => clients
            .named(name)
            .cloned()
            .ok_or_else(|| Error::new(Kind::Unauthenticated, "the configuration has no client of this name")),
        (None, Some(token)) => {
            let token = token.expose_secret().as_bytes();
            let (_, client) = bearer_of(token, clients, &snapshot.issuers, &app.clock).await?;
            Ok(client)
        }
        _ => Err(Error::new(Kind::InvalidRequest, "one of `client` and `token` says who asks")),
    }
}

fn target(supposed: &Supposed) -> Result<PathAndQuery, Error> {
    let Supposed { path, query, .. } = supposed;
    let target = match (query.is_empty(), path.contains('?')) {
        (true, _) => path.clone(),
        (false, false) => format!("{path}?{query}"),
        (false, true) => format!("{path}&{query}"),
    };
    PathAndQuery::try_from(target).map_err(|_| Error::new(Kind::NotFound, "`path` is no path"))
}

fn policy(client: &Client, allowed: &Result<&Arc<Account>, Error>) -> Value {
    json!({
        "decision": if allowed.is_ok() { "allow" } else { "deny" },
        "denied": allowed.as_ref().err().and_then(denied),
        "account": allowed.as_ref().ok().map(|account| &*account.id),
        "rate_limit": client.rate_limit.to_string(),
        "redact": client.redact.iter().map(|profile| &*profile.name).collect::<Vec<_>>(),
        "filter_rows": client.filter_rows,
        "may_refresh": client.may_refresh,
    })
}

/// Which part of the policy said no.
fn denied(error: &Error) -> Option<&'static str> {
    match error.reason()? {
        Cause::RouteDenied => Some("route"),
        Cause::AccountDenied => Some("account"),
        Cause::BotDenied => Some("bot"),
        _ => None,
    }
}

/// What the cache would make of it, and if that takes a call, what the upstream's side says to one.
fn outcome(app: &App, snapshot: &Snapshot, query: &Query, told: &mut Value) -> Result<(), Error> {
    let outlook = snapshot.upstream.outlook(query)?;
    told["credential"] = outlook.credential.into();
    told["quota"] = outlook.limit_status.map_or(Value::Null, |limit_status| {
        json!({
            "pool": pool(query.route),
            "allowed": limit_status.rate.to_string(),
            "left": limit_status.left,
            "back_in": whole_seconds(limit_status.reset),
        })
    });
    let timeout = snapshot.config.upstream.timeout;
    let (outcome, because) = match app.cache.decision(query, false) {
        Decision::Serve { source: Source::Hit { left }, .. } => {
            told["ttl"] = left.as_secs().into();
            ("hit", None)
        }
        Decision::Serve { refresh, .. } => {
            ("stale", Some(if refresh { "fetched anew behind it" } else { "the last call has just failed" }))
        }
        Decision::Fetch { fallback, .. } => {
            let in_time = |error: &Error| error.wait().is_some_and(|wait| wait < timeout);
            match (outlook.breaker_open, outlook.used_up) {
                (None, None) => ("miss", None),
                (None, Some(used_up)) if in_time(&used_up) => {
                    ("miss", Some("after it has waited for the upstream's quota"))
                }
                (Some(_), _) | (_, Some(_)) if fallback.is_some() => {
                    ("stale", Some("the upstream cannot be asked now"))
                }
                (Some(error), _) | (None, Some(error)) => return Err(error),
            }
        }
    };
    told["outcome"] = outcome.into();
    told["because"] = because.into();
    Ok(())
}

fn pool(route: &Route) -> &'static str {
    match route.base {
        routes::Base::ContactCenter => "account",
        routes::Base::Automation => "bot",
    }
}
