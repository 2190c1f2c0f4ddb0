use serde_json::json;

use super::*;

/// The key of RFC 7515's example A.3.
fn key(kid: &str) -> Value {
    let (x, y) =
        ("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0");
    json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y })
}

#[test]
fn what_is_passed_over_is_named_with_its_reason() {
    let mut broken = key("broken");
    broken["x"] = json!("?");
    let mut encryption = key("encryption");
    encryption["use"] = json!("enc");
    let secret = json!({ "kty": "oct", "kid": "x".repeat(100), "k": "c2VjcmV0" });
    let mut other = key("double");
    other["alg"] = json!("ES384");
    other["crv"] = json!("P-384");
    let set = json!({ "keys": [key("a"), key("a"), broken, encryption, secret, 5, key("double"), other] });
    let keys = parse(set.to_string().as_bytes(), 10).expect("one key at least");
    assert!(keys.named("a").is_some() && keys.only().is_some());
    let logged: Vec<_> =
        keys.passed_over().iter().map(|key| (key.name.as_str(), key.why, key.is_fault)).collect();
    let long = "x".repeat(64);
    assert_eq!(
        logged,
        [
            ("broken", "its parameters cannot be read", true),
            ("encryption", "it is not for signatures", false),
            (&*long, "its type, curve or `alg` is not used here", false),
            ("number 5", "it cannot be read, or is of no type known here", true),
            ("double", "several keys have this `kid`", true),
        ]
    );
}
