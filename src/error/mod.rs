//! What can go wrong with a request.
//!
//! A stage returns an [`Error`]; nobody logs it on the way. `http::problem` makes the response of it that callers
//! get, and the access log says the rest (the cause) once.

pub mod calls;
pub mod cause;
mod fault;
mod kind;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, StatusCode};

use calls::CallsMade;
use cause::Cause;
pub use fault::{Fault, MOST_FAULTS, Place};
pub use kind::Kind;

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
    /// In place of its kind's.
    proxy_error: Option<&'static str>,
    /// The request was none, and its stream ends in an error.
    is_malformed: bool,
    /// The limit that was exceeded, by its name in `RateLimit-Policy`.
    violated: Option<&'static str>,
    because: Option<Cause>,
    /// What of the gateway's it is about, by its name: a credential, an account, a base URL.
    concerns: Option<Arc<str>>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    /// What the request had set off by then.
    calls: Option<CallsMade>,
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

    /// An answer of the upstream's that ends before it is complete.
    pub fn incomplete_answer(detail: &'static str) -> Self {
        Self::new(Kind::UpstreamInvalid, detail).proxy_error("http_response_incomplete")
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

    /// Of a request of HTTP/2 that is none: its stream ends in an error, and nothing is answered (RFC 9113 §8.1.1).
    pub fn malformed(mut self) -> Self {
        self.more.is_malformed = true;
        self
    }

    pub fn is_malformed(&self) -> bool {
        self.more.is_malformed
    }

    /// Names the limit that was exceeded.
    pub fn violates(mut self, policy: &'static str) -> Self {
        self.more.violated = Some(policy);
        self
    }

    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// What is wrong with the request, thing by thing.
    pub fn faults(&self) -> &[Fault] {
        &self.more.faults
    }

    /// The limit that was exceeded, by its name in `RateLimit-Policy`.
    pub fn violated(&self) -> Option<&'static str> {
        self.more.violated
    }

    /// The fields that its answer has beside those of all.
    pub fn headers(&self) -> &HeaderMap {
        &self.more.headers
    }

    /// How long the caller is asked to wait.
    pub fn wait(&self) -> Option<Duration> {
        self.retry_after
    }

    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.more.headers.insert(name, value);
        self
    }

    /// One of the error types that RFC 9209 §2.3 registers, where its kind's own does not say enough.
    pub fn proxy_error(mut self, error_type: &'static str) -> Self {
        self.more.proxy_error = Some(error_type);
        self
    }

    /// The error type of `Proxy-Status` (RFC 9209); none for what is not about the upstream.
    pub fn proxy_error_type(&self) -> Option<&'static str> {
        self.more.proxy_error.or(self.kind.proxy_error())
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

    /// It came after these calls to the upstream; for the log.
    pub fn after(mut self, calls: Option<CallsMade>) -> Self {
        self.more.calls = calls;
        self
    }

    pub fn calls(&self) -> Option<&CallsMade> {
        self.more.calls.as_ref()
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
    fn waits_are_rounded_up() {
        assert_eq!(whole_seconds(Duration::from_millis(1)), 1);
        assert_eq!(whole_seconds(Duration::from_secs(3)), 3);
    }
}
