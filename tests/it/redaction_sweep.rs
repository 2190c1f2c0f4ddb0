//! What is denied is in no answer, however it is asked for: any route, method and coding, from the store
//! and past it, fresh and stale, in bodies and in header fields, under any status, however the upstream
//! spells it.

use std::io::Read;

use http::Method;
use kore_standin::{EXAMPLE_STREAM, Fault, OTHER_STREAM};

use crate::world::{DAY, Got, World, client, conversation_path, got, transcript_path, window_path};

const PLAIN: &str = "kg_plain";
const SHORN: &str = "kg_shorn";
const OWN_ROWS: &str = "kg_own-rows";
const CANARY: &str = "canary-7f3a";

const PROFILE: &str = r#"
[redaction.r]
remove = ["/secret", "/data/*/secret", "/deep/*/*/secret", "/list/0", "/stra\u00dfe", "/userInfo/ipAddress"]
mask = ["/phoneNumber", "/*/masked", "/b/*/masked"]
show = ["/userInfo", "/deep", "/list", "/a", "/b", "/padding"]
"#;

/// Anything that holds the canary.
fn value() -> String {
    format!(r#"{{"x":["{CANARY}"],"\"}}":"{CANARY}"}}"#)
}

/// One denied name, in every spelling that is the same name.
fn secrets() -> String {
    let value = value();
    format!(
        r#""secret":"{CANARY}","SECRET":{value},"\u0073ecret":"{CANARY}", "secre\u0054" : [ {value} ],
        "secret":"{CANARY}""#
    )
}

/// Members that are denied, at every depth a pointer leads to.
fn denied() -> String {
    let (secrets, value, padding) = (secrets(), value(), "x".repeat(600));
    format!(
        r#"{secrets},"userInfo":{{"city":"x","IPADDRESS":"{CANARY}","ipAddress":{value}}},
        "deep":{{"a":[{{"secret":"{CANARY}"}}],"b":{{"c":{{"Secret":{value}}}}}}},"list":["{CANARY}",1],
        "STRA\u00dfE":"{CANARY}","phoneNumber":"{CANARY}","PhoneNumber":{value},"a":{{"masked":"{CANARY}"}},
        "b":[[1],{{"masked":{value}}}],"padding":"{padding}""#
    )
}

fn decoded(got: &Got) -> String {
    let mut plain = Vec::new();
    if got.body.is_empty() {
        return String::new();
    }
    match got.header("content-encoding") {
        "gzip" => flate2::read::GzDecoder::new(&got.body[..]).read_to_end(&mut plain).unwrap(),
        "br" => brotli::Decompressor::new(&got.body[..], 4096).read_to_end(&mut plain).unwrap(),
        _ => (&got.body[..]).read_to_end(&mut plain).unwrap(),
    };
    String::from_utf8(plain).unwrap()
}

/// One thing to ask, in all the ways there are.
struct Asked<'a> {
    world: &'a World,
    key: &'a str,
    methods: &'a [Method],
    path: String,
    body: &'a str,
}

impl Asked<'_> {
    fn request(&self, method: &Method, key: &str) -> reqwest::RequestBuilder {
        let request = self.world.request(method.clone(), &self.path, key);
        let has_body = !self.body.is_empty();
        if has_body {
            request.header("content-type", "application/json").body(self.body.to_owned())
        } else {
            request
        }
    }

    /// How many answers were looked at, each without the canary, of which so many were in a coding.
    async fn sweep(&self) -> (usize, usize) {
        let plain = got(self.request(&self.methods[0], PLAIN)).await;
        let tags = [
            String::new(),
            plain.header("etag").to_owned(),
            format!("W/{}", plain.header("etag")),
            plain.header("etag").trim_end_matches('"').to_owned() + "-br\"",
            "*".to_owned(),
        ];
        let (mut looked_at, mut coded) = (0, 0);
        for method in self.methods {
            for coding in ["", "gzip", "br", "*", "identity;q=0"] {
                for tag in &tags {
                    let mut request = self.request(method, self.key).header("range", "bytes=0-2000");
                    if !coding.is_empty() {
                        request = request.header("accept-encoding", coding);
                    }
                    if !tag.is_empty() {
                        request = request.header("if-none-match", tag);
                    }
                    let answer = got(request.header("cache-control", "no-cache")).await;
                    let text = decoded(&answer);
                    assert!(!text.contains(CANARY), "{method} {coding} {tag}: {text}");
                    assert!(!format!("{:?}", answer.headers).contains(CANARY));
                    // The tag of the whole is no tag of the part: a 304 would confirm a guess of it.
                    assert!(answer.status != 304 || tag == "*", "{method} {coding} {tag}");
                    // Nor does the length tell it.
                    let is_whole = answer.header("content-length") == plain.body.len().to_string();
                    assert!(!is_whole || !decoded(&plain).contains(CANARY));
                    looked_at += 1;
                    coded += usize::from(!answer.header("content-encoding").is_empty());
                }
            }
        }
        (looked_at, coded)
    }
}

