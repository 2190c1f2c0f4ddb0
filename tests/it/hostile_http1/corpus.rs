//! The hostile requests: a small grammar of heads and chunked bodies, and what has to become of each.

use crate::world::{REPORTING, conversation_path, transcript_path};

/// What has to become of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Must {
    /// It has a fault of framing: one refusal at most, and the connection's end.
    Refuse,
    /// There is one way to read it, and it is read so.
    Read,
    /// Either is right, as long as nobody is mistaken.
    NotConfuse,
}

impl Must {
    fn of(is_good: bool) -> Self {
        if is_good { Self::Read } else { Self::Refuse }
    }
}

pub struct Hostile {
    pub what: String,
    pub bytes: Vec<u8>,
    pub must: Must,
    /// HTTP/1.0 closes after an answer.
    pub is_last: bool,
}

/// The request that is hidden where one reader sees a body and another the next request.
fn smuggled() -> String {
    format!("GET {} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\n\r\n", conversation_path("c-smuggled"))
}

#[derive(Default)]
pub struct Corpus(Vec<Hostile>);

impl Corpus {
    pub fn all() -> Vec<Hostile> {
        let mut corpus = Self::default();
        corpus.lengths_and_encodings();
        corpus.hosts_and_targets();
        corpus.request_lines();
        corpus.line_ends();
        corpus.bytes();
        corpus.fields();
        corpus.chunks();
        corpus.0
    }

    fn add(&mut self, what: impl Into<String>, must: Must, bytes: impl Into<Vec<u8>>) {
        self.0.push(Hostile { what: what.into(), bytes: bytes.into(), must, is_last: false });
    }

    /// Each spelling of a length beside each of an encoding, in both orders.
    fn lengths_and_encodings(&mut self) {
        let hidden = smuggled();
        let body = format!("0\r\n\r\n{hidden}");
        let n = body.len();
        let good = |length: String| (vec![length], true);
        let bad = |length: String| (vec![length], false);
        let lengths = [
            (vec![], true),
            good(format!("{n}")),
            good(format!(" \t{n} \t")),
            bad(format!("+{n}")),
            bad(format!("-{n}")),
            bad(format!("0{n}")),
            bad(format!("{n}.0")),
            bad(format!("{n}, {n}")),
            bad(format!("{n} {n}")),
            bad(format!("{n};")),
            bad(format!("0x{n:x}")),
            bad(format!("\"{n}\"")),
            bad(String::new()),
            bad(format!("1844674407370955161{n}")),
            (vec![format!("{n}"), format!("{n}")], false),
            (vec!["0".to_owned(), format!("{n}")], false),
            (vec![format!("{n}"), "x".to_owned()], false),
        ];
        let encodings: [(&[&str], bool); 18] = [
            (&[], true),
            (&["chunked"], true),
            (&["CHUNKED"], true),
            (&[" \tchunked \t"], true),
            (&["chunked, chunked"], false),
            (&["identity"], false),
            (&["chunked, identity"], false),
            (&["identity, chunked"], false),
            (&["gzip, chunked"], false),
            (&["xchunked"], false),
            (&["chunkedx"], false),
            (&["\"chunked\""], false),
            (&["chunked;q=1"], false),
            (&[",chunked"], false),
            (&["chunked,"], false),
            (&[""], false),
            (&["chunked", "chunked"], false),
            (&["identity", "chunked"], false),
        ];
        for (method, version) in [("POST", 1), ("GET", 1), ("POST", 0)] {
            let path = if method == "GET" { conversation_path("c-hostile") } else { transcript_path() };
            for (lengths, length_is_good) in &lengths {
                for (encodings, encoding_is_good) in &encodings {
                    for length_first in [true, false] {
                        let both = !lengths.is_empty() && !encodings.is_empty();
                        if !both && !length_first {
                            continue;
                        }
                        let lengths = lengths.iter().map(|value| format!("Content-Length:{value}\r\n"));
                        let encodings =
                            encodings.iter().map(|value| format!("Transfer-Encoding:{value}\r\n"));
                        let fields: String = if length_first {
                            lengths.chain(encodings).collect()
                        } else {
                            encodings.chain(lengths).collect()
                        };
                        let has_body = !fields.is_empty();
                        let is_old_and_chunked = version == 0 && fields.contains("Transfer");
                        let is_good = *length_is_good
                            && *encoding_is_good
                            && !both
                            && !(method == "GET" && has_body)
                            && !is_old_and_chunked;
                        // Unframed, the body would be an honest request.
                        let body = if has_body { &body[..] } else { "" };
                        let body = if is_good && fields.contains("Transfer") { "0\r\n\r\n" } else { body };
                        let request = format!(
                            "{method} {path} HTTP/1.{version}\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\n{fields}\r\n{body}"
                        );
                        self.add(format!("{method} 1.{version} {fields:?}"), Must::of(is_good), request);
                        if let Some(added) = self.0.last_mut() {
                            added.is_last = version == 0;
                        }
                    }
                }
            }
        }
    }

