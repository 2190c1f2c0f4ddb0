//! What the result of an exchange means. Pure.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::fmt::rfc2822::DateTimeParser;

use super::exchange::{Body, ExchangeError, Received};
use crate::clock::{Moment, UnixMillis};
use crate::error::{Error, Kind, whole_seconds};
use crate::fetch::answer::{Answer, ContentType, Fetched, Large};
use crate::fetch::ending::Ending;

/// The wait after a refusal that names no time. Clients of the vendor's other APIs wait as long.
pub const QUOTA_REFUSED_FOR: Duration = Duration::from_secs(60);

/// The shortest wait. A refusal may name a time in the past, if a clock is ahead.
const SHORTEST_REFUSAL: Duration = Duration::from_secs(1);

/// The longest wait, whatever a refusal says: the vendor's longest window is an hour.
const LONGEST_REFUSAL: Duration = Duration::from_secs(3600);

/// The most bytes of a `Content-Type` that is passed on.
const LONGEST_CONTENT_TYPE: usize = 100;

/// The vendor's words for a used-up quota (contract §7), in lower case.
const QUOTA_MESSAGES: [&str; 3] = [
    "you've exceeded the per-minute rate limit",
    "you've exceeded the hourly rate limit",
    "rate limit for this api has been reached",
];

/// A refusal is a short envelope; longer bodies are not searched for the vendor's words.
const LONGEST_ENVELOPE: usize = 4096;

/// The outcome of one attempt.
pub enum AttemptOutcome {
    Answered(Fetched),
    /// The token was refused, or the scope, or the bot: one status stands for all (contract §2).
    TokenRefused {
        status: StatusCode,
        date: Option<UnixMillis>,
    },
    QuotaRefused(Duration),
    Failed(ExchangeError),
}

impl AttemptOutcome {
    /// The outcome of an answer to a request that was sent at `asked_at`. `now` is when the answer was complete.
    pub fn of(received: Received, asked_at: Moment, now: UnixMillis) -> Self {
        let Received { status, headers, body } = received;
        let is_quota_refusal = matches!(&body, Body::Whole(body) if is_quota_refusal(body));
        if status == StatusCode::TOO_MANY_REQUESTS || is_quota_refusal {
            let wait = retry_after(&headers, now).unwrap_or(QUOTA_REFUSED_FOR);
            return Self::QuotaRefused(wait.clamp(SHORTEST_REFUSAL, LONGEST_REFUSAL));
        }
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Self::TokenRefused { status, date: date(&headers) };
        }
        if status.is_redirection() {
            let detail = "the upstream answered with a redirect, which is not followed";
            return Self::Failed(ExchangeError::Invalid(
                Error::new(Kind::UpstreamInvalid, detail).proxy_error("http_protocol_error"),
            ));
        }
        let content_type = content_type(&headers);
        let wait = retry_after(&headers, now).map(|wait| whole_seconds(wait.min(LONGEST_REFUSAL)));
        let retry_after = wait.and_then(|seconds| NonZeroU32::new(u32::try_from(seconds).ok()?));
        Self::Answered(match body {
            Body::Whole(body) => Fetched::Whole(Answer { status, content_type, retry_after, body, asked_at }),
            Body::Large(body, bounds) => Fetched::Large(Large { status, content_type, body }, bounds),
        })
    }

    /// The row of the table of consequences.
    pub fn ending(&self) -> Ending {
        match self {
            Self::Answered(fetched) => Ending::Status(fetched.status()),
            Self::TokenRefused { .. } => Ending::TokenRefused,
            Self::QuotaRefused(_) => Ending::QuotaRefused,
            Self::Failed(ExchangeError::NotSent(_)) => Ending::Unsent,
            Self::Failed(ExchangeError::Stale(_)) => Ending::StaleConnection,
            Self::Failed(ExchangeError::Cut(_)) => Ending::Cut,
            Self::Failed(ExchangeError::TimedOut(_)) => Ending::TimedOut,
            Self::Failed(ExchangeError::Invalid(_)) => Ending::Invalid,
        }
    }

    /// Whether the outcome proves that the upstream has this bot. For an unknown bot it refuses the token or the id, or
    /// answers "there is none" (contract §7).
    pub fn knows_the_bot(&self) -> bool {
        match self {
            Self::Answered(fetched) => {
                let status = fetched.status();
                !matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND)
                    && !status.is_server_error()
            }
            Self::QuotaRefused(_) => true,
            Self::TokenRefused { .. } | Self::Failed(_) => false,
        }
    }

    /// The kind of error of a failed exchange.
    pub fn error(&self) -> Option<Kind> {
        match self {
            Self::Failed(broken) => Some(broken.kind()),
            Self::Answered(_) | Self::TokenRefused { .. } | Self::QuotaRefused(_) => None,
        }
    }
}

