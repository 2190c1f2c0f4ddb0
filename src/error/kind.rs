//! The kinds of errors: the closed list that docs/REFERENCE.md promises.

use std::borrow::Cow;

use http::StatusCode;

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

    /// The error type of `Proxy-Status` (RFC 9209 §2.3) that its errors have, if nothing finer is known.
    pub const fn proxy_error(self) -> Option<&'static str> {
        match self {
            Self::UpstreamInvalid => Some("http_protocol_error"),
            Self::UpstreamTimeout => Some("http_response_timeout"),
            Self::UpstreamRefused => Some("proxy_configuration_error"),
            _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_kinds_is_whole() {
        assert!(Kind::ALL.iter().enumerate().all(|(place, kind)| *kind as usize == place));
        assert_eq!(Kind::ALL.len(), Kind::NotCached as usize + 1, "the last one in the enum");
    }
}