    /// Each kind of host beside each kind of target.
    fn hosts_and_targets(&mut self) {
        let path = conversation_path("c-hostile");
        let hosts: [(&[&str], Option<&str>); 22] = [
            (&["gw"], Some("gw")),
            (&["GW.example"], Some("gw.example")),
            (&["gw:8080"], Some("gw:8080")),
            (&["[::1]:80"], Some("[::1]:80")),
            (&["127.0.0.1"], Some("127.0.0.1")),
            (&[], None),
            (&[""], None),
            (&["gw", "gw"], None),
            (&["gw", "other"], None),
            (&["gw, other"], None),
            (&["gw other"], None),
            (&["gw/path"], None),
            (&["user@gw"], None),
            (&["gw?x"], None),
            (&["gw#x"], None),
            (&["gw:"], None),
            (&["gw:x"], None),
            (&["gw:99999"], None),
            (&["[::1"], None),
            (&["%67w"], None),
            (&["gw\\other"], None),
            (&["<gw>"], None),
        ];
        let authorities = [
            None,
            Some("gw"),
            Some("gw.example"),
            Some("gw:8080"),
            Some("[::1]:80"),
            Some("other"),
            Some("user@gw"),
            Some(""),
        ];
        for (hosts, named) in hosts {
            for authority in authorities {
                for scheme in ["http://", "HTTPS://"] {
                    let target = match authority {
                        None if scheme == "http://" => path.clone(),
                        None => continue,
                        Some(authority) => format!("{scheme}{authority}{path}"),
                    };
                    let fields: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
                    let is_good = named.is_some() && (authority.is_none() || authority == named);
                    let request = format!("GET {target} HTTP/1.1\r\n{fields}X-Api-Key: {REPORTING}\r\n\r\n");
                    self.add(format!("{target} {fields:?}"), Must::of(is_good), request);
                }
            }
        }
        let tail = format!(" HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\n\r\n");
        for id in [
            "c-1%2f..%2fc-2",
            "c-1%2F",
            "c-1%00",
            "c-1%0d%0aHost:x",
            "..",
            ".",
            "%2e%2e",
            "%2E",
            "c-1;a=b",
            "c-1//",
            "c-1/../c-2",
            "c-1%252f",
            "c-1%",
            "c-1%zz",
            "c%2d1",
            "C-1",
            "c-1%20",
            "c-1+",
            "c-1,c-2",
            "c-1&x=y",
            "c-1:80",
            "c-1@x",
            "~c-1",
            "c-1*",
            "%c0%af",
            "%ff",
        ] {
            self.add(id, Must::NotConfuse, format!("GET {}{tail}", conversation_path(id)));
        }
        for target in [
            "*",
            "gw",
            "gw:80",
            "c-1",
            "//gw/",
            "?",
            "ftp://gw/",
            "file:///etc/passwd",
            "http:gw",
            "javascript:1",
            "/a#b",
            "/\\a",
            "/a|b",
            "/{a}",
            "/<a>",
            "/\"a\"",
            "/^a",
            "/`a`",
            "/ä",
            "/\u{202e}",
        ] {
            let must = if target.starts_with("//") { Must::NotConfuse } else { Must::Refuse };
            self.add(target, must, format!("GET {target}{tail}"));
        }
    }

