//! The request that goes upstream, built from a key and from nothing else.
//!
//! `auth`, `accountId` and `iId` are put in here and nowhere else in the crate. Nothing of the
//! caller's request is at hand, so nothing of it can be forwarded. Which trace a call belongs to goes
//! with it (`traceparent`, where tracing is on), and shapes no answer.

use http::header::{self, HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};

use crate::config::Account;
use crate::routes::{Base, Query, Route};

const AUTH: HeaderName = HeaderName::from_static("auth");
const ACCOUNT_ID: HeaderName = HeaderName::from_static("accountid");
const STREAM_ID: HeaderName = HeaderName::from_static("iid");

/// The URL of a query: base, the route's first path with the key's ids in it, query string.
pub fn url(query: &Query, account: &Account) -> String {
    let parts = query.key.parts();
    let mut url = base(query.route, account).to_owned();
    let pattern = query.route.paths.first().copied().unwrap_or_default();
    for segment in pattern.split('/').skip(1) {
        url.push('/');
        url.push_str(match segment {
            "{accountId}" => parts.account,
            "{streamId}" | "{botId}" => parts.bot,
            "{conversationId}" => parts.conversation,
            literal => literal,
        });
    }
    if !parts.query.is_empty() {
        url.push('?');
        url.push_str(parts.query);
    }
    url
}

/// The base URL of an account that serves a route.
pub fn base<'a>(route: &Route, account: &'a Account) -> &'a str {
    match route.base {
        Base::ContactCenter => &account.contact_center_url,
        Base::Automation => &account.automation_url,
    }
}

/// All fields of the request but those that HTTP itself needs. Fails for an id that is no header
/// value, which the configuration and the path's validation let nobody have: without its `accountId`
/// the call would be another one.
pub fn headers(
    query: &Query,
    account: &Account,
    token: HeaderValue,
) -> Result<HeaderMap, InvalidHeaderValue> {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(AUTH, token);
    headers.insert(ACCOUNT_ID, HeaderValue::from_str(&account.id)?);
    if let Some(stream) = stream(query.bot.as_deref(), account) {
        headers.insert(STREAM_ID, HeaderValue::from_str(stream)?);
    }
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    if !query.key.parts().body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    Ok(headers)
}

/// The stream a request is about: the one in its path; for a whole account its only one, if it has
/// only one. Any other choice could narrow what the answer holds.
fn stream<'a>(bot: Option<&'a str>, account: &'a Account) -> Option<&'a str> {
    bot.or_else(|| account.bots.only())
}
