//! What can go wrong with a request, and the one place where it becomes HTTP.
//!
//! A stage returns an [`Error`]; nobody logs it on the way. [`Error::into_response`] writes the
//! `application/problem+json` document (RFC 9457) that README promises, and the access log says
//! the rest (the source) once.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use crate::body::{Body, Response};
use crate::cause::Cause;

/// The closed set of things that can go wrong; each has one status, one `type` and one title.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    InvalidRequest,
    Unauthenticated,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    NotAcceptable,
    RequestTimeout,
    ContentTooLarge,
    UriTooLong,
    UnsupportedMediaType,
    ExpectationFailed,
    HeadTooLarge,
    QuotaExceeded,
    /// A defect of the gateway's own.
    Internal,
    NotImplemented,
    VersionNotSupported,
    /// The upstream refused the gateway's own credential.
    UpstreamRefused,
    /// The upstream's answer is cut, not HTTP, a redirect, or about something else.
    UpstreamInvalid,
    UpstreamUnreachable,
    /// The upstream answered with an error, whose body this caller does not get. Its status is the upstream's.
    UpstreamError,
    /// The keys of an identity token's issuer have never been seen.
    IdentityUnavailable,
    /// Who was handed what cannot be written down.
    AuditUnavailable,
    /// The upstream's quota is used up, its breaker is open, or the gateway sheds load.
    TemporaryReducedCapacity,
    UpstreamTimeout,
    /// Only what is stored was asked for, and nothing is.
    NotCached,
}

impl Kind {
    /// All of them, in their order.
    pub const ALL: [Self; 25] = [
        Self::InvalidRequest,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::NotAcceptable,
        Self::RequestTimeout,
        Self::ContentTooLarge,
        Self::UriTooLong,
        Self::UnsupportedMediaType,
        Self::ExpectationFailed,
        Self::HeadTooLarge,
        Self::QuotaExceeded,
        Self::Internal,
        Self::NotImplemented,
        Self::VersionNotSupported,
        Self::UpstreamRefused,
        Self::UpstreamInvalid,
        Self::UpstreamUnreachable,
        Self::UpstreamError,
        Self::IdentityUnavailable,
        Self::AuditUnavailable,
        Self::TemporaryReducedCapacity,
        Self::UpstreamTimeout,
        Self::NotCached,
    ];

    pub const fn status(self) -> StatusCode {
        match self {
            Self::InvalidRequest => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::ContentTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UriTooLong => StatusCode::URI_TOO_LONG,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::QuotaExceeded => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::NotImplemented => StatusCode::NOT_IMPLEMENTED,
            Self::VersionNotSupported => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::UpstreamRefused
            | Self::UpstreamInvalid
            | Self::UpstreamUnreachable
            | Self::UpstreamError => StatusCode::BAD_GATEWAY,
            Self::TemporaryReducedCapacity | Self::IdentityUnavailable | Self::AuditUnavailable => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::UpstreamTimeout | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// The word for it in logs and metrics, and the last segment of `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid-request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::MethodNotAllowed => "method-not-allowed",
            Self::NotAcceptable => "not-acceptable",
            Self::RequestTimeout => "request-timeout",
            Self::ContentTooLarge => "content-too-large",
            Self::UriTooLong => "uri-too-long",
            Self::UnsupportedMediaType => "unsupported-media-type",
            Self::ExpectationFailed => "expectation-failed",
            Self::HeadTooLarge => "head-too-large",
            Self::QuotaExceeded => "quota-exceeded",
            Self::Internal => "internal",
            Self::NotImplemented => "not-implemented",
            Self::VersionNotSupported => "version-not-supported",
            Self::UpstreamRefused => "upstream-refused",
            Self::UpstreamInvalid => "upstream-invalid",
            Self::UpstreamUnreachable => "upstream-unreachable",
            Self::UpstreamError => "upstream-error",
            Self::IdentityUnavailable => "identity-unavailable",
            Self::AuditUnavailable => "audit-unavailable",
            Self::TemporaryReducedCapacity => "temporary-reduced-capacity",
            Self::UpstreamTimeout => "upstream-timeout",
            Self::NotCached => "not-cached",
        }
    }

