use super::*;

const LIMITS: HeadLimits = HeadLimits { max_head: 512, max_target: 64, max_fields: 6, max_body: 1000 };

fn judged(head: &str) -> Result<Content, Refusal> {
    match judge(head.as_bytes(), &LIMITS) {
        Judgement::Good { length, content, .. } => {
            assert_eq!(length, head.len());
            Ok(content)
        }
        Judgement::Partial => panic!("partial: {head:?}"),
        Judgement::Refused { refusal, .. } => Err(refusal),
    }
}

fn post(fields: &str) -> Result<Content, Refusal> {
    judged(&format!("POST /a HTTP/1.1\r\nHost: gw\r\n{fields}\r\n"))
}

#[test]
fn what_is_framed_in_one_way_only_is_good() {
    assert_eq!(judged("GET /a?b=[1]&c=%2F HTTP/1.1\r\nHost: gw:80\r\n\r\n"), Ok(Content::Length(0)));
    assert_eq!(judged("GET / HTTP/1.1\r\nHost: gw\r\nContent-Length: 0\r\n\r\n"), Ok(Content::Length(0)));
    assert_eq!(judged("GET / HTTP/1.0\r\n\r\n"), Ok(Content::Length(0)));
    assert_eq!(judged("GET HTTP://GW/a HTTP/1.1\r\nhost:  gw \r\n\r\n"), Ok(Content::Length(0)));
    assert_eq!(
        judged("GET https://[::1]:8443?x HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n"),
        Ok(Content::Length(0))
    );
    assert_eq!(judged("\r\n\r\nGET / HTTP/1.1\r\nHost: gw\r\n\r\n"), Ok(Content::Length(0)));
    assert_eq!(post("Content-Length: \t12 \r\n"), Ok(Content::Length(12)));
    assert_eq!(post("transfer-ENCODING: Chunked\r\n"), Ok(Content::Chunked));
    assert_eq!(post("Expect: 100-Continue\r\nContent-Length: 1\r\n"), Ok(Content::Length(1)));
}

#[test]
fn each_other_length_is_refused() {
    for value in [
        "",
        "+1",
        "-1",
        "01",
        "00",
        "1 2",
        "1,1",
        "1;",
        "0x1",
        "1e1",
        "١",
        "9223372036854775808",
        "99999999999999999999",
    ] {
        assert_eq!(post(&format!("Content-Length: {value}\r\n")), Err(Refusal::LengthInvalid), "{value}");
    }
    assert_eq!(post("Content-Length: 1\r\nContent-Length: 1\r\n"), Err(Refusal::LengthRepeated));
    assert_eq!(post("Content-Length: x\r\ncontent-length: 1\r\n"), Err(Refusal::LengthRepeated));
}

