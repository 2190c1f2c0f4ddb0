//! What a token says of its bearer, and whether that makes it a client's.

use serde_json::Value;

use super::Reason;
use super::members::Members;
use crate::clock::UnixMillis;
use crate::config::OidcRule;

/// Bytes of a `sub` (OpenID Connect Core §2).
const LONGEST_SUBJECT: usize = 255;

/// The claims of a token whose signature is good.
pub struct Claims(Members);

impl Claims {
    pub(super) fn new(members: Members) -> Self {
        Self(members)
    }

    /// Who it is about; within its issuer no two are the same.
    pub fn subject(&self) -> Option<&str> {
        self.0.text("sub").filter(|sub| (1..=LONGEST_SUBJECT).contains(&sub.len()))
    }

    pub fn issuer(&self) -> Option<&str> {
        self.0.text("iss")
    }

    /// Whether they are what `rule` asks for, at `now`. A claim of another type than RFC 7519 §4.1
    /// gives it is never met.
    pub fn meet(&self, rule: &OidcRule, now: UnixMillis) -> Result<(), Reason> {
        let (leeway, now) = (rule.leeway.as_secs_f64(), seconds(now));
        let is_over = self.time("exp").is_none_or(|exp| exp.is_none_or(|exp| now >= exp + leeway));
        let has_begun = match self.time("nbf") {
            None => !rule.require_nbf,
            Some(nbf) => nbf.is_some_and(|nbf| now + leeway >= nbf),
        };
        let is_issued = self.time("iat").is_none_or(|iat| iat.is_some_and(|iat| now + leeway >= iat));
        let checks = [
            (self.issuer() == Some(&*rule.issuer), Reason::Issuer),
            (self.is_for(&rule.audience), Reason::Audience),
            (!is_over, Reason::Expired),
            (has_begun, Reason::NotYet),
            (is_issued, Reason::IssuedLater),
            (self.subject().is_some(), Reason::Subject),
            (self.is_in_one_of(rule), Reason::Groups),
        ];
        checks.into_iter().find(|(is_met, _)| !is_met).map_or(Ok(()), |(_, reason)| Err(reason))
    }

    /// A `NumericDate`: `None` if it is not there, `Some(None)` if it is none.
    fn time(&self, name: &str) -> Option<Option<f64>> {
        self.0.get(name).map(Value::as_f64)
    }

    /// One audience, or a list of them.
    fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(only)) => only == audience,
            Some(Value::Array(several)) => {
                several.iter().all(Value::is_string) && several.iter().any(|one| one == audience)
            }
            _ => false,
        }
    }

    fn is_in_one_of(&self, rule: &OidcRule) -> bool {
        if rule.groups.is_empty() {
            return true;
        }
        match self.0.get(&rule.groups_claim) {
            Some(Value::String(only)) => rule.groups.contains(only),
            Some(Value::Array(several)) => several
                .iter()
                .filter_map(Value::as_str)
                .any(|one| rule.groups.iter().any(|group| group == one)),
            _ => false,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a time of day in milliseconds fits 52 bits")]
fn seconds(time: UnixMillis) -> f64 {
    time.0 as f64 / 1000.0
}
