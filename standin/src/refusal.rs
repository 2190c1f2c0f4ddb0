//! Every error the stand-in answers with: contract §7, and our guesses where it is silent.

use super::json::{Json, list, object};
use super::options::QuotaRefusal;
use super::quota::Excess;
use super::wire::Response;

#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// No token, a bad signature, or another bot's token.
    Credentials(&'static str),
    /// Something in `auth` that is no usable token.
    Token(&'static str),
    Scope,
    Replay,
    /// *Enforce JTI* and a lifetime above an hour, or none.
    Lifetime,
    /// *Enforce JTI* and no `jti`. The wording is ours: the vendor shows none.
    NoJti,
    Stream,
    Method,
    Arguments(String),
    Quota(Excess, QuotaRefusal),
    /// A record that is not there. Status and body are ours: contract §3 leaves them open.
    NotFound(&'static str),
    /// A path that no API has. Ours as well.
    NoRoute,
}

impl Refusal {
    pub(super) fn arguments(why: impl Into<String>) -> Refusal {
        Refusal::Arguments(why.into())
    }

    /// What strict mode writes down; `None` for what can happen to the best gateway.
    pub(super) fn violation(&self) -> Option<String> {
        Some(match self {
            Refusal::Credentials(why) => format!("credentials: {why}"),
            Refusal::Token(why) => format!("token: {why}"),
            Refusal::Scope => "token: its app lacks the scope of the route".into(),
            Refusal::Replay => "token: replayed jti".into(),
            Refusal::Lifetime => "token: exp must be at most one hour ahead".into(),
            Refusal::NoJti => "token: the app enforces jti and there is none".into(),
            Refusal::Stream => "stream: unknown to every account".into(),
            Refusal::Method => "method: not one this path has".into(),
            Refusal::Arguments(why) => format!("arguments: {why}"),
            Refusal::Quota(excess, _) => format!("quota: {excess}"),
            Refusal::NoRoute => "path: none of the three APIs".into(),
            Refusal::NotFound(_) => return None,
        })
    }

    pub(super) fn into_response(self) -> Response {
        let (status, msg, code) = match &self {
            Refusal::Credentials(_) => (401, "Invalid SDK credentials", 4002),
            Refusal::Token(_) => (401, "Invalid JWT token", 4002),
            Refusal::Scope => (401, "Permission denied. Scope is incorrect!", 4002),
            Refusal::Replay => (401, "error verifying the jwt: possibly a replay", 401),
            Refusal::Lifetime => {
                (401, "error verifying the jwt: if \"jti\" claim \"exp\" must be <= 1 hour(s)", 401)
            }
            Refusal::NoJti => (401, "error verifying the jwt: \"jti\" is required", 401),
            Refusal::Stream => (400, "Invalid StreamId", 400),
            Refusal::Method => (405, "Method Not Allowed", 405),
            Refusal::Arguments(_) => (412, "Validation errors/ Invalid arguments", 412),
            Refusal::Quota(excess, how) => {
                return over_quota(excess, *how);
            }
            Refusal::NotFound(msg) => (404, *msg, 404),
            Refusal::NoRoute => (404, "Not Found", 404),
        };
        Response::json(status, &envelope(msg, code))
    }
}

fn over_quota(excess: &Excess, how: QuotaRefusal) -> Response {
    let body = envelope(excess.message(), 429);
    match how {
        QuotaRefusal::ErrorUnder200 => Response::json(200, &body),
        QuotaRefusal::TooMany => Response::json(429, &body),
        QuotaRefusal::TooManyWithRetryAfter => {
            Response::json(429, &body).with_header("retry-after", excess.retry_after_seconds().to_string())
        }
    }
}

/// `{"errors":[{"msg":…,"code":…}]}`.
pub(super) fn envelope(msg: &str, code: i64) -> Json {
    let error = object([("msg", msg.into()), ("code", code.into())]);
    object([("errors", list([error]))])
}