#[test]
fn each_other_encoding_is_refused() {
    for (value, refusal) in [
        ("", Refusal::EncodingInvalid),
        ("identity", Refusal::EncodingInvalid),
        ("chunked, identity", Refusal::EncodingInvalid),
        ("chunked, chunked", Refusal::EncodingInvalid),
        (",chunked", Refusal::EncodingInvalid),
        ("\"chunked\"", Refusal::EncodingInvalid),
        ("xchunked", Refusal::EncodingInvalid),
        ("chunked;q=1", Refusal::EncodingInvalid),
        ("gzip, chunked", Refusal::EncodingUnknown),
        ("identity, chunked", Refusal::EncodingUnknown),
    ] {
        assert_eq!(post(&format!("Transfer-Encoding: {value}\r\n")), Err(refusal), "{value}");
    }
    let twice = "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n";
    assert_eq!(post(twice), Err(Refusal::EncodingInvalid));
    for both in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n",
        "Transfer-Encoding: identity\r\nContent-Length: +1\r\n",
    ] {
        assert_eq!(post(both), Err(Refusal::LengthWithEncoding), "{both}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(judged(old), Err(Refusal::EncodingInvalid));
}

#[test]
fn one_host_and_a_valid_one() {
    assert_eq!(judged("GET / HTTP/1.1\r\n\r\n"), Err(Refusal::HostMissing));
    assert_eq!(judged("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), Err(Refusal::HostRepeated));
    assert_eq!(judged("GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"), Err(Refusal::HostRepeated));
    for host in [
        "", "a b", "a,b", "a/b", "u@a", "a:", "a:x", "a:65536", "a:-1", "[::1", "[x]", "[::1]x", "::1",
        "a%41", "a:1:2", "ä",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(judged(&head), Err(Refusal::HostInvalid), "{host}");
    }
    for target in ["http://b/", "http://a:80/", "http://u@a/", "http://a.b?", "https:///"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(judged(&head), Err(Refusal::HostDiffers), "{target}");
    }
    assert_eq!(judged("GET http://a/ HTTP/1.0\r\n\r\n"), Err(Refusal::HostMissing));
}

#[test]
fn what_no_target_is() {
    for target in ["*", "a", "a:80", "/a#b", "/a|b", "/\\", "/ä", "/{x}", "ftp://gw/", "?", "http:/gw/"] {
        let head = format!("GET {target} HTTP/1.1\r\nHost: gw\r\n\r\n");
        assert_eq!(judged(&head), Err(Refusal::Target), "{target}");
    }
    assert_eq!(judged("CONNECT gw:443 HTTP/1.1\r\nHost: gw:443\r\n\r\n"), Err(Refusal::Connect));
}

#[test]
fn a_body_where_none_belongs_and_another_protocol() {
    for method in ["GET", "HEAD"] {
        let with = |field: &str| judged(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"));
        assert_eq!(with("Content-Length: 1"), Err(Refusal::BodyUnexpected));
        assert_eq!(with("Transfer-Encoding: chunked"), Err(Refusal::BodyUnexpected));
    }
    assert_eq!(post("Content-Length: 1000\r\n"), Ok(Content::Length(1000)));
    assert_eq!(post("Content-Length: 1001\r\n"), Err(Refusal::ContentTooLarge));
    assert_eq!(post("Expect: 200-ok\r\n"), Err(Refusal::Expectation));
}

#[test]
fn what_is_not_http_1() {
    for head in [
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /  HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET / http/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.10\r\nHost: a\r\n\r\n",
        "G(T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{16}\u{3}\u{1}\0\r\n\r\n",
    ] {
        assert_eq!(judged(head), Err(Refusal::Malformed), "{head:?}");
    }
    for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/9.9"] {
        let head = format!("GET / {version}\r\nHost: a\r\n\r\n");
        assert_eq!(judged(&head), Err(Refusal::Version), "{version}");
    }
    for head in [
        "GET / HTTP/1.1\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n\n",
        "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(judged(head), Err(Refusal::BareLineFeed), "{head:?}");
    }
}

#[test]
fn each_limit_holds_exactly() {
    let target =
        |length: usize| judged(&format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "a".repeat(length - 1)));
    assert_eq!(target(64), Ok(Content::Length(0)));
    assert_eq!(target(65), Err(Refusal::TargetTooLong));
    let fields =
        |count: usize| judged(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(count - 1)));
    assert_eq!(fields(6), Ok(Content::Length(0)));
    assert_eq!(fields(7), Err(Refusal::TooManyFields));
    let head = |length: usize| {
        let most = "GET / HTTP/1.1\r\nHost: a\r\nX: ".len() + 4;
        judged(&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(length - most)))
    };
    assert_eq!(head(512), Ok(Content::Length(0)));
    assert_eq!(head(513), Err(Refusal::HeadTooLarge));
    let partial = |text: &str, length: usize| {
        judge(format!("{text}{}", "a".repeat(length - text.len())).as_bytes(), &LIMITS)
    };
    assert_eq!(partial("GET /", 511), Judgement::Partial);
    let refused = |refusal, is_head| Judgement::Refused { refusal, is_head };
    assert_eq!(partial("GET /", 512), refused(Refusal::TargetTooLong, false));
    assert_eq!(partial("HEAD / HTTP/1.1\r\nX: ", 512), refused(Refusal::HeadTooLarge, true));
}

#[test]
fn an_upgrade_is_hidden_and_nothing_else_is_touched() {
    let mut head =
        b"GET /upgrade: HTTP/1.1\r\nHost: gw\r\nuPgrade: h2c\r\nX-Upgrade: a\r\nUpgrade:\r\n\r\n".to_vec();
    hide_upgrade(&mut head);
    let hidden = "GET /upgrade: HTTP/1.1\r\nHost: gw\r\nignored: h2c\r\nX-Upgrade: a\r\nignored:\r\n\r\n";
    assert_eq!(String::from_utf8_lossy(&head), hidden);
}

#[test]
fn the_origin_of_a_refused_head_is_found_if_there_is_one_and_it_is_one() {
    let found = |fields: &str| {
        let bytes = format!("\r\nGET /# HTTP/1.1\r\n{fields}");
        origin(bytes.as_bytes()).map(|origin| String::from_utf8_lossy(origin).into_owned())
    };
    assert_eq!(found("Host: gw\r\norigin: https://a.example \r\n").as_deref(), Some("https://a.example"));
    let long = format!("Origin: https://{}\r\n\r\n", "a".repeat(LONGEST_ORIGIN));
    for none in [
        "",
        "Origin",
        "Origin: https://a\r\nOrigin: https://b\r\n\r\n",
        "Host: gw\r\n\r\nOrigin: https://of.the.next\r\n\r\n",
        "Origin: a b\r\n\r\n",
        "Origin: a\rrefusal: b\r\n\r\n",
        long.as_str(),
    ] {
        assert_eq!(found(none), None, "{none:?}");
    }
}