/// Whether a body is one of the vendor's refusals, whatever its status. A transcript may contain the same words, so in
/// JSON they count only at the start of an error's message.
fn is_quota_refusal(body: &[u8]) -> bool {
    if body.len() > LONGEST_ENVELOPE {
        return false;
    }
    match serde_json::from_slice(body) {
        Ok(serde_json::Value::Object(envelope)) => {
            let errors = ["errors", "error"].iter().filter_map(|member| envelope.get(*member));
            messages(&envelope).any(begins_with_refusal) || errors.flat_map(each).any(is_refusal)
        }
        Ok(_) => false,
        Err(_) => std::str::from_utf8(body).is_ok_and(begins_with_refusal),
    }
}

fn begins_with_refusal(text: &str) -> bool {
    let text = text.trim_start();
    QUOTA_MESSAGES
        .iter()
        .any(|message| text.get(..message.len()).is_some_and(|start| start.eq_ignore_ascii_case(message)))
}

/// The errors of an envelope. The vendor writes a list, similar services write one error or its text.
fn each(errors: &serde_json::Value) -> &[serde_json::Value] {
    errors.as_array().map_or(std::slice::from_ref(errors), Vec::as_slice)
}

fn is_refusal(error: &serde_json::Value) -> bool {
    error.as_str().is_some_and(begins_with_refusal)
        || error.as_object().is_some_and(|error| messages(error).any(begins_with_refusal))
}

/// The text of an error. The vendor calls it `msg`, similar services call it `message`.
fn messages(error: &serde_json::Map<String, serde_json::Value>) -> impl Iterator<Item = &str> {
    ["msg", "message"].iter().filter_map(|member| error.get(*member)?.as_str())
}

/// `Retry-After`, in seconds or as a date (RFC 9110 §10.2.3). Anything else is ignored.
fn retry_after(headers: &HeaderMap, now: UnixMillis) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::MAX)));
    }
    // By the upstream's own clock, if it sent a `Date`.
    Some(parse_date(text)?.since(date(headers).unwrap_or(now)))
}

/// The `Content-Type`, if there is exactly one and it is of JSON. No other is passed on: a browser might take a page of
/// the upstream for one of the gateway.
fn content_type(headers: &HeaderMap) -> Option<ContentType> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (value, None) = (values.next()?, values.next()) else { return None };
    let is_plain = value.len() <= LONGEST_CONTENT_TYPE;
    // Copied, because it is a slice of the connection's read buffer and would keep all of it in memory.
    let copied = HeaderValue::from_bytes(value.as_bytes()).ok()?;
    (is_plain && is_json(value.to_str().ok()?)).then(|| ContentType::from(copied))
}

/// Whether a media type is JSON: `application/json`, or one that ends in `+json` (RFC 6839 §3.1).
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |text: &str| {
        let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
        !text.is_empty() && text.bytes().all(is_letter)
    };
    let Some((kind, subtype)) = essence.split_once('/') else { return false };
    is_token(kind) && is_token(subtype) && (essence == "application/json" || subtype.ends_with("+json"))
}

/// `Date`: when the upstream answered, by its own clock.
fn date(headers: &HeaderMap) -> Option<UnixMillis> {
    if headers.contains_key(header::AGE) {
        return None; // From a cache, so `Date` is the time of an older answer.
    }
    parse_date(headers.get(header::DATE)?.to_str().ok()?)
}

