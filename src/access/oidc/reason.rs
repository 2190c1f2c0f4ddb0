//! Why a token opens nothing: for the log. The caller does not learn it.

use std::fmt;

use super::keys;
use crate::error::cause::Cause;
use crate::error::{Error, Kind};

/// Why a token opens nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It proves nothing: whatever is wrong with it is nobody's business but its issuer's.
    Invalid(Reason),
    /// It may be good, but the issuer's keys have never been seen.
    NoKeys,
    /// It may be good, but as many as may wait for the issuer's keys do.
    Crowded,
}

/// What is wrong with a token, in the order in which it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reason {
    Malformed,
    Extension,
    Type,
    Issuer,
    KeyNotNamed,
    UnknownKey,
    Algorithm,
    Signature,
    Audience,
    Expired,
    NotYet,
    IssuedLater,
    Subject,
    Groups,
}

impl Reason {
    /// The word for it in the log.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "token-malformed",
            Self::Extension => "token-extension",
            Self::Type => "token-type",
            Self::Issuer => "token-issuer",
            Self::KeyNotNamed => "token-key-not-named",
            Self::UnknownKey => "token-unknown-key",
            Self::Algorithm => "token-algorithm",
            Self::Signature => "token-signature",
            Self::Audience => "token-audience",
            Self::Expired => "token-expired",
            Self::NotYet => "token-not-yet",
            Self::IssuedLater => "token-issued-later",
            Self::Subject => "token-subject",
            Self::Groups => "token-groups",
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Self::Malformed => "it is no token in compact form, or names a member twice",
            Self::Extension => "its header asks for what is not understood (`crit`, `b64`, `enc`, `zip`)",
            Self::Type => "its `typ` is not that of a credential",
            Self::Issuer => "its issuer (`iss`) is no client's",
            Self::KeyNotNamed => "it names no key (`kid`), and its issuer has more than one",
            Self::UnknownKey => "its issuer has no such key (`kid`)",
            Self::Algorithm => "its `alg` is not its key's",
            Self::Signature => "its signature is wrong",
            Self::Audience => "its audience (`aud`) is no client's",
            Self::Expired => "it has expired or never does (`exp`)",
            Self::NotYet => "it is not valid yet, or its `nbf` is missing",
            Self::IssuedLater => "it was issued in the future (`iat`)",
            Self::Subject => "its subject (`sub`) is missing or longer than 255 bytes",
            Self::Groups => "none of its groups is a client's",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Reason {}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self::Invalid(reason)
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        let unavailable = |detail| {
            Self::new(Kind::IdentityUnavailable, detail)
                .because(Cause::IssuerKeys)
                .retry_after(keys::BETWEEN_FETCHES)
        };
        match refused {
            Refused::Invalid(reason) => Self::new(Kind::Unauthenticated, "the credential is not valid")
                .because(Cause::Token(reason.as_str()))
                .caused_by(reason),
            Refused::NoKeys => unavailable("the keys of the token's issuer cannot be fetched"),
            Refused::Crowded => unavailable("too many wait for the keys of the token's issuer"),
        }
    }
}
