//! Judges one head of HTTP/1 by its bytes.

use std::mem::MaybeUninit;
use std::net::Ipv6Addr;

use super::{HeadLimits, Refusal};

/// The highest `server.max_fields`. It is hyper's own limit; beyond it, hyper would allocate memory for each head.
pub const MOST_FIELDS: usize = 100;

/// A name of DNS has at most 253 bytes (RFC 1035 §2.3.4).
const LONGEST_HOST: usize = 253;

/// The content that follows a head, as the head declares it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Number of bytes; 0 if there is no content.
    Length(u64),
    Chunked,
}

/// The judgement on the bytes that a request begins with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judgement {
    /// A head of this many bytes, including empty lines before it.
    Good {
        length: usize,
        content: Content,
        /// It has a field `Upgrade`, which must be hidden from hyper ([`hide_upgrade`]).
        has_upgrade: bool,
    },
    /// The head is not complete.
    Partial,
    Refused {
        refusal: Refusal,
        is_head: bool,
    },
}

/// Judges the head that `bytes` begin with.
pub fn judge(bytes: &[u8], limits: &HeadLimits) -> Judgement {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let fields = &mut fields[..limits.max_fields.min(MOST_FIELDS)];
    let mut request = httparse::Request::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut request, bytes, fields);
    let judged = match parsed {
        Ok(httparse::Status::Complete(length)) if length > limits.max_head => {
            Err(too_large(&bytes[..limits.max_head]))
        }
        Ok(httparse::Status::Complete(length)) => check(&request, &bytes[..length], limits)
            .map(|(content, has_upgrade)| Judgement::Good { length, content, has_upgrade }),
        Ok(httparse::Status::Partial) if bytes.len() >= limits.max_head => Err(too_large(bytes)),
        Ok(httparse::Status::Partial) => Ok(Judgement::Partial),
        Err(httparse::Error::TooManyHeaders) => Err(Refusal::TooManyFields),
        Err(httparse::Error::Version) if is_other_version(bytes) => Err(Refusal::Version),
        Err(_) => Err(Refusal::Malformed),
    };
    judged.unwrap_or_else(|refusal| Judgement::Refused { refusal, is_head: request.method == Some("HEAD") })
}

/// What is too large in a head that has not ended: its first line, or the rest of it.
fn too_large(bytes: &[u8]) -> Refusal {
    let begin = bytes.iter().position(|byte| !b"\r\n".contains(byte)).unwrap_or(0);
    let is_first_line = memchr::memchr(b'\n', &bytes[begin..]).is_none();
    if is_first_line { Refusal::TargetTooLong } else { Refusal::HeadTooLarge }
}