fn parse_date(text: &str) -> Option<UnixMillis> {
    const PARSER: DateTimeParser = DateTimeParser::new();
    PARSER.parse_timestamp(text).ok().map(|at| UnixMillis(at.as_millisecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, headers: &[(&'static str, &'static str)], body: &'static str) -> AttemptOutcome {
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), header::HeaderValue::from_static(value))
        });
        let status = StatusCode::from_u16(status).expect("a status");
        let body = Body::Whole(body.as_bytes().into());
        let received = Received { status, headers: headers.collect(), body };
        let asked_at = Moment { wall: UnixMillis(0), uptime: Duration::ZERO };
        AttemptOutcome::of(received, asked_at, UnixMillis(0))
    }

    fn refused_for(outcome: &AttemptOutcome) -> Option<u64> {
        match outcome {
            AttemptOutcome::QuotaRefused(wait) => Some(wait.as_secs()),
            _ => None,
        }
    }

    const MINUTE: &str =
        r#"{"errors":[{"msg":"You've exceeded the per-minute rate limit. Wait","code":429}]}"#;

    #[test]
    fn a_429_says_how_long_or_means_a_minute() {
        assert_eq!(refused_for(&of(429, &[("retry-after", "7")], "")), Some(7));
        assert_eq!(refused_for(&of(429, &[], "")), Some(60));
        assert_eq!(refused_for(&of(429, &[("retry-after", "soon")], "")), Some(60));
        assert_eq!(refused_for(&of(429, &[("retry-after", "99999999")], "")), Some(3600));
        let date =
            [("retry-after", "Thu, 01 Jan 1970 00:02:00 GMT"), ("date", "Thu, 01 Jan 1970 00:01:30 GMT")];
        assert_eq!(refused_for(&of(429, &date, "")), Some(30));
        let past =
            [("retry-after", "Thu, 01 Jan 1970 00:01:00 GMT"), ("date", "Thu, 01 Jan 1970 00:01:30 GMT")];
        assert_eq!(refused_for(&of(429, &past, "")), Some(1));
        assert_eq!(refused_for(&of(429, &[("retry-after", "0")], "")), Some(1));
    }

    #[test]
    fn a_wait_is_digits_or_a_date_to_come_and_anything_else_says_nothing() {
        let waits = |text: &'static str| match of(503, &[("retry-after", text)], "") {
            AttemptOutcome::Answered(Fetched::Whole(answer)) => answer.retry_after.map(NonZeroU32::get),
            _ => panic!("an answer"),
        };
        assert_eq!(waits("7"), Some(7));
        assert_eq!(waits("99999999999999999999999"), Some(3600));
        assert_eq!(waits("Thu, 01 Jan 1970 00:02:00 GMT"), Some(120));
        for text in ["<script>", "-5", "+5", "0", "5.5", "", "1, 2", "Wed, 31 Dec 1969 23:00:00 GMT"] {
            assert_eq!(waits(text), None, "{text}");
        }
    }

    #[test]
    fn only_types_of_json_are_handed_on() {
        let type_of = |headers: &[(&'static str, &'static str)]| match of(404, headers, "{}") {
            AttemptOutcome::Answered(Fetched::Whole(answer)) => answer.content_type.is_some(),
            _ => panic!("an answer"),
        };
        for text in [
            "application/json",
            "Application/JSON ; charset=UTF-8",
            "application/problem+json",
            "application/vnd.kore.v1+JSON",
        ] {
            assert!(type_of(&[("content-type", text)]), "{text}");
        }
        for text in [
            "text/html",
            "text/html; x=application/json",
            "application/jsonp",
            "application/json/html",
            "application/json, text/html",
            "text/html\t+json",
            "+json",
            "",
        ] {
            assert!(!type_of(&[("content-type", text)]), "{text}");
        }
        assert!(!type_of(&[]));
    }

    #[test]
    fn the_vendors_words_count_under_any_status_and_in_any_envelope() {
        for status in [200, 400, 401, 403, 409, 412, 500, 503] {
            assert_eq!(refused_for(&of(status, &[], MINUTE)), Some(60), "{status}");
        }
        for body in [
            r#"{"errors":[{"message":"You've exceeded the hourly rate limit."}]}"#,
            r#"{"error":"Rate limit for this API has been reached"}"#,
            r#"{"message":"RATE LIMIT FOR THIS API HAS BEEN REACHED"}"#,
            "Rate limit for this API has been reached. Try later.",
        ] {
            assert_eq!(refused_for(&of(200, &[], body)), Some(60), "{body}");
        }
    }

    #[test]
    fn a_long_body_is_no_refusal_whatever_it_says() {
        for (blanks, is_refusal) in [(0, true), (LONGEST_ENVELOPE, false)] {
            let body = MINUTE.to_owned() + &" ".repeat(blanks);
            assert_eq!(is_quota_refusal(body.as_bytes()), is_refusal);
        }
    }

    #[test]
    fn an_answer_that_quotes_the_words_is_an_answer() {
        let body =
            r#"{"conversationFlow":[{"text":"It says: You've exceeded the hourly rate limit"}],"errors":[]}"#;
        assert!(matches!(of(200, &[], body), AttemptOutcome::Answered(_)));
    }

    #[test]
    fn an_error_that_quotes_the_words_is_another_error() {
        for body in [
            r#"{"errors":[{"msg":"No record of: You've exceeded the hourly rate limit"}]}"#,
            r#"{"errors":[{"msg":"not found","detail":"You've exceeded the hourly rate limit"}]}"#,
            r#"["You've exceeded the hourly rate limit"]"#,
            "<p>You've exceeded the hourly rate limit",
        ] {
            assert_eq!(refused_for(&of(404, &[], body)), None, "{body}");
        }
    }

    #[test]
    fn what_a_cache_kept_does_not_tell_the_time() {
        let date = ("date", "Mon, 02 Mar 2026 12:00:00 GMT");
        let learnt = |headers: &[(&'static str, &'static str)]| match of(401, headers, "") {
            AttemptOutcome::TokenRefused { date, .. } => date,
            _ => None,
        };
        assert_eq!(learnt(&[date]), Some(UnixMillis(1_772_452_800_000)));
        assert_eq!(learnt(&[date, ("age", "5")]), None);
    }

    #[test]
    fn a_redirect_is_an_invalid_answer() {
        assert_eq!(of(302, &[], "").ending(), Ending::Invalid);
    }
}