    fn request_lines(&mut self) {
        let fields = format!("Host: gw\r\nX-Api-Key: {REPORTING}\r\n\r\n");
        let path = conversation_path("c-hostile");
        for line in [
            format!("GET  {path} HTTP/1.1"),
            format!("GET {path}  HTTP/1.1"),
            format!("GET\t{path} HTTP/1.1"),
            format!("GET {path}\tHTTP/1.1"),
            format!(" GET {path} HTTP/1.1"),
            format!("GET {path} HTTP/1.1 "),
            format!("GET {path} HTTP/1.1\t"),
            format!("GET {path}"),
            format!("GET {path} "),
            format!("{path} HTTP/1.1"),
            "GET HTTP/1.1".to_owned(),
            "GET".to_owned(),
            format!("GET {path} HTTP/1.1 HTTP/1.1"),
            format!("GET {path} {path} HTTP/1.1"),
            format!("GET {path} HTTP/1.2"),
            format!("GET {path} HTTP/2.0"),
            format!("GET {path} HTTP/0.9"),
            format!("GET {path} HTTP/3.0"),
            format!("GET {path} HTTP/1"),
            format!("GET {path} HTTP/11"),
            format!("GET {path} HTTP/1.01"),
            format!("GET {path} HTTP/01.1"),
            format!("GET {path} HTTP/1.1x"),
            format!("GET {path} http/1.1"),
            format!("GET {path} HTTPS/1.1"),
            format!("GET {path} HTTP /1.1"),
            format!("GET {path} HTTP/ 1.1"),
            format!("GET {path} HTTP/+1.1"),
            format!("GET {path} ICAP/1.0"),
            format!("G(T {path} HTTP/1.1"),
            format!("G\u{0}T {path} HTTP/1.1"),
            format!("GÉT {path} HTTP/1.1"),
            format!("\"GET\" {path} HTTP/1.1"),
            format!("GET: {path} HTTP/1.1"),
            "CONNECT gw:80 HTTP/1.1".to_owned(),
            format!("CONNECT {path} HTTP/1.1"),
            "CONNECT http://gw/ HTTP/1.1".to_owned(),
            "PRI * HTTP/2.0".to_owned(),
            "OPTIONS * HTTP/1.1".to_owned(),
        ] {
            self.add(line.clone(), Must::Refuse, format!("{line}\r\n{fields}"));
        }
        for method in
            ["get", "Get", "TRACE", "DELETE", "PUT", "PATCH", "OPTIONS", "X", "PROPFIND", "_OTHER", "QUERY"]
        {
            self.add(method, Must::Read, format!("{method} {path} HTTP/1.1\r\n{fields}"));
        }
        for before in ["\r\n", "\r\n\r\n"] {
            self.add(
                format!("{before:?} before"),
                Must::Read,
                format!("{before}GET {path} HTTP/1.1\r\n{fields}"),
            );
        }
        for before in ["\n", "\r", " \r\n", "\r\n\n", "\t", "\0", "\u{feff}"] {
            self.add(
                format!("{before:?} before"),
                Must::Refuse,
                format!("{before}GET {path} HTTP/1.1\r\n{fields}"),
            );
        }
    }

    /// Each line of a head with each wrong end.
    fn line_ends(&mut self) {
        let hidden = smuggled();
        let lines = [
            format!("POST {} HTTP/1.1", transcript_path()),
            "Host: gw".to_owned(),
            format!("X-Api-Key: {REPORTING}"),
            "X-A: b".to_owned(),
            format!("Content-Length: {}", hidden.len()),
            String::new(),
        ];
        for at in 0..lines.len() {
            for end in [
                "\n",
                "\r",
                "\r\r\n",
                "\n\r",
                "\n\n",
                "\0\r\n",
                "\u{b}\r\n",
                "\u{c}\r\n",
                "\u{85}\r\n",
                "\u{2028}\r\n",
                "\r\n ",
                "\r\n\t",
                "\r\n \r\n",
                "\r \n",
            ] {
                let request: String = lines
                    .iter()
                    .enumerate()
                    .flat_map(|(line, text)| [&text[..], if line == at { end } else { "\r\n" }])
                    .chain([&hidden[..]])
                    .collect();
                // Bytes above ASCII may stand in a value.
                let is_obsolete_text = end.starts_with(['\u{85}', '\u{2028}']) && (2..=3).contains(&at);
                if at == lines.len() - 1 && end.starts_with("\r\n") {
                    // That is the body's first byte, and the length is no longer its own.
                    continue;
                }
                let must = if is_obsolete_text { Must::NotConfuse } else { Must::Refuse };
                self.add(format!("{end:?} after line {at}"), must, request);
            }
        }
    }

