//! Finds where the messages in a connection's bytes begin and end.

use super::head::{Content, Judgement, hide_upgrade, judge};
use super::{HeadLimits, Refusal};

/// A good head of up to this many bytes is kept. If the next head is the same, it need not be parsed again. Clients
/// that poll send the same head each time.
const LONGEST_KEPT: usize = 1024;

/// The most digits of a chunk's size. The largest allowed body is far smaller than eight digits allow.
const MOST_CHUNK_DIGITS: u8 = 8;

/// What comes after the judged bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// All bytes were judged; anything may come.
    More,
    /// The remaining bytes are the beginning of a head. They are judged together with the bytes that follow.
    Rest,
    Refused {
        refusal: Refusal,
        is_head: bool,
    },
    /// A chunked body that breaks the syntax.
    Broken,
}

/// The position within the messages of one connection.
#[derive(Clone, Debug)]
pub struct Framing {
    limits: HeadLimits,
    state: State,
    /// Bytes of the incomplete head that have been searched for its end.
    searched: usize,
    /// The last good head, and the content that it declares.
    last: Vec<u8>,
    last_content: Content,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Head,
    Body(u64),
    Chunked {
        at: Chunk,
        /// Bytes of chunk extensions and trailers so far.
        extras: usize,
    },
    /// Nothing more is read.
    Ended,
}

/// The position within a chunked body (RFC 9112 §7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Chunk {
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
    },
    SizeEnd {
        size: u64,
    },
    Data(u64),
    DataReturn,
    DataEnd,
    /// At the beginning of a trailer, or of the empty line that ends the body.
    Trailers,
    Trailer,
    TrailerEnd,
    BodyEnd,
}

impl Framing {
    pub fn new(limits: HeadLimits) -> Self {
        Self { limits, state: State::Head, searched: 0, last: Vec::new(), last_content: Content::Length(0) }
    }

    /// Judges `bytes`, which begin where the judged bytes of the last call ended. Returns how many of them are judged
    /// now, and what comes next. In a good head, it hides the fields that hyper must not see.
    pub fn advance(&mut self, bytes: &mut [u8]) -> (usize, Next) {
        let mut judged = 0;
        while judged < bytes.len() {
            let rest = &mut bytes[judged..];
            match self.state {
                State::Head => match self.head(rest) {
                    Judgement::Good { length, content, has_upgrade } => {
                        if has_upgrade {
                            hide_upgrade(&mut rest[..length]);
                        } else {
                            self.keep(&rest[..length], content);
                        }
                        judged += length;
                        self.searched = 0;
                        self.state = match content {
                            Content::Length(0) => State::Head,
                            Content::Length(length) => State::Body(length),
                            Content::Chunked => {
                                State::Chunked { at: Chunk::Size { size: 0, digits: 0 }, extras: 0 }
                            }
                        };
                    }
                    Judgement::Partial => {
                        self.searched = rest.len();
                        return (judged, Next::Rest);
                    }
                    Judgement::Refused { refusal, is_head } => {
                        self.state = State::Ended;
                        return (judged, Next::Refused { refusal, is_head });
                    }
                },
                State::Body(left) => {
                    let here = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                    judged += here;
                    self.state = match left - here as u64 {
                        0 => State::Head,
                        left => State::Body(left),
                    };
                }
                State::Chunked { at, extras } => match at.step(rest) {
                    Some(Step { read, extra, then }) if extras + extra <= self.limits.max_head => {
                        judged += read;
                        self.state = match then {
                            Some(at) => State::Chunked { at, extras: extras + extra },
                            None => State::Head,
                        };
                    }
                    _ => {
                        self.state = State::Ended;
                        return (judged, Next::Broken);
                    }
                },
                State::Ended => return (judged, Next::Broken),
            }
        }
        (judged, Next::More)
    }

    fn keep(&mut self, head: &[u8], content: Content) {
        if head.len() <= LONGEST_KEPT && head != self.last {
            self.last.clear();
            self.last.extend_from_slice(head);
            self.last_content = content;
        }
    }

