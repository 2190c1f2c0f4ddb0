//! What a caller likes how much: the quality values of `Accept` and `Accept-Encoding` (RFC 9110 §12.4.2,
//! §12.5). The order of a list says nothing; of several elements that fit alike, the heaviest counts.

use std::cmp::Reverse;

use http::HeaderMap;
use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderName};

/// A weight in thousandths: 0 is "not acceptable".
type Weight = u16;

/// An element of a list: a media range or a coding, its parameters and its weight.
struct Element<'a> {
    name: &'a str,
    /// With those that are no weight.
    parameters: &'a str,
    weight: Weight,
}

/// Which of `offers` (media types with their parameters, the one liked best here first) the caller likes
/// best; the first if he says nothing, or nothing that can be read. `None` if he takes none of them.
///
/// The most specific range that fits an offer says its weight. A range's parameter has to be the
/// offer's; one that the offer does not have (`charset` of JSON) says nothing.
pub fn media(headers: &HeaderMap, offers: &[&str]) -> Option<usize> {
    let mut is_silent = true;
    // How well the best range fits, and its weight.
    let mut found = [None; 4];
    for element in elements(headers, &ACCEPT).filter(Element::is_range) {
        is_silent = false;
        for (offer, found) in offers.iter().zip(&mut found) {
            *found = (*found).max(fit(&element, offer).map(|fit| (fit, element.weight)));
        }
    }
    if is_silent {
        return Some(0);
    }
    let liked = found.into_iter().zip(0..offers.len()).filter_map(|(found, nth)| {
        let (fit, weight) = found.filter(|(_, weight)| *weight > 0)?;
        Some((weight, fit, Reverse(nth)))
    });
    liked.max().map(|(.., Reverse(nth))| nth)
}

/// How well a media range fits a media type: the type's parameters that it names count most.
fn fit(range: &Element<'_>, offer: &str) -> Option<usize> {
    let (offered, has) = offer.split_once(';').unwrap_or((offer, ""));
    let mut fit = if range.name == "*/*" {
        0
    } else if range.name.eq_ignore_ascii_case(offered.trim()) {
        2
    } else {
        let kind = range.name.strip_suffix("/*")?;
        let (offered, _) = offered.split_once('/')?;
        offered.trim().eq_ignore_ascii_case(kind).then_some(1)?
    };
    for (name, value) in parameters(range.parameters) {
        let of_offer = || parameters(has).find(|(known, _)| known.eq_ignore_ascii_case(name));
        if !is_weight(name)
            && let Some((_, known)) = of_offer()
        {
            value.trim_matches('"').eq_ignore_ascii_case(known).then_some(())?;
            fit += 1;
        }
    }
    Some(fit)
}

/// Weights of the codings that there are; `None` where a list names neither the coding nor `*`.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Codings {
    pub gzip: Option<Weight>,
    pub brotli: Option<Weight>,
    pub identity: Option<Weight>,
}

/// What `Accept-Encoding` says of each coding.
pub fn codings(headers: &HeaderMap) -> Codings {
    let (mut named, mut any) = (Codings::default(), None);
    for Element { name, weight, .. } in elements(headers, &ACCEPT_ENCODING) {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        let slot = match name {
            "*" => &mut any,
            _ if is("gzip") || is("x-gzip") => &mut named.gzip,
            _ if is("br") => &mut named.brotli,
            _ if is("identity") => &mut named.identity,
            _ => continue,
        };
        *slot = (*slot).max(Some(weight));
    }
    Codings { gzip: named.gzip.or(any), brotli: named.brotli.or(any), identity: named.identity.or(any) }
}

/// The elements of all fields of that name that can be read.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = Element<'a>> {
    let lists = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| parts(list, b',')).filter_map(Element::parse)
}

impl<'a> Element<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (name, parameters) = text.split_once(';').unwrap_or((text, ""));
        let name = name.trim();
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return None;
        }
        let weight = match self::parameters(parameters).find(|(name, _)| is_weight(name)) {
            Some((_, text)) => thousandths(text)?,
            None => 1000,
        };
        Some(Self { name, parameters, weight })
    }

    fn is_range(&self) -> bool {
        self.name.split_once('/').is_some_and(|(kind, subtype)| !kind.is_empty() && !subtype.is_empty())
    }
}

fn is_weight(name: &str) -> bool {
    name.eq_ignore_ascii_case("q")
}

fn parameters(text: &str) -> impl Iterator<Item = (&str, &str)> {
    parts(text, b';').filter_map(|part| part.split_once('=')).map(|(name, value)| (name.trim(), value.trim()))
}

/// The parts between separators, of which those in a quoted string are none.
fn parts(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let (part, behind) = match end_of_part(text.as_bytes(), separator) {
            Some(end) => (text.get(..end)?, text.get(end + 1..)),
            None => (text, None),
        };
        rest = behind;
        Some(part)
    })
}

