//! No forgery opens anything: each differs from a good token in one way, and is the same 401 as a
//! key that nobody has.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::HeaderValue;
use jsonwebtoken::{Algorithm, EncodingKey};
use kore_standin::{Conversation, EXAMPLE_STREAM};
use serde_json::{Value, json};

use crate::issuer::{AUDIENCE, Issuer, NOW, Signer, encoded};
use crate::world::{DAY, World, before, client, conversation_path, got};

struct Forge {
    rsa: Signer,
    ec: Signer,
    ed: Signer,
    /// The forger's own.
    own: Signer,
    claims: Value,
    tokens: Vec<(String, Vec<u8>)>,
}

impl Forge {
    fn add(&mut self, name: impl Into<String>, token: impl Into<Vec<u8>>) {
        self.tokens.push((name.into(), token.into()));
    }

    fn good(&self) -> String {
        self.ed.token(&self.claims)
    }

    /// `none`, another algorithm of the key's family, and a public key used as a secret.
    fn algorithms(&mut self) {
        let names = [
            "none", "None", "NONE", "nOnE", "", " none", "HS256", "HS384", "HS512", "hs256", "RS256",
            "RS384", "RS512", "PS256", "PS512", "ES256", "ES384", "ES512", "ES256K", "EdDSA", "eddsa",
            "Ed25519",
        ];
        for kid in ["rsa", "ec", "ed"] {
            let signer = match kid {
                "rsa" => &self.rsa,
                "ec" => &self.ec,
                _ => &self.ed,
            };
            let claims = self.claims.to_string();
            let right = format!("{:?}", signer.algorithm);
            let mut made = Vec::new();
            for alg in names.into_iter().filter(|alg| *alg != right) {
                let header = json!({ "alg": alg, "typ": "JWT", "kid": kid }).to_string();
                made.push((format!("{kid}: {alg:?} signed with the key"), signer.sign(&header, &claims)));
                let signed = format!("{}.{}", encoded(&header), encoded(&claims));
                made.push((format!("{kid}: {alg:?} unsigned"), format!("{signed}.")));
            }
            // The public key, in every form a forger has it in, as the secret of an HMAC.
            let jwk = signer.jwk();
            let x = jwk.get("n").or(jwk.get("x")).and_then(Value::as_str).unwrap().to_owned();
            for secret in
                [x.clone().into_bytes(), URL_SAFE.decode(pad(&x)).unwrap(), jwk.to_string().into_bytes()]
            {
                let header = json!({ "alg": "HS256", "typ": "JWT", "kid": kid }).to_string();
                let signed = format!("{}.{}", encoded(&header), encoded(&claims));
                let key = EncodingKey::from_secret(&secret);
                let signature =
                    jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
                made.push((format!("{kid}: HMAC with the public key"), format!("{signed}.{signature}")));
            }
            made.into_iter().for_each(|(name, token)| self.add(name, token));
        }
        for alg in [json!(null), json!(5), json!(["EdDSA"]), json!({})] {
            self.header("alg", Some(alg));
        }
        self.header("alg", None);
    }

    /// A good signature over a header with one member changed or taken out.
    fn header(&mut self, name: &str, value: Option<Value>) {
        let mut header = self.ed.header();
        let told = format!("header {name}: {value:?}");
        match value {
            Some(value) => header[name] = value,
            None => drop(header.as_object_mut().unwrap().remove(name)),
        }
        let token = self.ed.sign(&header.to_string(), &self.claims.to_string());
        self.add(told, token);
    }

    fn headers(&mut self) {
        for kid in [
            json!(null),
            json!(5),
            json!(["ed"]),
            json!({ "kid": "ed" }),
            json!(""),
            json!("ED"),
            json!("ed "),
            json!("ed\u{0}"),
            json!("rsa"),
            json!("ec"),
            json!("own"),
            json!("../../../dev/null"),
            json!("/proc/self/environ"),
            json!("' OR 1=1 --"),
            json!("https://evil.example/key"),
            json!("x".repeat(2000)),
        ] {
            self.header("kid", Some(kid));
        }
        self.header("kid", None);
        for crit in [
            json!([]),
            json!(["exp"]),
            json!(["b64"]),
            json!(["kid"]),
            json!(null),
            json!("exp"),
            json!(["http://x"]),
        ] {
            self.header("crit", Some(crit));
        }
        for (name, value) in [
            ("b64", json!(false)),
            ("b64", json!(true)),
            ("enc", json!("A128GCM")),
            ("zip", json!("DEF")),
            ("typ", json!("logout+jwt")),
            ("typ", json!("dpop+jwt")),
            ("typ", json!("secevent+jwt")),
            ("typ", json!("JWE")),
            ("typ", json!("")),
            ("typ", json!(5)),
            ("typ", json!(null)),
        ] {
            self.header(name, Some(value));
        }
        for twice in [
            r#"{"alg":"none","alg":"EdDSA","kid":"ed"}"#,
            r#"{"alg":"EdDSA","kid":"own","kid":"ed"}"#,
            r#"{"alg":"EdDSA","kid":"ed","typ":"JWT","typ":"JWT"}"#,
            r#"{"alg":"EdDSA","kid":"ed","\u006bid":"ed"}"#,
            r#"["EdDSA"]"#,
            r#""EdDSA""#,
            "null",
            "",
            "{",
            r#"{"alg":"EdDSA","kid":"ed"}x"#,
            "\u{feff}{}",
        ] {
            let token = self.ed.sign(twice, &self.claims.to_string());
            self.add(format!("header {twice}"), token);
        }
    }