    /// Judges a head once its end has arrived. So the work stays proportional to the bytes, even if a head arrives byte
    /// by byte.
    fn head(&self, bytes: &[u8]) -> Judgement {
        // The judgement depends only on the bytes of the head. So equal bytes have an equal judgement and the same end.
        if !self.last.is_empty() && bytes.starts_with(&self.last) {
            return Judgement::Good {
                length: self.last.len(),
                content: self.last_content,
                has_upgrade: false,
            };
        }
        let is_worth_it = self.searched == 0 || bytes.len() >= self.limits.max_head || {
            let from = self.searched.saturating_sub(3).min(bytes.len());
            memchr::memchr_iter(b'\n', &bytes[from..]).any(|at| {
                let after = &bytes[from + at + 1..];
                after.starts_with(b"\n") || after.starts_with(b"\r\n")
            })
        };
        if is_worth_it { judge(bytes, &self.limits) } else { Judgement::Partial }
    }
}

/// One step through a chunked body.
struct Step {
    read: usize,
    /// How many of the bytes belong to chunk extensions or trailers.
    extra: usize,
    /// `None`: the body has ended.
    then: Option<Chunk>,
}

impl Chunk {
    /// Reads at least one byte. `None` if the bytes break the syntax.
    fn step(self, bytes: &[u8]) -> Option<Step> {
        let (first, all) = (*bytes.first()?, bytes.len());
        let mut extra = 0;
        let then = match (self, first) {
            (Self::Size { size, digits }, _) if first.is_ascii_hexdigit() && digits < MOST_CHUNK_DIGITS => {
                let digit = char::from(first).to_digit(16)?;
                Self::Size { size: size * 16 + u64::from(digit), digits: digits + 1 }
            }
            (Self::Size { size, digits: 1.. }, b'\r') => Self::SizeEnd { size },
            (Self::Size { size, digits: 1.. }, b';') => Self::Extension { size },
            (Self::Extension { size }, b'\r') => Self::SizeEnd { size },
            (Self::Extension { .. } | Self::Trailer, _) if is_text(first) => {
                extra = 1;
                self
            }
            (Self::SizeEnd { size: 0 }, b'\n') => Self::Trailers,
            (Self::SizeEnd { size }, b'\n') => Self::Data(size),
            (Self::Data(left), _) => {
                let read = usize::try_from(left).unwrap_or(usize::MAX).min(all);
                let then = match left - read as u64 {
                    0 => Self::DataReturn,
                    left => Self::Data(left),
                };
                return Some(Step { read, extra: 0, then: Some(then) });
            }
            (Self::DataReturn, b'\r') => Self::DataEnd,
            (Self::DataEnd, b'\n') => Self::Size { size: 0, digits: 0 },
            (Self::Trailers, b'\r') => Self::BodyEnd,
            (Self::Trailers, _) if is_text(first) => {
                extra = 1;
                Self::Trailer
            }
            (Self::Trailer, b'\r') => Self::TrailerEnd,
            (Self::TrailerEnd, b'\n') => Self::Trailers,
            (Self::BodyEnd, b'\n') => return Some(Step { read: 1, extra: 0, then: None }),
            _ => return None,
        };
        Some(Step { read: 1, extra, then: Some(then) })
    }
}