    /// Each byte that does not belong there, in names, values and the request line.
    fn bytes(&mut self) {
        let hidden = smuggled();
        let path = format!(" {}", transcript_path());
        let parts = [
            "POST",
            &path,
            " HTTP/1.1\r\n",
            "Host",
            ": gw",
            "\r\n",
            "X-Api-Key",
            ": kg_reporting",
            "\r\nX-A",
            ": b",
            "\r\n",
            "Content-Length",
            ": ",
        ];
        let length = hidden.len().to_string();
        let hostile: Vec<u8> =
            (0..=0x20).chain(*b"\"(),/:;<=>?@[\\]{}").chain([0x7f, 0x80, 0xa0, 0xff]).collect();
        for (at, part) in parts.iter().enumerate() {
            let is_name = matches!(at, 3 | 6 | 8 | 11);
            let is_value = matches!(at, 4 | 7 | 9);
            if !is_name && !is_value {
                continue;
            }
            for byte in &hostile {
                for place in [0, 1, part.len()] {
                    // The first bytes of a value's part are its colon and blank, of a name's sometimes a line's end.
                    let place = if is_value { 2 + place.min(part.len() - 2) } else { place };
                    if at == 8 && place < 2 {
                        continue;
                    }
                    let mut request = Vec::new();
                    for (other, text) in parts.iter().enumerate() {
                        match other == at {
                            true => {
                                request.extend(&text.as_bytes()[..place]);
                                request.push(*byte);
                                request.extend(&text.as_bytes()[place..]);
                            }
                            false => request.extend(text.as_bytes()),
                        }
                    }
                    request.extend(length.as_bytes());
                    request.extend(b"\r\n\r\n");
                    request.extend(hidden.as_bytes());
                    let is_control = *byte < 0x20 && *byte != b'\t' || *byte == 0x7f;
                    // A colon ends a name early, and then it is another name: good only where nobody asks.
                    let must = match (is_control, is_name, *byte) {
                        (true, ..) => Must::Refuse,
                        (_, true, b':') => Must::NotConfuse,
                        (_, true, _) => Must::Refuse,
                        _ => Must::NotConfuse,
                    };
                    if must == Must::NotConfuse && at == 11 {
                        // Without its length the hidden request is an honest one.
                        continue;
                    }
                    self.add(format!("{byte:#04x} at {place} of {part:?}"), must, request);
                }
            }
        }
    }

    fn fields(&mut self) {
        let path = conversation_path("c-hostile");
        let with = |fields: &str| {
            format!("GET {path} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\n{fields}\r\n")
        };
        for upgrade in ["h2c", "websocket", "HTTP/2.0", "TLS/1.0", "", "h2c, websocket"] {
            for connection in [
                "",
                "Connection: Upgrade\r\n",
                "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            ] {
                self.add(
                    format!("upgrade {upgrade:?}"),
                    Must::Read,
                    with(&format!("Upgrade: {upgrade}\r\n{connection}")),
                );
            }
        }
        for expect in ["100-continue, 100-continue", "100", "200-ok", "x", ""] {
            self.add(format!("expect {expect:?}"), Must::Refuse, with(&format!("Expect: {expect}\r\n")));
        }
        for line in [
            "X",
            "X y",
            ": x",
            " X: y",
            "\tX: y",
            "X : y",
            "X\t: y",
            "X\u{b}: y",
            "=x: y",
            "X:y\r\n z",
            "X[]: y",
            "Ä: y",
            "\u{feff}X: y",
        ] {
            self.add(line, Must::Refuse, with(&format!("{line}\r\n")));
        }
        for name in [
            "Content-Length ",
            "Content-Length\t",
            " Content-Length",
            "Transfer-Encoding ",
            " Transfer-Encoding",
            "Content-Length\u{b}",
            "Transfer-Encoding\0",
        ] {
            self.add(name, Must::Refuse, with(&format!("{name}: 5\r\n")));
        }
        // Names that others take for the ones that count; here they are names like any other.
        for name in [
            "Content_Length",
            "Transfer_Encoding",
            "Content-Lenght",
            "X-Transfer-Encoding",
            "Transfer-Encoding-X",
            "X-Content-Length",
            "Host_",
            "X-Host",
            "X-Forwarded-Host",
            "Forwarded",
        ] {
            self.add(name, Must::Read, with(&format!("{name}: chunked\r\n")));
        }
        for connection in [
            "close, Host",
            "Content-Length",
            "Transfer-Encoding",
            "X-Api-Key",
            "Host",
            "keep-alive, close",
            "\"close\"",
            ",",
            "Upgrade",
        ] {
            self.add(
                format!("connection {connection}"),
                Must::NotConfuse,
                with(&format!("Connection: {connection}\r\n")),
            );
        }
        for (fields, must) in [
            (61, Must::Read),
            (63, Must::Refuse),
            (100, Must::Refuse),
            (101, Must::Refuse),
            (1000, Must::Refuse),
        ] {
            self.add(format!("{fields} fields more"), must, with(&"X: y\r\n".repeat(fields)));
        }
        for (length, must) in [(15_000, Must::Read), (16_384, Must::Refuse), (70_000, Must::Refuse)] {
            self.add(format!("a value of {length}"), must, with(&format!("X: {}\r\n", "y".repeat(length))));
            self.add(format!("a name of {length}"), must, with(&format!("{}: y\r\n", "x".repeat(length))));
        }
        for (length, must) in
            [(8_192, Must::Read), (8_193, Must::Refuse), (20_000, Must::Refuse), (70_000, Must::Refuse)]
        {
            let target = format!("/{}", "a".repeat(length - 1));
            self.add(
                format!("a target of {length}"),
                must,
                format!("GET {target} HTTP/1.1\r\nHost: gw\r\n\r\n"),
            );
        }
    }

