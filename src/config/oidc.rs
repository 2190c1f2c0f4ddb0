//! Identity tokens: whose keys, and which bearers are a client.

use std::sync::Arc;
use std::time::Duration;

use super::certificates::Certificates;
use super::section::Section;
use super::url::is_loopback;
use super::value::Size;

/// How the keys of issuers are fetched (`[oidc]`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Oidc {
    pub refresh: Duration,
    pub timeout: Duration,
    /// Bytes.
    pub max_size: usize,
    pub max_keys: usize,
    pub leeway: Duration,
    /// PEM certificates to trust in place of the machine's.
    pub ca: Option<Arc<[u8]>>,
}

/// Whose tokens make their bearers a client (`clients[].oidc`).
#[derive(Debug)]
pub struct OidcRule {
    pub issuer: Arc<str>,
    pub audience: String,
    pub jwks_url: Arc<str>,
    /// The bearer is in one of these; none means that it need not be.
    pub groups: Vec<String>,
    pub groups_claim: String,
    pub require_nbf: bool,
    /// How far the issuer's clock and ours may be apart.
    pub leeway: Duration,
}

impl Oidc {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let oidc = Self {
            refresh: section.positive("refresh"),
            timeout: section.positive("timeout"),
            max_size: usize::try_from(section.required::<Size>("max_size").0).unwrap_or(usize::MAX),
            max_keys: section.count("max_keys"),
            leeway: section.required("leeway"),
            ca: section.optional::<Certificates>("ca_file").map(|certificates| certificates.0.into()),
        };
        section.close();
        oidc
    }
}

impl OidcRule {
    /// None with any fault: nothing can be held against half a rule.
    pub(super) fn read(mut section: Section<'_>, oidc: &Oidc) -> Option<Self> {
        let rule = Self {
            issuer: section.required::<String>("issuer").into(),
            audience: section.required("audience"),
            jwks_url: section.required::<String>("jwks_url").into(),
            groups: section.or("groups", Vec::new()),
            groups_claim: section.or("groups_claim", "groups".to_owned()),
            require_nbf: section.or("require_nbf", false),
            leeway: oidc.leeway,
        };
        if let Err(problem) = check_url(&rule.jwks_url) {
            section.report("jwks_url", problem);
        }
        let is_good = section.is_good();
        section.close();
        is_good.then_some(rule)
    }
}

/// Who can change the keys can be anybody, so they are fetched over https, or from this machine.
fn check_url(text: &str) -> Result<(), String> {
    let url = reqwest::Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user or a password; a key set is public".to_owned());
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(&url) => Ok(()),
        "http" => Err("is plain http to another machine; keys are fetched over https".to_owned()),
        other => Err(format!("has the scheme {other:?}; it is https")),
    }
}
