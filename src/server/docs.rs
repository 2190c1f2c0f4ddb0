//! `GET /openapi.json` and `GET /docs`: the API's contract, for programs and for people. Open to
//! everybody: it says nothing that the vendor's own pages do not say.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, StatusCode};

use super::middleware::Exchange;
use crate::error::{Error, Kind};
use crate::http::accept;
use crate::reply::etag;
use crate::routes::openapi::Page;

/// For so long nobody asks again; then the tag tells whether anything has changed.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");
const METHODS: &str = "GET, HEAD";

/// The contract for programs.
pub async fn document(
    Extension(exchange): Extension<Arc<Exchange>>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let document = &exchange.snapshot.contract().document;
    answer(&exchange, &method, &headers, document, "application/json")
}

/// The contract for people.
pub async fn page(
    Extension(exchange): Extension<Arc<Exchange>>,
    method: Method,
    headers: HeaderMap,
) -> Response {
    let page = &exchange.snapshot.contract().page;
    answer(&exchange, &method, &headers, page, "text/html; charset=utf-8")
}

fn answer(
    exchange: &Exchange,
    method: &Method,
    headers: &HeaderMap,
    page: &Page,
    media_type: &'static str,
) -> Response {
    let error = if !matches!(*method, Method::GET | Method::HEAD) {
        Error::new(Kind::MethodNotAllowed, "this path takes GET, HEAD")
            .with_header(header::ALLOW, HeaderValue::from_static(METHODS))
    } else if accept::media(headers, &[media_type]).is_none() {
        Error::not_acceptable(media_type)
    } else {
        return response(method, headers, page, media_type);
    };
    exchange.refused(headers, error).into_response()
}

fn response(method: &Method, headers: &HeaderMap, page: &Page, media_type: &'static str) -> Response {
    let mut known = etag::listed(headers.get_all(header::IF_NONE_MATCH));
    let is_known = known.any(|tag| tag == page.tag || tag == "*");
    let mut response = Response::new(Body::empty());
    if is_known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let length = page.body.len();
        if *method == Method::GET {
            *response.body_mut() = page.body.clone().into();
        }
        response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, CACHE_CONTROL);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    let made: [(HeaderName, &str); 2] =
        [(header::ETAG, &page.tag), (header::CONTENT_SECURITY_POLICY, &page.policy)];
    for (name, value) in made {
        // Made of letters, digits and punctuation; what is no header value is left out.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    }
    response
}
