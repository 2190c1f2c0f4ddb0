//! What is it, in canonical form? Here the body is read: at last, and at most so much of it.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http::{HeaderMap, Method, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use tower::BoxError;

use super::check::{Check, Checking};
use super::{Admitted, Valid};
use crate::access::cache_control::Directives;
use crate::config::Account;
use crate::error::{Error, Fault, Kind};
use crate::http::accept;
use crate::overload::waiting::with_place;
use crate::reply::Conditions;
use crate::routes::{self, Key, Query, Route};
use crate::server::guard::{self, Refusal};

const JSON: &str = "application/json";

/// A body that was sent right behind its head is there after so long: it may be about what is stored, which needs no
/// place.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

#[derive(Clone, Copy)]
pub struct Validate;

impl Check<Admitted> for Validate {
    type Checked = Valid;

    fn check(&self, mut request: Admitted) -> Checking<Valid> {
        if request.call.route.method == Method::POST {
            return Checking::of(with_body(request));
        }
        if request.call.is_open() {
            return Checking::of(once_ended(request));
        }
        Checking::Done(without_body(request))
    }
}

fn without_body(request: Admitted) -> Result<Valid, Error> {
    let query = check_accept(&request.call.head.headers).and_then(|()| request.query(None));
    valid(request, query, None)
}

/// A request of HTTP/2 that must have no content, and says so after its head.
async fn once_ended(mut request: Admitted) -> Result<Valid, Error> {
    match request.end().await {
        Ok(()) => without_body(request),
        Err(error) => Err(request.refused(error)),
    }
}

async fn with_body(mut request: Admitted) -> Result<Valid, Error> {
    let body = match request.read().await {
        Ok(body) => body,
        Err(error) => return Err(request.refused(error)),
    };
    let query = request.query(Some(&body));
    valid(request, query, Some(body))
}

fn valid(admitted: Admitted, query: Result<Query, Error>, body: Option<Bytes>) -> Result<Valid, Error> {
    let query = query.map_err(|error| admitted.refused(error))?;
    let head = &admitted.call.head;
    let revalidate = admitted.grant.client.may_refresh && Directives::of(&head.headers).no_cache;
    let conditions = Conditions::of(&head.method, &head.headers);
    Ok(Valid { admitted, query, body, revalidate, conditions })
}

impl Admitted {
    async fn read(&mut self) -> Result<Bytes, Error> {
        let call = &mut self.call;
        check_accept(&call.head.headers)?;
        check_media_type(&call.head.method, &call.head.headers)?;
        let server = &call.snapshot.config.server;
        let (waiting, most, name) = (&call.app.waiting, server.most_waiting, &self.grant.client.name);
        let place = || waiting.begin(&Some(name.clone()), most);
        let body = read(call.body.get_mut(), server.max_request_body, server.body_timeout);
        let body = with_place(body, ON_ITS_WAY, place).await?;
        self.has_taken_its_time()?;
        Ok(body)
    }

    /// Waits for the request's end, before which there must be nothing.
    async fn end(&mut self) -> Result<(), Error> {
        let call = &mut self.call;
        let server = &call.snapshot.config.server;
        let (waiting, most, name) = (&call.app.waiting, server.most_waiting, &self.grant.client.name);
        let place = || waiting.begin(&Some(name.clone()), most);
        let has_content = guard::has_content(call.body.get_mut(), server.body_timeout).map(Ok);
        if with_place(has_content, ON_ITS_WAY, place).await? {
            return Err(Refusal::BodyUnexpected.into());
        }
        self.has_taken_its_time()
    }

    /// What is fresh and whose a key is, is judged by now.
    fn has_taken_its_time(&mut self) -> Result<(), Error> {
        let call = &mut self.call;
        call.now = call.app.clock.moment();
        self.identity.client(&call.snapshot.config.clients, call.now.wall).map(drop)
    }

    fn query(&self, body: Option<&[u8]>) -> Result<Query, Error> {
        let query = canonical(&self.grant.account, self.call.route, &self.call.contract(body))
            .map_err(|error| self.call.without_credentials(body).err().unwrap_or(error))?;
        // What goes upstream is searched before it does. What the question leaves out, it would take along unseen
        // to an answer that is stored.
        if query.drops_text {
            self.call.without_credentials(body)?;
        }
        Ok(query)
    }
}

/// The query that a request about an account comes to; all its faults, if it breaks the contract.
pub fn canonical(
    account: &Account,
    route: &'static Route,
    request: &routes::Request<'_>,
) -> Result<Query, Error> {
    let canonical = (route.parse)(request).map_err(Error::invalid_request)?;
    Ok(Query {
        route,
        account: account.id.clone(),
        bot: request.ids.bot().map(Arc::from),
        key: Key::new(&account.id, route, request.ids, &canonical),
        plain: Key::plain(&account.id, route, request.ids, &canonical),
        drops_text: canonical.drops_text,
        requested: canonical.requested,
    })
}

/// JSON, in no coding. What says nothing of its type is taken for JSON, but not in a QUERY, where the
/// type says what kind of query it is (RFC 10008 §2).
fn check_media_type(method: &Method, headers: &HeaderMap) -> Result<(), Error> {
    let unsupported = |name: &'static str, detail: &'static str| {
        Err(Error::new(Kind::UnsupportedMediaType, detail).with_fault(Fault::in_header(name, detail)))
    };
    if let Some(value) = headers.get(header::CONTENT_TYPE) {
        let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
        if !essence.eq_ignore_ascii_case("application/json") {
            return unsupported("content-type", "the body's type is another than `application/json`");
        }
    }
    if method == Method::QUERY && !headers.contains_key(header::CONTENT_TYPE) {
        return unsupported("content-type", "a QUERY says its type; it is `application/json`");
    }
    match headers.get(header::CONTENT_ENCODING) {
        Some(coding) if !coding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            unsupported("content-encoding", "the body is encoded; send it as it is")
        }
        _ => Ok(()),
    }
}

/// Answers are JSON, whatever else a caller would rather have (RFC 9110 §12.5.1).
fn check_accept(headers: &HeaderMap) -> Result<(), Error> {
    accept::media(headers, &[JSON]).map(|_| ()).ok_or_else(|| Error::not_acceptable(JSON))
}

async fn read(body: &mut Body, most: usize, within: Duration) -> Result<Bytes, Error> {
    match tokio::time::timeout(within, joined(Limited::new(body, most))).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let detail = format!("the request body is larger than {most} bytes");
            Err(Error::new(Kind::ContentTooLarge, detail))
        }
        Ok(Err(_)) => {
            let detail = "the request body broke off";
            Err(Error::invalid_request(vec![Fault::at_pointer("", detail)]))
        }
        Err(_) => Err(Error::new(Kind::RequestTimeout, "the request body took too long to arrive")),
    }
}

/// A body whose parts are joined as they come: held one by one, parts of one byte would take forty times as
/// much memory as the body.
async fn joined(mut body: Limited<&mut Body>) -> Result<Bytes, BoxError> {
    let mut only = Bytes::new();
    let mut joined = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // Trailers say nothing that is looked at.
        let Ok(part) = frame?.into_data() else { continue };
        if only.is_empty() && joined.is_empty() {
            only = part;
        } else {
            joined.extend_from_slice(&std::mem::take(&mut only));
            joined.extend_from_slice(&part);
        }
    }
    Ok(if joined.is_empty() { only } else { joined.freeze() })
}
