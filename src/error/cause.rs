//! What exactly kept a request from its answer: a closed list, for the access line and for operators. The
//! caller does not learn it.

/// Why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    NoCredential,
    EmptyCredential,
    UnknownKey,
    ExpiredKey,
    /// A claim, or another part of an identity token, by its word.
    Token(&'static str),
    IssuerKeys,
    RouteDenied,
    AccountDenied,
    BotDenied,
    /// No answer has said whose session a transcript is of.
    SessionUnproven,
    /// An error of the upstream's, whose body this client does not get.
    UpstreamError,
    AddressLimit,
    ClientLimit,
    SubjectLimit,
    CredentialRefused,
    AccountQuota,
    BotQuota,
    BotPools,
    BreakerOpen,
    Overload,
}

impl Cause {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoCredential => "no-credential",
            Self::EmptyCredential => "empty-credential",
            Self::UnknownKey => "unknown-key",
            Self::ExpiredKey => "expired-key",
            Self::Token(word) => word,
            Self::IssuerKeys => "issuer-keys",
            Self::RouteDenied => "route-denied",
            Self::AccountDenied => "account-denied",
            Self::BotDenied => "bot-denied",
            Self::SessionUnproven => "session-unproven",
            Self::UpstreamError => "upstream-error",
            Self::AddressLimit => "address-limit",
            Self::ClientLimit => "client-limit",
            Self::SubjectLimit => "subject-limit",
            Self::CredentialRefused => "credential-refused",
            Self::AccountQuota => "account-quota",
            Self::BotQuota => "bot-quota",
            Self::BotPools => "bot-pools",
            Self::BreakerOpen => "breaker-open",
            Self::Overload => "overload",
        }
    }
}
