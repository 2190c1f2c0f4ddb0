//! Who is asking: exactly one API key, in one of three headers, or one identity token.

use std::sync::Arc;

use aws_lc_rs::digest;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName};

use super::oidc::{self, Claims, Issuers};
use super::rate_limit::Caller;
use crate::clock::{Clock, UnixMillis};
use crate::config::{Client, Clients};
use crate::error::cause::Cause;
use crate::error::{Error, Fault, Kind};

/// The headers a credential may come in. `auth` is the upstream's own name for it, so that a client
/// that moves over changes the value only.
pub static HEADERS: [HeaderName; 3] =
    [AUTHORIZATION, HeaderName::from_static("x-api-key"), HeaderName::from_static("auth")];

/// Names of parameters that people put credentials under. A URL ends up in logs and histories.
const CREDENTIAL_PARAMETERS: [&str; 9] =
    ["access_token", "api-key", "api_key", "apikey", "auth", "authorization", "jwt", "token", "x-api-key"];

/// The SHA-256 of an API key: the only form in which the gateway knows one.
pub fn key_digest(key: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
    digest
}

/// By what a caller is known. Kept with the request, for it may come to be nobody's in the meantime.
#[derive(Clone)]
pub enum CallerIdentity {
    /// An API key, by its digest.
    Key([u8; 32]),
    /// An identity token, by what it proves.
    Token(Arc<Claims>),
}

impl CallerIdentity {
    /// Who it is, for the audit alone: the first digits of a key's digest, or a token's subject.
    pub fn who(&self) -> String {
        match self {
            Self::Key(digest) => hex::encode(digest.first_chunk::<4>().unwrap_or(&[0; 4])),
            Self::Token(claims) => claims.subject().unwrap_or_default().to_owned(),
        }
    }

    /// Which bearer of a token it is, as `client`; nobody in particular if it is a key.
    pub fn bearer(&self, client: &Client) -> Option<Caller> {
        match self {
            Self::Key(_) => None,
            Self::Token(claims) => Some(Caller::bearing(&client.name, claims.issuer()?, claims.subject()?)),
        }
    }

    /// Whose it is at `now`.
    pub fn client(&self, clients: &Clients, now: UnixMillis) -> Result<Arc<Client>, Error> {
        match self {
            Self::Key(digest) => clients.by_digest(digest, now).cloned().ok_or_else(|| {
                let is_known = clients.has_key(digest);
                invalid().because(if is_known { Cause::ExpiredKey } else { Cause::UnknownKey })
            }),
            Self::Token(claims) => {
                let client = oidc::client(clients, claims, now);
                client.cloned().map_err(|reason| oidc::Refused::Invalid(reason).into())
            }
        }
    }
}

/// One answer for what was never valid and for what is not valid any more.
fn invalid() -> Error {
    Error::new(Kind::Unauthenticated, "the credential is not valid")
}

/// A credential as it was presented.
pub struct Presented<'a> {
    bytes: &'a [u8],
    /// In `Authorization`, where a token may stand.
    is_bearer: bool,
}

/// The one credential in `headers`. `query` is the raw query string, where none may be.
pub fn presented<'a>(headers: &'a HeaderMap, query: &str) -> Result<Presented<'a>, Error> {
    let in_url = credentials_in(query);
    if !in_url.is_empty() {
        return Err(Error::invalid_request(in_url));
    }
    let known = |name| HEADERS.iter().find(|known| *known == name);
    let mut presented = headers.iter().filter_map(|(name, value)| Some((known(name)?, value)));
    let Some((name, value)) = presented.next() else {
        return Err(Error::new(
            Kind::Unauthenticated,
            "no credential; send an API key as `Authorization: Bearer <key>`, `X-Api-Key: <key>` or `auth: <key>`",
        )
        .because(Cause::NoCredential));
    };
    if let Some((second, _)) = presented.next() {
        let detail = format!("a credential is in `{name}` and in `{second}`; send exactly one");
        return Err(Error::invalid_request(vec![Fault::in_header(second.as_str(), detail)]));
    }
    let is_bearer = name == AUTHORIZATION;
    let bytes = if is_bearer { bearer(value.as_bytes()) } else { Some(value.as_bytes()) };
    // An empty credential is none, whatever digests are configured.
    let bytes = bytes.filter(|bytes| !bytes.trim_ascii().is_empty());
    let bytes = bytes.ok_or_else(|| invalid().because(Cause::EmptyCredential))?;
    Ok(Presented { bytes, is_bearer })
}

impl<'a> Presented<'a> {
    /// The credential itself.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Who the caller is if it is an API key, and which client that makes it at `now`. An unknown, a
    /// wrong and an expired one are the same answer.
    pub fn as_key(&self, clients: &Clients, now: UnixMillis) -> Result<(CallerIdentity, Arc<Client>), Error> {
        let key = CallerIdentity::Key(key_digest(self.bytes));
        let client = key.client(clients, now)?;
        Ok((key, client))
    }

    /// The identity token that it may be.
    pub fn token(&self) -> Option<&'a [u8]> {
        (self.is_bearer && oidc::is_token(self.bytes)).then_some(self.bytes)
    }
}

/// Who the bearer of `token` is, and which client that makes it once its issuer's keys are there.
pub async fn bearer_of(
    token: &[u8],
    clients: &Clients,
    issuers: &Issuers,
    clock: &Clock,
) -> Result<(CallerIdentity, Arc<Client>), Error> {
    let token = CallerIdentity::Token(Arc::new(issuers.verify(token).await?));
    let client = token.client(clients, clock.now())?;
    Ok((token, client))
}

/// The token of `Bearer <token>`; the scheme's letter case is free (RFC 9110 §11.1).
pub fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

/// Faults that name the parameters, never their values.
fn credentials_in(query: &str) -> Vec<Fault> {
    form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| CREDENTIAL_PARAMETERS.iter().any(|known| name.eq_ignore_ascii_case(known)))
        .map(|(name, _)| {
            let detail =
                format!("`{name}` is a credential in the URL, where logs keep it; send it as a header");
            Fault::in_parameter(name.into_owned(), detail)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_found_in_any_letter_case_of_the_scheme() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bEARER  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc="), None);
        assert_eq!(bearer(b"Bearer"), None);
    }

    #[test]
    fn an_empty_credential_is_none() {
        for (name, value) in
            [("x-api-key", ""), ("auth", ""), ("authorization", "Bearer "), ("x-api-key", " ")]
        {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().expect("a value"));
            let refused = presented(&headers, "").err().expect("it is no credential");
            assert_eq!(refused.kind, Kind::Unauthenticated, "{name}: {value:?}");
        }
    }

    #[test]
    fn a_credential_in_the_url_is_named_but_not_repeated() {
        let faults = credentials_in("limit=1&API_KEY=hunter2&to%6ben=x");
        assert_eq!(faults.len(), 2);
        assert!(faults.iter().all(|fault| !fault.detail.contains("hunter2")));
        assert!(credentials_in("keyword=1").is_empty());
    }
}