    /// The `title` of its problem document.
    pub const fn title(self) -> &'static str {
        match self {
            Self::InvalidRequest => "The request breaks the API's contract",
            Self::Unauthenticated => "No valid credential",
            Self::Forbidden => "Not allowed for this caller",
            Self::NotFound => "Not found",
            Self::MethodNotAllowed => "Method not allowed",
            Self::NotAcceptable => "Nothing acceptable to offer",
            Self::RequestTimeout => "The request took too long to arrive",
            Self::ContentTooLarge => "The request body is too large",
            Self::UriTooLong => "The request target is too long",
            Self::UnsupportedMediaType => "The request body is not JSON",
            Self::ExpectationFailed => "Nothing of that kind can be expected",
            Self::HeadTooLarge => "The request head is too large",
            Self::QuotaExceeded => "Rate limit exceeded",
            Self::Internal => "The gateway failed",
            Self::NotImplemented => "Not implemented",
            Self::VersionNotSupported => "HTTP version not supported",
            Self::UpstreamRefused => "The upstream refused the gateway's credential",
            Self::UpstreamInvalid => "The upstream's answer cannot be used",
            Self::UpstreamUnreachable => "The upstream cannot be reached",
            Self::UpstreamError => "The upstream answered with an error",
            Self::IdentityUnavailable => "The identity provider cannot be reached",
            Self::AuditUnavailable => "The audit cannot be written",
            Self::TemporaryReducedCapacity => "Temporarily out of upstream capacity",
            Self::UpstreamTimeout => "The upstream took too long",
            Self::NotCached => "No stored answer",
        }
    }

    /// The problem type: the two that IANA has registered (draft-ietf-httpapi-ratelimit-headers §5)
    /// under its name, ours relative to the gateway.
    pub fn type_uri(self) -> Cow<'static, str> {
        match self {
            Self::QuotaExceeded => "https://iana.org/assignments/http-problem-types#quota-exceeded".into(),
            Self::TemporaryReducedCapacity => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity".into()
            }
            _ => format!("/problems/{}", self.as_str()).into(),
        }
    }
}

/// Where in the request a fault is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// A JSON pointer into the body (RFC 6901).
    Pointer(String),
    /// A parameter of the path or the query string.
    Parameter(Cow<'static, str>),
    Header(&'static str),
}

/// Faults that one answer lists. A caller who has fixed so many asks again; a body of nothing but
/// faults must not become an answer many times its size.
pub const MOST_FAULTS: usize = 50;

/// Characters of a place in the request that an answer repeats.
const LONGEST_PLACE: usize = 200;

/// One thing that is wrong with a request: where, what was there, and what would be right.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub place: Place,
    pub detail: String,
}

impl Fault {
    pub fn at_pointer(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { place: Place::Pointer(short(pointer.into())), detail: detail.into() }
    }

    pub fn in_parameter(name: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        let name = match name.into() {
            Cow::Borrowed(name) => Cow::Borrowed(name),
            Cow::Owned(name) => Cow::Owned(short(name)),
        };
        Self { place: Place::Parameter(name), detail: detail.into() }
    }

    pub fn in_header(name: &'static str, detail: impl Into<String>) -> Self {
        Self { place: Place::Header(name), detail: detail.into() }
    }
}

fn short(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(LONGEST_PLACE) {
        text.truncate(end);
        text.push('…');
    }
    text
}

/// A request that gets no answer of the upstream's. Shared by those who waited for one fill, so it
/// is cheap to clone and says nothing of any one caller.
#[derive(Clone, Debug)]
pub struct Error {
    pub kind: Kind,
    detail: Cow<'static, str>,
    retry_after: Option<Duration>,
    /// The caller it happened to, once known; for the access log.
    pub client: Option<Arc<str>>,
    /// Apart, so that a `Result` stays small on the way that succeeds.
    more: Box<More>,
}

