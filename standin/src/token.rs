//! Who is calling: the token in `auth`, checked without trusting anything it says (contract §2).

use std::collections::HashSet;

use jsonwebtoken::dangerous::insecure_decode;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
use serde_json::{Map, Value};

use super::options::{Account, App};
use super::refusal::Refusal;
use super::wire::Request;

const HOUR_SECONDS: i64 = 3_600;
const DAY_SECONDS: i64 = 86_400;
/// How far the clocks of issuer and verifier may lie apart.
const SKEW_SECONDS: i64 = 60;

/// Pairs of client id and `jti` that were presented to an app that enforces them.
pub(super) type SeenTokens = HashSet<(String, String)>;

/// A caller whose token holds.
pub(super) struct Caller {
    pub(super) account: Account,
    pub(super) app: App,
    /// A lifetime that no careful issuer grants; accepted all the same.
    pub(super) lives_too_long: bool,
}

impl Caller {
    /// Whether a stream is the account's and within what the app is bound to.
    pub(super) fn sees(&self, stream: &str) -> bool {
        let among = |streams: &[String]| streams.iter().any(|known| known == stream);
        among(&self.account.streams) && self.app.bots.as_deref().is_none_or(among)
    }
}

/// The app and account behind the token of a request.
pub(super) fn verify(
    request: &Request,
    accounts: &[Account],
    seen: &mut SeenTokens,
    now_ms: i64,
) -> Result<Caller, Refusal> {
    let mut tokens = request.values("auth");
    let token = match (tokens.next(), tokens.next()) {
        (Some(token), None) => token,
        (None, _) => return Err(Refusal::Credentials("no token in auth")),
        (Some(_), Some(_)) => return Err(Refusal::Credentials("two tokens in auth")),
    };
    let claimed: Map<String, Value> =
        insecure_decode(token).map_err(|_| Refusal::Token("auth holds no JWT"))?.claims;
    let client_id = text(&claimed, "appId")
        .or_else(|| text(&claimed, "iss"))
        .ok_or(Refusal::Credentials("neither appId nor iss"))?;
    let (account, app) = find_app(accounts, client_id).ok_or(Refusal::Credentials("unknown client id"))?;
    let claims = verified_claims(token, app)?;
    let now = now_ms.div_euclid(1_000);
    let exp = check_times(&claims, now)?;
    if app.enforce_jti {
        check_single_use(&claims, app, exp, seen, now)?;
    }
    Ok(Caller {
        account: account.clone(),
        app: app.clone(),
        lives_too_long: exp.is_some_and(|exp| exp > now + DAY_SECONDS),
    })
}

fn find_app<'a>(accounts: &'a [Account], client_id: &str) -> Option<(&'a Account, &'a App)> {
    accounts
        .iter()
        .flat_map(|account| account.apps.iter().map(move |app| (account, app)))
        .find(|(_, app)| app.client_id == client_id)
}

/// The claims, once the signature is known to be the app's.
fn verified_claims(token: &str, app: &App) -> Result<Map<String, Value>, Refusal> {
    // Only the signature is left to the library: times are judged by the stand-in's own clock.
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_aud = false;
    let key = DecodingKey::from_secret(app.client_secret.as_bytes());
    decode(token, &key, &validation)
        .map(|data| data.claims)
        .map_err(|_| Refusal::Credentials("bad signature, or not HS256"))
}

/// `exp` if there is one: published tokens have none.
fn check_times(claims: &Map<String, Value>, now: i64) -> Result<Option<i64>, Refusal> {
    let exp = seconds(claims, "exp")?;
    if exp.is_some_and(|exp| exp <= now) {
        return Err(Refusal::Token("expired"));
    }
    if seconds(claims, "iat")?.is_some_and(|iat| iat > now + SKEW_SECONDS) {
        return Err(Refusal::Token("issued in the future"));
    }
    Ok(exp)
}

fn check_single_use(
    claims: &Map<String, Value>,
    app: &App,
    exp: Option<i64>,
    seen: &mut SeenTokens,
    now: i64,
) -> Result<(), Refusal> {
    let jti = text(claims, "jti").ok_or(Refusal::NoJti)?;
    if exp.is_none_or(|exp| exp > now + HOUR_SECONDS) {
        return Err(Refusal::Lifetime);
    }
    if seen.insert((app.client_id.clone(), jti.to_owned())) { Ok(()) } else { Err(Refusal::Replay) }
}

fn text<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    claims.get(name).and_then(Value::as_str)
}

fn seconds(claims: &Map<String, Value>, name: &str) -> Result<Option<i64>, Refusal> {
    match claims.get(name) {
        None => Ok(None),
        Some(value) => {
            value.as_i64().map(Some).ok_or(Refusal::Token("exp or iat is not a whole number of seconds"))
        }
    }
}
