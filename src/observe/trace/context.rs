//! `traceparent` (W3C Trace Context, §3.2): which trace a request belongs to, and which span is its parent.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// `00-` trace `-` span `-` flags.
const LENGTH: usize = 55;
const IS_SAMPLED: u8 = 1;

/// A span of a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceContext {
    pub trace: TraceId,
    pub span: SpanId,
    pub is_sampled: bool,
}

impl TraceContext {
    /// The parent span that a request names; none unless it has exactly one valid field.
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let mut fields = headers.get_all(TRACEPARENT).iter();
        let field = fields.next()?;
        if fields.next().is_some() {
            return None;
        }
        Self::read(field.as_bytes())
    }

    fn read(text: &[u8]) -> Option<Self> {
        let (known, later) = text.split_at_checked(LENGTH)?;
        let dashes = [2, 35, 52].iter().all(|dash| known[*dash] == b'-');
        let [version] = digits(&known[..2])?;
        // A later version may append more, after another dash.
        let is_whole = match version {
            0 => later.is_empty(),
            0xff => false,
            _ => later.first().is_none_or(|next| *next == b'-'),
        };
        let (trace, span) =
            (TraceId::from_bytes(digits(&known[3..35])?), SpanId::from_bytes(digits(&known[36..52])?));
        let [flags] = digits(&known[53..])?;
        let is_valid = dashes && is_whole && trace != TraceId::INVALID && span != SpanId::INVALID;
        is_valid.then_some(Self { trace, span, is_sampled: flags & IS_SAMPLED != 0 })
    }

    /// The field that makes this span the parent of what the receiver records.
    pub fn header(&self) -> Option<HeaderValue> {
        let flags = if self.is_sampled { IS_SAMPLED } else { 0 };
        HeaderValue::try_from(format!("00-{}-{}-{flags:02x}", self.trace, self.span)).ok()
    }
}

/// Bytes of lower-case hexadecimal digits.
fn digits<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let is_lower = text.iter().all(|digit| !digit.is_ascii_uppercase());
    (is_lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn read(text: &str) -> Option<TraceContext> {
        TraceContext::read(text.as_bytes())
    }

    #[test]
    fn what_is_read_is_written_again() {
        for flags in ["00", "01"] {
            let text = format!("00-{TRACE}-{SPAN}-{flags}");
            let context = read(&text).expect("a context");
            assert_eq!(context.header().expect("a header"), text.as_str());
            assert_eq!((context.trace.to_string(), context.span.to_string()), (TRACE.into(), SPAN.into()));
        }
    }

    #[test]
    fn unknown_flags_and_later_versions_are_ignored() {
        for text in [
            format!("00-{TRACE}-{SPAN}-03"),
            format!("cc-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"),
        ] {
            assert!(read(&text).is_some_and(|context| context.is_sampled), "{text}");
        }
        assert!(read(&format!("00-{TRACE}-{SPAN}-fe")).is_some_and(|context| !context.is_sampled));
    }

    #[test]
    fn an_invalid_field_is_no_context() {
        for text in [
            String::new(),
            "x".repeat(LENGTH),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("cc-{TRACE}-{SPAN}-01.more"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-0g"),
            format!("00_{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(read(&text), None, "{text}");
        }
        let mut twice = HeaderMap::new();
        let text = HeaderValue::try_from(format!("00-{TRACE}-{SPAN}-01")).expect("visible");
        twice.append(TRACEPARENT, text.clone());
        assert!(TraceContext::of(&twice).is_some());
        twice.append(TRACEPARENT, text);
        assert_eq!(TraceContext::of(&twice), None, "two are none");
    }
}