#[tokio::test]
async fn no_denied_value_is_in_any_answer_however_it_is_asked_for() {
    let world = World::with(|setup| {
        setup.without_quota = true;
        setup.config.push_str(PROFILE);
        for (name, bots, more) in [
            (PLAIN, "*", ""),
            (SHORN, "*", "redact = [\"r\"]\nmay_refresh = true"),
            (OWN_ROWS, EXAMPLE_STREAM, "filter_rows = true\nredact = [\"r\"]"),
        ] {
            setup.clients.push_str(&client(name, name).bots(bots).toml());
            setup.clients.push_str(&format!("{more}\n"));
        }
    })
    .await;
    let denied = denied();
    let ended = r#""status":"CLOSED","endTime":"2026-02-01T00:00:00Z""#;
    let row = |bot: &str, id: u8, more: &str| {
        format!(
            r#"{{"sessionId":"s{id}","botId":"{bot}","finalStatus":"CLOSED","sessionEndTime":"2026-02-17T00:00:00",{more}}}"#
        )
    };
    let (own, other) = (row(EXAMPLE_STREAM, 1, &secrets()), row(OTHER_STREAM, 2, &secrets()));
    let nobodys = format!(r#"{{"sessionId":"s3","secret":"{CANARY}"}}"#);
    let bodies = [
        ("/conversations/c-1", format!(r#"{{"_id":"c-1","botId":"{EXAMPLE_STREAM}",{ended},{denied}}}"#)),
        ("/interactionDetails", format!(r#"{{"numResults":3,{denied},"data":[{own},{other},{nobodys}]}}"#)),
        (
            "/conversationDetails",
            format!(r#"{{"conversationInfo":{{"sessionId":"s1"}},"conversationHistory":[],{denied}}}"#),
        ),
    ];
    for (path, body) in &bodies {
        world.standin.serve_body(path, 200, "application/json", body.clone());
    }
    let week = r#"{"startDate":"2026-02-16","endDate":"2026-02-22","timeZoneOffset":0}"#;
    let (query, own_rows) = ([Method::POST, Method::QUERY], [Method::QUERY, Method::POST]);
    let asked = |key, methods, path: String, body| Asked { world: &world, key, methods, path, body };
    let all = [
        asked(SHORN, &query[..], window_path(), week),
        asked(OWN_ROWS, &own_rows[..], window_path(), week),
        asked(SHORN, &[Method::GET, Method::HEAD][..], conversation_path("c-1"), ""),
        asked(OWN_ROWS, &[Method::HEAD, Method::GET][..], conversation_path("c-1"), ""),
        asked(SHORN, &query[..], transcript_path(), r#"{"sessionId":"s1"}"#),
    ];
    let mut sum = (0, 0);
    let mut add = |(looked_at, coded): (usize, usize)| sum = (sum.0 + looked_at, sum.1 + coded);
    for asked in &all {
        let method = asked.methods.iter().find(|method| **method != Method::HEAD).unwrap();
        let ask = async |key: &str| decoded(&got(asked.request(method, key)).await);
        assert!(ask(PLAIN).await.contains(CANARY));
        let shown = ask(asked.key).await;
        assert!(shown.contains("\"s1\"") || shown.contains("\"c-1\""), "{shown}");
        add(asked.sweep().await);
    }
    // Stale, where the upstream is away.
    world.advance(2 * DAY);
    world.standin.fault(Some(Fault::Reset));
    for asked in &all {
        add(asked.sweep().await);
    }
    world.standin.fault(None);
    // Not a 200; live; never stored.
    for status in [201, 400, 404, 500] {
        for (path, body) in &bodies {
            world.standin.serve_body(path, status, "application/json", body.replace("CLOSED", "OPEN"));
        }
        world.advance(8 * DAY);
        for asked in &all {
            add(asked.sweep().await);
        }
    }
    println!("{} answers, {} of them in a coding, none with what is denied", sum.0, sum.1);
    assert!(sum.0 > 1000 && sum.1 > 100, "{sum:?}");
}