#[derive(Clone, Debug, Default)]
struct More {
    /// In place of its kind's.
    status: Option<StatusCode>,
    faults: Vec<Fault>,
    headers: HeaderMap,
    /// The limit that was exceeded, by its name in `RateLimit-Policy`.
    violated: Option<&'static str>,
    because: Option<Cause>,
    /// What of the gateway's it is about, by its name: a credential, an account, a base URL.
    concerns: Option<Arc<str>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// `detail` is for the caller to read: no secret, no personal data.
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into(), retry_after: None, client: None, more: Box::default() }
    }

    /// An error of the upstream's own, without its body.
    pub fn upstream(status: StatusCode) -> Self {
        let detail = format!(
            "the upstream answered with status {}; its body is not shown to this client",
            status.as_u16()
        );
        let mut error = Self::new(Kind::UpstreamError, detail);
        error.more.status = Some(status);
        error
    }

    /// The status it is answered with.
    pub fn status(&self) -> StatusCode {
        self.more.status.unwrap_or(self.kind.status())
    }

    /// A caller whose `Accept` leaves out what there is.
    pub fn not_acceptable(media_type: &str) -> Self {
        let detail = format!("answers are `{media_type}`, which `Accept` leaves out");
        Self::new(Kind::NotAcceptable, detail.clone()).with_fault(Fault::in_header("accept", detail))
    }

    /// A request that takes only what is stored, and nothing that would do is.
    pub fn not_cached() -> Self {
        let detail =
            "no answer that would do is stored, and `Cache-Control: only-if-cached` lets none be fetched";
        Self::new(Kind::NotCached, detail)
    }

    /// A request with these faults, of which at most [`MOST_FAULTS`] are listed; never call it with
    /// none.
    pub fn invalid_request(faults: Vec<Fault>) -> Self {
        let detail = match &faults[..] {
            [only] => only.detail.clone(),
            all if all.len() > MOST_FAULTS => {
                format!("at least {MOST_FAULTS} faults; the first {MOST_FAULTS} are listed in `errors`")
            }
            all => format!("{} faults; each is listed in `errors`", all.len()),
        };
        faults.into_iter().take(MOST_FAULTS).fold(Self::new(Kind::InvalidRequest, detail), Self::with_fault)
    }

    /// One more thing that is wrong with the request.
    pub fn with_fault(mut self, fault: Fault) -> Self {
        self.more.faults.push(fault);
        self
    }

    /// When it is worth asking again. Rounded up to whole seconds (RFC 9110 §10.2.3), so that
    /// waiting that long works.
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// Names the limit that was exceeded.
    pub fn violates(mut self, policy: &'static str) -> Self {
        self.more.violated = Some(policy);
        self
    }

    /// How long the caller is told to wait.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.headers.insert(name, value);
        self
    }

    /// `Proxy-Status` (RFC 9209) with one of its registered error types.
    pub fn proxy_status(self, error_type: &'static str) -> Self {
        match HeaderValue::try_from(format!("kore-gateway; error={error_type}")) {
            Ok(value) => self.with_header(HeaderName::from_static("proxy-status"), value),
            Err(_) => self,
        }
    }

    /// What lies behind it, for the log.
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.more.source = Some(Arc::from(source.into()));
        self
    }

    /// Which of the things that its kind stands for it is; for the log, and not for the caller.
    pub fn because(mut self, cause: Cause) -> Self {
        self.more.because = Some(cause);
        self
    }

    /// The name of what is at fault; for the log, and not for the caller.
    pub fn about(mut self, name: impl Into<Arc<str>>) -> Self {
        self.more.concerns = Some(name.into());
        self
    }

    pub fn reason(&self) -> Option<Cause> {
        self.more.because
    }

    pub fn concerns(&self) -> Option<&Arc<str>> {
        self.more.concerns.as_ref()
    }

    pub fn for_client(mut self, client: &Arc<str>) -> Self {
        self.client = Some(client.clone());
        self
    }

    /// The cause for the log: kinds and places, never a URL with its query and never a body.
    pub fn cause(&self) -> Option<String> {
        let mut cause: &dyn std::error::Error = self.more.source.as_deref()?;
        let mut text = cause.to_string();
        while let Some(next) = cause.source() {
            cause = next;
            text.push_str(": ");
            text.push_str(&cause.to_string());
        }
        Some(text)
    }

    /// The problem document (RFC 9457 §3). `errors[].msg` and `errors[].code` are there because
    /// clients of the upstream read `errors[0].msg`.
    pub fn document(&self, request_id: &str) -> Value {
        let code = self.status().as_u16();
        let mut errors: Vec<Value> = Vec::with_capacity(self.more.faults.len().max(1));
        for Fault { place, detail } in &self.more.faults {
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
            errors.push(json!({ "detail": self.detail, "msg": self.detail, "code": code }));
        }
        let mut document = json!({
            "type": self.kind.type_uri(),
            "title": self.kind.title(),
            "status": code,
            "detail": self.detail,
            "request_id": request_id,
            "errors": errors,
        });
        match self.kind {
            Kind::QuotaExceeded => {
                document["violated-policies"] = json!([self.more.violated.unwrap_or("client")]);
            }
            Kind::TemporaryReducedCapacity => document["violated-policies"] = json!(["upstream"]),
            _ => {}
        }
        document
    }

    /// The answer to the caller.
    pub fn into_response(self, request_id: &str) -> Response {
        let document = self.document(request_id).to_string();
        let mut response = Response::new(Body::from(Bytes::from(document)));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.extend(self.more.headers);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        if let Some(wait) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(wait).into());
        }
        if self.kind == Kind::Unauthenticated {
            headers
                .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(r#"Bearer realm="kore-gateway""#));
        }
        response
    }
}

/// `duration` in whole seconds, rounded up.
pub fn whole_seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.as_str(), self.detail)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_lists_every_fault_with_its_place_and_the_upstreams_own_members() {
        let error = Error::invalid_request(vec![
            Fault::at_pointer("/endDate", "too late"),
            Fault::in_parameter("limit", "too large"),
        ]);
        let document = error.document("r-1");
        assert_eq!(document["type"], "/problems/invalid-request");
        assert_eq!(document["status"], 400);
        assert_eq!(document["request_id"], "r-1");
        assert_eq!(document["errors"][0]["pointer"], "/endDate");
        assert_eq!(document["errors"][1]["parameter"], "limit");
        assert_eq!(document["errors"][1]["msg"], "too large");
        assert_eq!(document["errors"][1]["code"], 400);
    }

    #[test]
    fn the_list_of_kinds_is_whole() {
        assert!(Kind::ALL.iter().enumerate().all(|(place, kind)| *kind as usize == place));
        assert_eq!(Kind::ALL.len(), Kind::NotCached as usize + 1, "the last one in the enum");
    }

    #[test]
    fn an_error_without_faults_still_has_a_first_message() {
        let document = Error::new(Kind::Forbidden, "no").document("r");
        assert_eq!(document["errors"][0]["msg"], "no");
    }

    #[test]
    fn waits_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    }
}