    /// Chunked bodies, each with the hidden request for its data.
    fn chunks(&mut self) {
        let hidden = smuggled();
        let n = hidden.len();
        let path = transcript_path();
        let request = |body: &str| {
            format!(
                "POST {path} HTTP/1.1\r\nHost: gw\r\nX-Api-Key: {REPORTING}\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
            )
        };
        let good = [
            format!("{n:x}"),
            format!("{n:X}"),
            format!("0{n:x}"),
            format!("{n:08x}"),
            format!("{n:x};a"),
            format!("{n:x};a=b"),
            format!("{n:x};a=\"b\""),
            format!("{n:x}; a = b"),
        ];
        let bad = [
            format!("{n:09x}"),
            format!("0x{n:x}"),
            format!("+{n:x}"),
            format!("-{n:x}"),
            format!(" {n:x}"),
            format!("{n:x} "),
            format!("{n:x}\t"),
            format!("{n:x} ;a"),
            format!("{n:x}\n"),
            format!("{n:x}\r"),
            format!("{n:x},"),
            format!("{n:x}h"),
            format!("{n:x};a\0b"),
            format!("{n:x};a\nb"),
            format!("{n:x};a\rb"),
            format!("1{n:016x}"),
            format!("10000000000000000{n:x}"),
            String::new(),
            "g".to_owned(),
            ";a".to_owned(),
            format!("{n:x};{}", "a".repeat(17_000)),
        ];
        for (sizes, must) in [(&good[..], Must::Read), (&bad[..], Must::Refuse)] {
            for size in sizes {
                self.add(
                    format!("size {size:.40}"),
                    must,
                    request(&format!("{size}\r\n{hidden}\r\n0\r\n\r\n")),
                );
            }
        }
        for (after, must) in [
            ("\r\n0\r\n\r\n", Must::Read),
            ("\r\n0;x\r\n\r\n", Must::Read),
            ("\r\n00000\r\n\r\n", Must::Read),
            ("\r\n0\r\nT: v\r\n\r\n", Must::Read),
            ("\r\n0\r\nT: v\r\nU: w\r\n\r\n", Must::Read),
            ("0\r\n\r\n", Must::Refuse),
            ("\n0\r\n\r\n", Must::Refuse),
            ("\r0\r\n\r\n", Must::Refuse),
            ("\r\n\r\n0\r\n\r\n", Must::Refuse),
            ("x\r\n0\r\n\r\n", Must::Refuse),
            ("\r\n0\n\r\n", Must::Refuse),
            ("\r\n0\r\n\n", Must::Refuse),
            ("\r\n0\r\n\r\r\n", Must::Refuse),
            ("\r\n0\r\nT: v\n\r\n", Must::Refuse),
            ("\r\n0\r\nT: v\r\n\n", Must::Refuse),
            ("\r\n0\r\nT: \0\r\n\r\n", Must::Refuse),
            ("\r\n-0\r\n\r\n", Must::Refuse),
            ("\r\n0 \r\n\r\n", Must::Refuse),
            ("\r\n0\r\nT: a\rb\r\n\r\n", Must::Refuse),
            ("\r\n0\r\nno colon\r\n\r\n", Must::NotConfuse),
            ("\r\n0\r\nContent-Length: 5\r\n\r\n", Must::NotConfuse),
            ("\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", Must::NotConfuse),
            ("\r\n0\r\n T: folded\r\n\r\n", Must::NotConfuse),
        ] {
            self.add(format!("end {after:?}"), must, request(&format!("{n:x}\r\n{hidden}{after}")));
        }
        let long = format!("{n:x}\r\n{hidden}\r\n0\r\n{}\r\n", "T: v\r\n".repeat(4000));
        self.add("4000 trailers", Must::Refuse, request(&long));
    }
}