    /// The forger's own key, brought along or pointed to.
    fn own_keys(&mut self, forger: &Issuer) {
        let url = format!("{}/jwks", forger.url());
        let jwk = self.own.jwk();
        for kid in ["ed", "own", "ec"] {
            for (name, value) in [
                ("jwk", jwk.clone()),
                ("jku", json!(url)),
                ("x5u", json!(url)),
                ("url", json!(url)),
                ("x5c", json!([STANDARD.encode("certificate")])),
                ("x5t", json!("abc")),
                ("iss", json!(forger.url())),
            ] {
                let mut header = json!({ "alg": "EdDSA", "typ": "JWT", "kid": kid });
                header[name] = value;
                let token = self.own.sign(&header.to_string(), &self.claims.to_string());
                self.add(format!("signed with an own key, {name}, kid {kid}"), token);
            }
        }
        let mut claims = self.claims.clone();
        claims["iss"] = forger.url().into();
        let token = self.own.token(&claims);
        self.add("an issuer that nobody configured", token);
    }

    /// A good signature over claims with one changed or taken out.
    fn claim(&mut self, name: &str, value: Option<Value>) {
        let told = format!("claim {name}: {value:?}");
        let mut claims = self.claims.clone();
        match value {
            Some(value) => claims[name] = value,
            None => drop(claims.as_object_mut().unwrap().remove(name)),
        }
        let token = self.ed.token(&claims);
        self.add(told, token);
    }

    fn all_claims(&mut self) {
        let issuer = self.claims["iss"].as_str().unwrap().to_owned();
        let later = json!((NOW + 300).to_string());
        for exp in [
            later,
            json!(null),
            json!(true),
            json!([NOW + 300]),
            json!({ "exp": NOW + 300 }),
            json!(0),
            json!(-1),
            json!(NOW - 30),
            json!("never"),
            json!(""),
        ] {
            self.claim("exp", Some(exp));
        }
        for name in ["nbf", "iat"] {
            for value in [json!(NOW + 31), json!("0"), json!(null), json!([0]), json!(false)] {
                self.claim(name, Some(value));
            }
        }
        for iss in [
            json!(format!("{issuer}/")),
            json!(issuer.to_uppercase()),
            json!([issuer]),
            json!(null),
            json!(5),
            json!(""),
            json!(format!("{issuer}@evil.example")),
            json!({ "iss": issuer }),
        ] {
            self.claim("iss", Some(iss));
        }
        for aud in [
            json!("another"),
            json!([]),
            json!(["another"]),
            json!(5),
            json!({ AUDIENCE: true }),
            json!([AUDIENCE, 5]),
            json!([[AUDIENCE]]),
            json!("agent"),
            json!("agent-desk-2"),
            json!("AGENT-DESK"),
            json!(null),
            json!(""),
            json!(format!("{AUDIENCE} another")),
        ] {
            self.claim("aud", Some(aud));
        }
        for sub in [json!(""), json!(5), json!(null), json!(["asha"]), json!("x".repeat(256))] {
            self.claim("sub", Some(sub));
        }
        for groups in [
            json!([]),
            json!("agent"),
            json!(["x"]),
            json!({ "agents": 1 }),
            json!(null),
            json!([["agents"]]),
            json!(true),
        ] {
            self.claim("groups", Some(groups));
        }
        for name in ["exp", "iss", "aud", "sub", "groups"] {
            self.claim(name, None);
            // The last one of two would do, and so would the first.
            for (first, second) in
                [(json!("x"), self.claims[name].clone()), (self.claims[name].clone(), json!("x"))]
            {
                let text = self.claims.to_string();
                let one = format!("\"{name}\":{}", self.claims[name]);
                assert!(text.contains(&one));
                let twice = text.replace(&one, &format!("\"{name}\":{first},\"{name}\":{second}"));
                let token = self.ed.sign(&self.ed.header().to_string(), &twice);
                self.add(format!("claim {name} twice: {first} {second}"), token);
            }
        }
        let huge = self.claims.to_string().replace(&(NOW + 300).to_string(), "1e400");
        for claims in [&huge, "[]", "\"\"", "null", "", "{}", "{"] {
            let token = self.ed.sign(&self.ed.header().to_string(), claims);
            self.add(format!("claims {claims}"), token);
        }
    }

