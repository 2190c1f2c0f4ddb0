//! The request that goes upstream, built from a key and from nothing else.
//!
//! `auth`, `accountId` and `iId` are set here and nowhere else in the crate. Nothing of the caller's request is
//! available here, so nothing of it can be forwarded. The trace of a call goes with it (`traceparent`, if tracing is
//! on) and has no influence on the answer.

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

/// All header fields of the request, except those that HTTP itself needs. Fails for an id that is not a header value:
/// without its `accountId` the call would mean something else. The configuration and the validation of paths exclude
/// such ids.
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

/// The stream of a request: the one in its path, or the only one of the account. Any other choice could narrow the
/// answer.
fn stream<'a>(bot: Option<&'a str>, account: &'a Account) -> Option<&'a str> {
    bot.or_else(|| account.bots.only())
}