/// Where the first separator is that is in no quoted string.
pub fn end_of_part(text: &[u8], separator: u8) -> Option<usize> {
    let (mut in_quotes, mut is_escaped) = (false, false);
    text.iter().position(|byte| {
        match *byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_quotes,
            b'"' => in_quotes = !in_quotes,
            byte => return byte == separator && !in_quotes,
        }
        false
    })
}

/// `0`, `1`, or one of them with up to three decimals.
fn thousandths(text: &str) -> Option<Weight> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    if decimals.len() > 3 {
        return None;
    }
    let digits = decimals.bytes().chain(std::iter::repeat(b'0')).take(3);
    let fraction = digits.map(|digit| digit.is_ascii_digit().then(|| Weight::from(digit - b'0')));
    let fraction = fraction.reduce(|sum, digit| Some(sum? * 10 + digit?)).flatten()?;
    match whole {
        "0" => Some(fraction),
        "1" if fraction == 0 => Some(1000),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::cases::with_cases;

    fn headers(name: &HeaderName, sent: &[&str]) -> HeaderMap {
        let value = |sent: &&str| (name.clone(), HeaderValue::from_str(sent).expect("visible"));
        sent.iter().map(value).collect()
    }

    fn chosen(sent: &[&str], offers: &[&str]) -> Option<usize> {
        media(&headers(&ACCEPT, sent), offers)
    }

    #[test]
    fn the_most_specific_range_says_the_weight_wherever_it_stands() {
        let json = |sent: &str| chosen(&[sent], &["application/json"]).is_some();
        for takes in [
            "application/json",
            "APPLICATION/Json",
            "*/*",
            "application/*;q=0.001",
            "text/html, */*;q=0.1",
            "*/*;q=0, application/json",
            "application/*;q=0, application/json;q=0.2, */*;q=0",
            "application/json;charset=utf-8",
            "application/json; charset=\"utf-8\"; q=1.000",
            "",
            "nonsense",
            "/",
            "application/json;q=2",
            "text/plain;x=\"a,b;q=0\";q=0, */*",
            "application/json;q=0, application/json",
        ] {
            assert!(json(takes), "{takes}");
        }
        for refuses in [
            "application/json;q=0, */*",
            "*/*, application/json;q=0",
            "application/*;q=0, */*;q=1",
            "application/json;q=0.000",
            "application/json; Q=0 , */*;q=0.5",
            "text/html",
            "text/*, image/png;q=0.1",
            "*/*;q=0",
            "application/jsonx",
            "application/problem+json",
            "*/json",
        ] {
            assert!(!json(refuses), "{refuses}");
        }
        assert!(chosen(&[], &["application/json"]).is_some());
        assert!(chosen(&["text/html", "application/json;q=0.1"], &["application/json"]).is_some());
    }

    #[test]
    fn of_several_offers_the_heaviest_is_chosen_then_the_one_that_was_named() {
        let offers =
            ["text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0"];
        for (sent, expected) in [
            ("*/*", Some(0)),
            ("text/plain", Some(0)),
            ("application/openmetrics-text", Some(1)),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
                Some(1),
            ),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.9", Some(0)),
            ("application/openmetrics-text;q=0, */*", Some(0)),
            ("application/openmetrics-text;version=0.0.1", None),
            ("application/openmetrics-text;version=0.0.1, */*;q=0.1", Some(0)),
            ("application/openmetrics-text, */*", Some(1)),
            ("application/openmetrics-text, text/plain", Some(0)),
            ("text/plain;version=1.0.0, application/openmetrics-text;q=0.1", Some(1)),
            ("image/png", None),
        ] {
            assert_eq!(chosen(&[sent], &offers), expected, "{sent}");
        }
    }

    proptest! {
        #![proptest_config(with_cases(2_000))]

        #[test]
        fn the_order_of_a_list_says_nothing(
            elements in proptest::collection::vec(
                "(\\*/\\*|text/(\\*|plain)|application/(\\*|json)|gzip|br|\\*|identity)(;q=[01](\\.[0-9]{0,4})?)?(;version=[01])?", 0..6,
            ).prop_shuffle(),
        ) {
            let sent = elements.join(",");
            let mut sorted = elements;
            sorted.sort();
            let offers = ["text/plain;version=1", "application/json"];
            prop_assert_eq!(chosen(&[&sent], &offers), chosen(&[&sorted.join(" , ")], &offers), "{}", sent);
            let one_by_one: Vec<&str> = sorted.iter().map(String::as_str).collect();
            prop_assert_eq!(chosen(&[&sent], &offers), chosen(&one_by_one, &offers), "{}", sent);
            let of = |sent: &[&str]| codings(&headers(&ACCEPT_ENCODING, sent));
            prop_assert_eq!(of(&[&sent]), of(&one_by_one), "{}", sent);
        }
    }
}
