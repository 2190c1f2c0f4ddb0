//! Requests as they are sent, and as RFC 9113 and the guard see them.

use kore_gateway::server::guard::head::{Judgement, judge};

use super::LIMITS;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub const SETTINGS: u8 = 4;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

pub type Fields = Vec<(Vec<u8>, Vec<u8>)>;

/// A request as it is sent.
#[derive(Default)]
pub struct Sent<'a> {
    options: &'a [u8],
    fields: Fields,
    pub content: Vec<&'a [u8]>,
    trailers: Fields,
}

impl<'a> Sent<'a> {
    /// All requests of an input.
    pub fn all(bytes: &'a [u8]) -> Vec<Self> {
        let lines: Vec<_> = bytes.split(|byte| *byte == b'\n').collect();
        let requests = lines.split(|line| line.is_empty()).filter_map(|lines| lines.split_first());
        requests.map(|(options, lines)| Self::of(options, lines)).collect()
    }

    fn of(options: &'a [u8], lines: &[&'a [u8]]) -> Self {
        let mut sent = Self { options, ..Self::default() };
        let mut is_over = false;
        for line in lines {
            match line {
                [b'-'] => is_over = true,
                [b'*', content @ ..] => sent.content.push(content),
                field if is_over => sent.trailers.push(parts(field)),
                field => sent.fields.push(parts(field)),
            }
        }
        sent
    }

    fn has(&self, option: u8) -> bool {
        self.options.contains(&option)
    }

    /// The head ends the stream.
    fn is_head_alone(&self) -> bool {
        self.has(b'e') && self.content.is_empty() && self.trailers.is_empty()
    }

    /// The end never comes.
    fn is_endless(&self) -> bool {
        self.has(b'o') && !self.is_head_alone()
    }

    pub fn frames(&self, stream: u32, out: &mut Vec<u8>) {
        self.head(stream, &self.fields, self.is_head_alone(), out);
        if self.is_head_alone() {
            return;
        }
        for (n, content) in self.content.iter().enumerate() {
            let is_last = n + 1 == self.content.len() && self.trailers.is_empty() && !self.is_endless();
            self.data(stream, content, is_last, out);
        }
        if !self.trailers.is_empty() {
            self.head(stream, &self.trailers, true, out);
        } else if self.content.is_empty() && !self.is_endless() {
            self.data(stream, b"", true, out);
        }
    }

    fn data(&self, stream: u32, content: &[u8], is_last: bool, out: &mut Vec<u8>) {
        let end = if is_last { END_STREAM } else { 0 };
        if self.has(b'p') {
            frame(DATA, PADDED | end, stream, &[&[3][..], content, &[0; 3]].concat(), out);
        } else {
            frame(DATA, end, stream, content, out);
        }
    }

    /// Fields, in one frame or several.
    fn head(&self, stream: u32, fields: &Fields, ends: bool, out: &mut Vec<u8>) {
        let mut block = Vec::new();
        for (name, value) in fields {
            // RFC 7541 §6.2: with a place in the table, without one, never with one.
            block.push(if self.has(b'i') {
                0x40
            } else if self.has(b'n') {
                0x10
            } else {
                0
            });
            text(name, &mut block);
            text(value, &mut block);
        }
        let pieces = 1 + self.options.iter().filter(|option| **option == b'c').count().min(3);
        let mut pieces = block.chunks(block.len().div_ceil(pieces).max(1));
        let mut first = pieces.next().unwrap_or_default().to_vec();
        let rest: Vec<_> = pieces.collect();
        let mut flags = if ends { END_STREAM } else { 0 };
        if self.has(b'q') {
            // On no other stream.
            first.splice(0..0, [0, 0, 0, 0, 15]);
            flags |= PRIORITY;
        }
        if self.has(b'p') {
            first.insert(0, 5);
            first.extend([0; 5]);
            flags |= PADDED;
        }
        if rest.is_empty() {
            flags |= END_HEADERS;
        }
        frame(HEADERS, flags, stream, &first, out);
        for (n, piece) in rest.iter().enumerate() {
            let flags = if n + 1 == rest.len() { END_HEADERS } else { 0 };
            frame(CONTINUATION, flags, stream, piece, out);
        }
    }

    fn pseudo(&self, name: &str) -> Option<&[u8]> {
        self.fields.iter().find(|field| field.0 == name.as_bytes()).map(|field| &field.1[..])
    }

    /// The fields that h2 shows, of its head: all of it, but of one that goes on in a CONTINUATION frame it may drop what
    /// it would refuse elsewhere (docs/DECISIONS.md).
    pub fn shown(&self) -> Fields {
        if !self.has(b'c') {
            return self.fields.clone();
        }
        let mut shown = Fields::new();
        for field in self.fields.iter().filter(|field| !field.0.is_empty()) {
            let is_late = shown.iter().any(|other| other.0 == field.0 || !is_pseudo(other));
            if if is_pseudo(field) { !is_late } else { !is_of_connection(field) } {
                shown.push(field.clone());
            }
        }
        shown
    }

    /// The trailers that h2 shows: none of HTTP/2's own, and of split ones as of heads.
    pub fn shown_trailers(&self) -> impl Iterator<Item = &(Vec<u8>, Vec<u8>)> + Clone {
        let is_dropped = |field: &(Vec<u8>, Vec<u8>)| field.0.is_empty() || is_of_connection(field);
        self.trailers.iter().filter(move |field| !is_pseudo(field) && !(self.has(b'c') && is_dropped(field)))
    }

    /// The fields that are not of HTTP/2 itself.
    fn regular(&self) -> impl Iterator<Item = &(Vec<u8>, Vec<u8>)> {
        self.fields.iter().filter(|field| !is_pseudo(field))
    }

    /// Whether RFC 9113 §8 and the guard's rules for HTTP/1 let it be.
    pub fn is_good(&self) -> bool {
        let begin = self.fields.iter().take_while(|field| is_pseudo(field)).count();
        let known = [":method", ":scheme", ":path", ":authority"];
        let is_once = |name: &str| self.fields.iter().filter(|field| field.0 == name.as_bytes()).count() <= 1;
        let size: usize = self.fields.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        self.fields[begin..].iter().all(|field| !is_pseudo(field) && is_regular(field))
            && self.fields[..begin].iter().all(|field| known.iter().any(|name| field.0 == name.as_bytes()))
            && known.iter().all(|name| is_once(name))
            && matches!(self.pseudo(":scheme"), Some(b"http" | b"https"))
            && self.pseudo(":path").is_some_and(|path| path.starts_with(b"/"))
            && size <= LIMITS.max_head
            && !self.is_endless()
            && self.trailers.iter().all(|field| !is_pseudo(field) && is_regular(field))
            && self.over_http1().is_some_and(|head| is_good(&head))
    }

    /// The same over HTTP/1, if there are words for it.
    fn over_http1(&self) -> Option<Vec<u8>> {
        let length: usize = self.content.iter().map(|part| part.len()).sum();
        let announced = self.regular().find(|field| field.0 == b"content-length");
        if let Some((_, announced)) = announced
            && *announced != length.to_string().as_bytes()
        {
            return None;
        }
        let host = self.pseudo(":authority").map(<[u8]>::to_vec);
        let is_chunked = announced.is_none() && (length > 0 || !self.is_head_alone());
        let is_empty_get = length == 0 && matches!(self.pseudo(":method"), Some(b"GET" | b"HEAD"));
        head_of(
            (self.pseudo(":method")?, self.pseudo(":path")?, host.as_deref()),
            &self.regular().map(|(name, value)| (&name[..], &value[..])).collect::<Vec<_>>(),
            is_chunked && !is_empty_get,
        )
    }
}

