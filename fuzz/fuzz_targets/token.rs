//! Identity tokens and key sets: nothing but what was signed is proven, and no key set brings a secret, a
//! name twice, or more keys than allowed.

#![no_main]

use std::sync::LazyLock;

use kore_gateway::access::oidc::Token;
use kore_gateway::access::oidc::key_set::{Keys, parse};
use libfuzzer_sys::fuzz_target;

const MOST_KEYS: usize = 4;

/// The key of RFC 7515's example A.3, with a name.
const JWKS: &[u8] = br#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a3","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
/// What is signed there.
const SIGNED: &str = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
const SIGNATURE: &str = "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

static KEYS: LazyLock<Keys> = LazyLock::new(|| {
    let keys = parse(JWKS, MOST_KEYS).expect("a key set");
    let token = format!("{SIGNED}.{SIGNATURE}");
    let key = keys.named("a3").expect("the key");
    let proven = Token::parse(token.as_bytes()).and_then(|token| token.proven_by(&key));
    assert_eq!(proven.ok().expect("the example is good").issuer(), Some("joe"));
    keys
});

fuzz_target!(|input: &[u8]| {
    if let Ok(token) = Token::parse(input) {
        let _ = token.kid();
        if KEYS.all().any(|key| token.check(key).is_ok()) {
            assert!(input.starts_with(SIGNED.as_bytes()), "a forgery");
        }
    }
    if let Ok(keys) = parse(input, MOST_KEYS) {
        assert!((1..=MOST_KEYS).contains(&keys.len()));
        assert!(keys.all().all(|key| !key.name().is_empty()), "a secret among the keys");
    }
});