/// Whether a byte may appear in a chunk extension or a trailer.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_head: 256, max_target: 64, max_fields: 8, max_body: 1000 };
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

    fn post(fields: &str, body: &str) -> Vec<u8> {
        format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}").into_bytes()
    }

    fn chunked(body: &str) -> Vec<u8> {
        post("Transfer-Encoding: chunked\r\n", body)
    }

    /// Reads as a connection would, in pieces of `piece` bytes. Bytes that are not judged are put before the next
    /// piece.
    fn read(bytes: &[u8], piece: usize) -> (usize, Next) {
        let mut framing = Framing::new(LIMITS);
        let mut total = 0;
        let mut held: Vec<u8> = Vec::new();
        let mut last = Next::More;
        for piece in bytes.chunks(piece) {
            held.extend_from_slice(piece);
            let (judged, next) = framing.advance(&mut held);
            held.drain(..judged);
            total += judged;
            last = next;
            if !matches!(next, Next::More | Next::Rest) {
                break;
            }
        }
        (total, last)
    }

    /// Checks that the size of the pieces does not change the result.
    fn read_all_ways(bytes: &[u8]) -> (usize, Next) {
        let at_once = read(bytes, bytes.len());
        for piece in [1, 2, 3, 7, 64] {
            assert_eq!(read(bytes, piece), at_once, "{piece} of {:?}", String::from_utf8_lossy(bytes));
        }
        at_once
    }

    #[test]
    fn messages_end_where_they_say() {
        for bytes in [
            [GET, GET].concat(),
            [&post("Content-Length: 5\r\n", "GET /")[..], GET].concat(),
            [&chunked("5\r\nGET /\r\n0\r\n\r\n")[..], GET].concat(),
            [&chunked("00000005;a=\"b\"\r\nGET /\r\n1\r\n\n\r\n0;x\r\nA: b\r\nC: d\r\n\r\n")[..], GET]
                .concat(),
        ] {
            assert_eq!(read_all_ways(&bytes), (bytes.len(), Next::More));
            let next = [&bytes[..], b"GET * HTTP/1.1\r\n\r\n"].concat();
            let refused = Next::Refused { refusal: Refusal::HostMissing, is_head: false };
            assert_eq!(read_all_ways(&next), (bytes.len(), refused));
        }
    }

    #[test]
    fn a_chunked_body_has_one_spelling_only() {
        for body in [
            "x",
            "\r\n",
            "5 \r\nhello",
            "5\nhello",
            "+5\r\n",
            "-1\r\n",
            "0x5\r\n",
            "000000005\r\n",
            "5\r\nhelloX",
            "5\r\nhello\nX",
            "5;a\nb\r\n",
            "5;\u{1}\r\n",
            "5\rX",
            "0\r\n\n",
            "0\r\nA: b\n\r\n",
            "0\r\n\rX",
            "0\r\nA\rb\r\n",
            "FFFFFFFFF\r\n",
            ";\r\n",
        ] {
            assert_eq!(read_all_ways(&chunked(body)).1, Next::Broken, "{body:?}");
        }
    }

    #[test]
    fn extensions_and_trailers_are_limited_together() {
        let with = |extension: usize, trailer: usize| {
            let body = format!("0;{}\r\n{}\r\n\r\n", "x".repeat(extension), "y".repeat(trailer));
            read_all_ways(&chunked(&body)).1
        };
        assert_eq!(with(100, 156), Next::More);
        assert_eq!(with(100, 157), Next::Broken);
        assert_eq!(with(257, 1), Next::Broken);
    }

    #[test]
    fn there_is_no_other_protocol_behind_a_request() {
        let refused = Next::Refused { refusal: Refusal::Version, is_head: false };
        let bytes = [GET, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat();
        assert_eq!(read_all_ways(&bytes), (GET.len(), refused));
    }

    #[test]
    fn a_head_that_begins_like_the_one_before_is_judged_by_all_of_it() {
        let begun = b"GET / HTTP/1.1\r\nHost: a\r\n";
        let refused = Next::Refused { refusal: Refusal::HostRepeated, is_head: false };
        let next = [&begun[..], b"Host: a\r\n\r\n"].concat();
        assert_eq!(read_all_ways(&[GET, &next].concat()), (GET.len(), refused));
        let with_body = post("Content-Length: 2\r\n", "ab");
        let twice = [&with_body[..], &with_body, GET].concat();
        assert_eq!(read_all_ways(&twice), (twice.len(), Next::More));
    }

    #[test]
    fn a_head_is_kept_up_to_a_length_and_judged_alike_beyond_it() {
        let limits = HeadLimits { max_head: 2 * LONGEST_KEPT, ..LIMITS };
        for longer in [0, 1] {
            let padding = LONGEST_KEPT + longer - GET.len() - "X: \r\n".len();
            let mut head =
                [&GET[..GET.len() - 2], format!("X: {}\r\n\r\n", "y".repeat(padding)).as_bytes()].concat();
            let mut framing = Framing::new(limits);
            for _ in 0..3 {
                assert_eq!(framing.advance(&mut head), (head.len(), Next::More));
                assert_eq!(framing.last.is_empty(), longer == 1);
            }
        }
    }

    #[test]
    fn a_head_that_drips_in_is_judged_when_its_end_is_there() {
        let head = post("Content-Length: 1\r\nContent-Length: 1\r\n", "");
        let refused = Next::Refused { refusal: Refusal::LengthRepeated, is_head: false };
        assert_eq!(read_all_ways(&head), (0, refused));
        assert_eq!(read_all_ways(&head[..head.len() - 1]), (0, Next::Rest));
        let endless = format!("HEAD / HTTP/1.1\r\nX: {}", "y".repeat(300));
        let refused = Next::Refused { refusal: Refusal::HeadTooLarge, is_head: true };
        assert_eq!(read(endless.as_bytes(), 1), (0, refused));
    }
}
