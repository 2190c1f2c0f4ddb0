//! An error as callers get it: the problem document (RFC 9457).

use axum::body::Body;
use axum::response::Response;
use http::header::{self, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::body::malformed;
use crate::error::{Error, Fault, Kind, Place, whole_seconds};

const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The problem document (RFC 9457 §3). `errors[].msg` and `errors[].code` are there because
/// clients of the upstream read `errors[0].msg`.
pub fn document(error: &Error, request_id: &str) -> Value {
    let code = error.status().as_u16();
    let mut errors: Vec<Value> = Vec::with_capacity(error.faults().len().max(1));
    for Fault { place, detail } in error.faults() {
        let mut entry = json!({ "detail": detail, "msg": detail, "code": code });
        let (member, value) = match place {
            Place::Pointer(pointer) => ("pointer", pointer.as_str()),
            Place::Parameter(name) => ("parameter", name.as_ref()),
            Place::Header(name) => ("header", *name),
        };
        entry[member] = value.into();
        errors.push(entry);
    }
    if errors.is_empty() {
        errors.push(json!({ "detail": error.detail(), "msg": error.detail(), "code": code }));
    }
    let mut document = json!({
        "type": error.kind.type_uri(),
        "title": error.kind.title(),
        "status": code,
        "detail": error.detail(),
        "request_id": request_id,
        "errors": errors,
    });
    match error.kind {
        Kind::QuotaExceeded => {
            document["violated-policies"] = json!([error.violated().unwrap_or("client")]);
        }
        Kind::TemporaryReducedCapacity => document["violated-policies"] = json!(["upstream"]),
        _ => {}
    }
    document
}

/// The answer to the caller of the request of that id.
pub fn response(error: &Error, request_id: &str) -> Response {
    let body =
        if error.is_malformed() { malformed() } else { Body::from(document(error, request_id).to_string()) };
    let mut response = Response::new(body);
    *response.status_mut() = error.status();
    let headers = response.headers_mut();
    headers.extend(error.headers().clone());
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    // RFC 9209: made of letters alone.
    if let Some(error_type) = error.proxy_error_type()
        && let Ok(value) = HeaderValue::try_from(format!("kore-gateway; error={error_type}"))
    {
        headers.insert(PROXY_STATUS, value);
    }
    if let Some(wait) = error.wait() {
        headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
    }
    if error.kind == Kind::Unauthenticated {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="kore-gateway""#));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_lists_every_fault_with_its_place_and_the_upstreams_own_members() {
        let error = Error::invalid_request(vec![
            Fault::at_pointer("/endDate", "too late"),
            Fault::in_parameter("limit", "too large"),
        ]);
        let document = document(&error, "r-1");
        assert_eq!(document["type"], "/problems/invalid-request");
        assert_eq!(document["status"], 400);
        assert_eq!(document["request_id"], "r-1");
        assert_eq!(document["errors"][0]["pointer"], "/endDate");
        assert_eq!(document["errors"][1]["parameter"], "limit");
        assert_eq!(document["errors"][1]["msg"], "too large");
        assert_eq!(document["errors"][1]["code"], 400);
    }

    #[test]
    fn an_error_without_faults_still_has_a_first_message() {
        let document = document(&Error::new(Kind::Forbidden, "no"), "r");
        assert_eq!(document["errors"][0]["msg"], "no");
    }
}