    /// The token itself, bent.
    fn forms(&mut self) {
        let good = self.good();
        let parts: Vec<&str> = good.split('.').collect();
        let (header, claims, signature) = (parts[0], parts[1], parts[2]);
        let other = self.ed.token(&json!({ "sub": "someone else" }));
        for (name, token) in [
            ("two parts", format!("{header}.{claims}")),
            ("no signature", format!("{header}.{claims}.")),
            ("four parts", format!("{good}.")),
            ("five parts", format!("{header}..{claims}.{signature}.x")),
            ("a dot in front", format!(".{good}")),
            ("no header", format!(".{claims}.{signature}")),
            ("no claims", format!("{header}..{signature}")),
            ("dots only", "..".to_owned()),
            ("padded", format!("{header}.{claims}.{signature}==")),
            ("padded claims", format!("{header}.{claims}=.{signature}")),
            ("a space", format!("{header}. {claims}.{signature}")),
            ("standard alphabet", format!("{header}.{claims}.{}", STANDARD.encode([0xfb; 64]))),
            ("a short signature", format!("{header}.{claims}.{}", &signature[..signature.len() - 2])),
            ("a long signature", format!("{header}.{claims}.{signature}AAAA")),
            ("another's signature", format!("{header}.{claims}.{}", other.rsplit('.').next().unwrap())),
            ("zeros", format!("{header}.{claims}.{}", "A".repeat(86))),
            ("swapped", format!("{claims}.{header}.{signature}")),
            ("JSON", json!({ "protected": header, "payload": claims, "signature": signature }).to_string()),
            ("twice", format!("{good}, Bearer {good}")),
        ] {
            self.add(name, token);
        }
        for (name, at) in [("header", 5), ("claims", header.len() + 9), ("signature", good.len() - 20)] {
            let mut bent = good.clone().into_bytes();
            bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
            self.add(format!("a bent {name}"), bent);
        }
        // The last character of 64 bytes carries four bits that mean nothing.
        let last = char::from(good.as_bytes()[good.len() - 1]);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let next = alphabet.chars().nth(alphabet.find(last).unwrap() + 1).unwrap();
        self.add("stray bits", format!("{}{next}", &good[..good.len() - 1]));
        let mut bytes = good.into_bytes();
        bytes[3] = 0xff;
        self.add("no text", bytes);
    }
}

fn pad(text: &str) -> String {
    format!("{text}{}", "=".repeat((4 - text.len() % 4) % 4))
}

#[tokio::test]
async fn no_forged_token_is_accepted_and_all_get_one_answer() {
    let signers = [
        Signer::new("rsa", Algorithm::RS256),
        Signer::new("ec", Algorithm::ES256),
        Signer::new("ed", Algorithm::EdDSA),
    ];
    let issuer = Issuer::publishing(&signers.iter().collect::<Vec<_>>()).await;
    let own = Signer::new("own", Algorithm::EdDSA);
    let forger = Issuer::publishing(&[&own]).await;
    let conversation = Conversation::closed_at(EXAMPLE_STREAM, 1, before(DAY));
    let path = conversation_path(&conversation.conversation_id);
    let world = World::with(|setup| {
        let block = client("desk", "").toml();
        let key = block.lines().find(|line| line.starts_with("api_key_sha256")).unwrap().to_owned();
        setup.clients = block.replace(&key, &issuer.rule(", groups = [\"agents\"]"));
        setup.standin.conversations = vec![conversation];
    })
    .await;
    let mut claims = issuer.claims("asha");
    claims["groups"] = json!(["agents"]);
    let [rsa, ec, ed] = signers;
    let mut forge = Forge { rsa, ec, ed, own, claims, tokens: Vec::new() };
    forge.algorithms();
    forge.headers();
    forge.own_keys(&forger);
    forge.all_claims();
    forge.forms();

    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().unwrap();
    let url = format!("http://{}{}", world.address, path);
    let ask = async |token: &[u8]| {
        let value = HeaderValue::from_bytes(&[b"Bearer ", token].concat()).unwrap();
        got(http.get(&url).header("authorization", value).header("x-request-id", "r")).await
    };
    let unknown = ask(b"kg_unknown").await;
    assert_eq!(unknown.status, 401);
    for (name, token) in &forge.tokens {
        let answer = ask(token).await;
        assert_eq!(answer.status, 401, "{name}: {}", token.escape_ascii());
        assert_eq!(answer.body, unknown.body, "{name}");
        let good = ask(forge.good().as_bytes()).await;
        assert_eq!(good.status, 200, "the good token, after {name}: {good:?}");
    }
    let count = forge.tokens.len();
    println!("{count} forgeries, none accepted");
    assert!(count >= 100, "{count}");
    assert_eq!((issuer.fetches(), forger.fetches()), (1, 0), "nobody is asked for a forger's keys");
}