pub fn is_pseudo(field: &(Vec<u8>, Vec<u8>)) -> bool {
    field.0.first() == Some(&b':')
}

/// RFC 9113 §8.2.2.
fn is_of_connection((name, value): &(Vec<u8>, Vec<u8>)) -> bool {
    let names = [&b"connection"[..], b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"];
    names.contains(&&name[..]) || name == b"te" && value != b"trailers"
}

/// RFC 9113 §8.2: letters are small, blanks are inside, and nothing is about the connection.
fn is_regular(field: &(Vec<u8>, Vec<u8>)) -> bool {
    let (name, value) = field;
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    !name.iter().any(u8::is_ascii_uppercase)
        && !is_blank(value.first())
        && !is_blank(value.last())
        && !is_of_connection(field)
        && http::HeaderName::from_bytes(name).is_ok()
        && http::HeaderValue::from_bytes(value).is_ok()
}

pub fn is_good(head: &[u8]) -> bool {
    matches!(judge(head, &LIMITS), Judgement::Good { length, .. } if length == head.len())
}

/// A head of HTTP/1; none where a line would be two, or where two hosts are named.
pub fn head_of(
    (method, path, host): (&[u8], &[u8], Option<&[u8]>),
    fields: &[(&[u8], &[u8])],
    is_chunked: bool,
) -> Option<Vec<u8>> {
    let mut lines = vec![[method, b" ", path, b" HTTP/1.1"].concat()];
    match (host, fields.iter().find(|field| field.0 == b"host")) {
        (Some(host), None) => lines.push([b"host: ", host].concat()),
        (Some(host), Some((_, named))) if !host.eq_ignore_ascii_case(named) => return None,
        _ => {}
    }
    lines.extend(fields.iter().map(|(name, value)| [name, &b": "[..], value].concat()));
    if is_chunked {
        lines.push(b"transfer-encoding: chunked".to_vec());
    }
    let is_one = |line: &Vec<u8>| !line.iter().any(|byte| b"\r\n".contains(byte));
    lines.iter().all(is_one).then(|| [&lines.join(&b"\r\n"[..])[..], b"\r\n\r\n"].concat())
}

fn parts(line: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let spelled = |bytes: &[u8]| {
        let spelled = bytes.iter().map(|byte| match byte {
            1 => b'\r',
            2 => b'\n',
            other => *other,
        });
        spelled.collect::<Vec<u8>>()
    };
    let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
    (spelled(&line[..at]), spelled(line.get(at + 1..).unwrap_or_default()))
}

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8], out: &mut Vec<u8>) {
    let length = u32::try_from(payload.len()).expect("inputs are small").to_be_bytes();
    out.extend_from_slice(&length[1..]);
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend_from_slice(payload);
}

/// RFC 7541 §5.2, without Huffman's code.
fn text(bytes: &[u8], out: &mut Vec<u8>) {
    match bytes.len().checked_sub(127) {
        None => out.push(bytes.len() as u8),
        Some(mut rest) => {
            out.push(127);
            while rest >= 128 {
                out.push(rest as u8 | 128);
                rest >>= 7;
            }
            out.push(rest as u8);
        }
    }
    out.extend_from_slice(bytes);
}