/// Whether a request line ends in a version of HTTP that is only another number.
fn is_other_version(bytes: &[u8]) -> bool {
    let Some(line) = bytes.split(|byte| *byte == b'\n').find(|line| line.len() > 1) else { return false };
    let version = line.split(|byte| *byte == b' ').nth(2).unwrap_or_default();
    let number = version.strip_prefix(b"HTTP/").unwrap_or_default();
    matches!(number.trim_ascii_end(), [major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn check(
    request: &httparse::Request<'_, '_>,
    head: &[u8],
    limits: &HeadLimits,
) -> Result<(Content, bool), Refusal> {
    if memchr::memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
        return Err(Refusal::BareLineFeed);
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version) else {
        return Err(Refusal::Malformed);
    };
    if method == "CONNECT" {
        return Err(Refusal::Connect);
    }
    let Fields { host, length, encoding, has_upgrade } = Fields::of(request.headers)?;
    if host.is_none() && minor == 1 {
        return Err(Refusal::HostMissing);
    }
    if let Some(authority) = authority(target.as_bytes(), limits)? {
        let named = host.ok_or(Refusal::HostMissing)?;
        if !authority.eq_ignore_ascii_case(named) {
            return Err(Refusal::HostDiffers);
        }
    }
    let content = match (length, encoding) {
        (None, None) => Content::Length(0),
        (Some(length), None) => Content::Length(length),
        // RFC 9112 §6.1: the framing of an HTTP/1.0 message with a transfer coding is faulty.
        (None, Some(())) if minor == 0 => return Err(Refusal::EncodingInvalid),
        (None, Some(())) => Content::Chunked,
        (Some(_), Some(())) => return Err(Refusal::LengthWithEncoding),
    };
    if content != Content::Length(0) && (method == "GET" || method == "HEAD") {
        return Err(Refusal::BodyUnexpected);
    }
    if matches!(content, Content::Length(length) if length > limits.max_body) {
        return Err(Refusal::ContentTooLarge);
    }
    Ok((content, has_upgrade))
}

/// The header fields that decide where a message goes and where it ends.
#[derive(Default)]
struct Fields<'a> {
    host: Option<&'a [u8]>,
    length: Option<u64>,
    /// Present only if it is `chunked` and nothing else.
    encoding: Option<()>,
    has_upgrade: bool,
}

impl<'a> Fields<'a> {
    fn of(fields: &[httparse::Header<'a>]) -> Result<Self, Refusal> {
        let mut found = Self::default();
        // Both fields together are reported before any other fault: they give the message two ends.
        let mut lengths = 0;
        let mut encodings = 0;
        let mut invalid = None;
        for field in fields {
            let is = |name: &str| field.name.eq_ignore_ascii_case(name);
            // The length alone rules out most names.
            match field.name.len() {
                4 if is("host") => {
                    if found.host.is_some() {
                        return Err(Refusal::HostRepeated);
                    }
                    if !is_host(field.value) {
                        return Err(Refusal::HostInvalid);
                    }
                    found.host = Some(field.value);
                }
                6 if is("expect") && !is_continue(field.value) => return Err(Refusal::Expectation),
                7 if is("upgrade") => found.has_upgrade = true,
                14 if is("content-length") => {
                    lengths += 1;
                    found.length = length(field.value);
                    if found.length.is_none() {
                        invalid = Some(Refusal::LengthInvalid);
                    }
                }
                17 if is("transfer-encoding") => {
                    encodings += 1;
                    found.encoding = Some(());
                    if !field.value.eq_ignore_ascii_case(b"chunked") {
                        invalid = Some(unknown(field.value));
                    }
                }
                _ => {}
            }
        }
        match (lengths, encodings, invalid) {
            (1.., 1.., _) => Err(Refusal::LengthWithEncoding),
            (2.., ..) => Err(Refusal::LengthRepeated),
            (_, 2.., _) => Err(Refusal::EncodingInvalid),
            (_, _, Some(refusal)) => Err(refusal),
            _ => Ok(found),
        }
    }
}

/// A plain decimal number: no sign, no list, no leading zero, and at most `i64::MAX`.
pub(super) fn length(value: &[u8]) -> Option<u64> {
    let is_number = match value {
        [b'0'] => true,
        [b'1'..=b'9', rest @ ..] => rest.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    // hyper reserves the two highest numbers of `u64`.
    let number: u64 = std::str::from_utf8(value).ok()?.parse().ok()?;
    (is_number && number <= i64::MAX.unsigned_abs()).then_some(number)
}

/// Other codings before a final `chunked` are not implemented. Anything else leaves the end of the message unclear.
fn unknown(value: &[u8]) -> Refusal {
    let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    let is_last = codings.next_back().is_some_and(is_chunked);
    if is_last && codings.all(|coding| !coding.is_empty() && !is_chunked(coding)) {
        Refusal::EncodingUnknown
    } else {
        Refusal::EncodingInvalid
    }
}

/// Renames each field `Upgrade` of a good head, so that hyper does not see it. The gateway supports no other protocol,
/// and a server then ignores the field (RFC 9110 §7.8). hyper would reserve the connection for the new protocol, and at
/// its end discard what it has not sent yet.
pub fn hide_upgrade(head: &mut [u8]) {
    let mut begin = 0;
    while let Some(end) = memchr::memchr(b'\n', &head[begin..]) {
        if let Some(name) =
            head.get_mut(begin..begin + 8).filter(|name| name.eq_ignore_ascii_case(b"upgrade:"))
        {
            name.copy_from_slice(b"ignored:");
        }
        begin += end + 1;
    }
}

/// The longest `Origin` that is accepted: a scheme, the longest host and a port.
const LONGEST_ORIGIN: usize = 300;

/// The `Origin` of a refused head, so that the page which sent it can read the reason. `None` unless the part of the
/// head that has arrived has exactly one.
pub fn origin(bytes: &[u8]) -> Option<&[u8]> {
    let lines = bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let mut fields =
        lines.skip_while(|line| line.is_empty()).skip(1).take_while(|line| !line.is_empty()).filter_map(
            |line| {
                let (name, value) = line.split_at_checked(7)?;
                name.eq_ignore_ascii_case(b"origin:").then(|| value.trim_ascii())
            },
        );
    let origin =
        fields.next().filter(|value| value.len() <= LONGEST_ORIGIN && value.iter().all(u8::is_ascii_graphic));
    origin.filter(|_| fields.next().is_none())
}

/// Whether it is the only expectation that RFC 9110 §10.1.1 defines.
pub(super) fn is_continue(value: &[u8]) -> bool {
    value.eq_ignore_ascii_case(b"100-continue")
}

/// The authority of a target in absolute form, or `None` for origin form (RFC 9112 §3.2). The other two forms are for
/// tunnels and for a server as a whole, and are refused.
fn authority<'a>(target: &'a [u8], limits: &HeadLimits) -> Result<Option<&'a [u8]>, Refusal> {
    let (authority, path) = if target.first() == Some(&b'/') {
        (None, target)
    } else {
        let scheme = [&b"http://"[..], b"https://"].into_iter().find(|scheme| {
            target.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
        });
        let rest = &target[scheme.ok_or(Refusal::Target)?.len()..];
        let end = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
        (Some(&rest[..end]), &rest[end..])
    };
    if path.len() > limits.max_target {
        return Err(Refusal::TargetTooLong);
    }
    if is_path(path) { Ok(authority) } else { Err(Refusal::Target) }
}

/// Bytes that may appear unencoded in a path or a query (RFC 3986 §3.3, §3.4), and `%`, `[` and `]`, which are common
/// in queries. `#` is not among them, for hyper would silently cut off a fragment.
static PATH: [bool; 256] = {
    let mut allowed = [false; 256];
    let mut byte = 0x21;
    while byte < 0x7f {
        allowed[byte as usize] =
            !matches!(byte, b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}');
        byte += 1;
    }
    allowed
};

pub(super) fn is_path(path: &[u8]) -> bool {
    // Checking every byte is faster than stopping at the first that is not allowed.
    path.iter().fold(true, |good, byte| good & PATH[usize::from(*byte)])
}

/// Whether it is a name or an address, with an optional port (RFC 9110 §7.2). It must not be empty, and have no user
/// and no percent-encoding.
pub(super) fn is_host(value: &[u8]) -> bool {
    let (host, port) = match value {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let address = std::str::from_utf8(&rest[..end]).unwrap_or_default();
            if address.parse::<Ipv6Addr>().is_err() {
                return false;
            }
            (&b"v6"[..], &rest[end + 1..])
        }
        _ => value.split_at(memchr::memchr(b':', value).unwrap_or(value.len())),
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => {
            digits.iter().all(u8::is_ascii_digit)
                && std::str::from_utf8(digits).is_ok_and(|digits| digits.parse::<u16>().is_ok())
        }
        _ => false,
    };
    is_port && (1..=LONGEST_HOST).contains(&host.len()) && host.iter().all(is_name)
}

#[cfg(test)]
mod tests;
