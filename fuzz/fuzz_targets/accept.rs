//! `Accept` and `Accept-Encoding`: read as a plain reference reads them, in whatever order and in however many
//! fields the elements come.

#![no_main]

use http::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, HeaderValue};
use kore_gateway::http::accept::{codings, media};
use libfuzzer_sys::fuzz_target;

const OFFERS: [&str; 3] =
    ["application/json", "text/plain; version=0.0.4; charset=utf-8", "application/openmetrics-text; version=1.0.0"];

/// The parts between separators that are outside of quotes.
fn split(text: &str, separator: char) -> Vec<String> {
    let (mut parts, mut quoted, mut escaped) = (vec![String::new()], false, false);
    for letter in text.chars() {
        if letter == separator && !quoted {
            parts.push(String::new());
            continue;
        }
        if escaped {
            escaped = false;
        } else if letter == '\\' {
            escaped = quoted;
        } else if letter == '"' {
            quoted = !quoted;
        }
        parts.last_mut().expect("one at least").push(letter);
    }
    parts
}

struct Element {
    name: String,
    parameters: Vec<(String, String)>,
    /// In thousandths.
    weight: u32,
}

fn weight(text: &str) -> Option<u32> {
    let digits = text.strip_prefix(['0', '1'])?;
    let decimals = if digits.is_empty() { digits } else { digits.strip_prefix('.')? };
    if decimals.len() > 3 || !decimals.chars().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let weight = (text.parse::<f64>().ok()? * 1000.0).round() as u32;
    (weight <= 1000).then_some(weight)
}

fn read(text: &str) -> Option<Element> {
    let mut parts = split(text, ';').into_iter();
    let name = parts.next()?.trim().to_lowercase();
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(letter);
    if name.is_empty() || !name.chars().all(is_name) {
        return None;
    }
    let parameters: Vec<(String, String)> = parts
        .filter_map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_lowercase(), value.trim().to_owned()))
        })
        .collect();
    let weight = match parameters.iter().find(|(name, _)| name == "q") {
        Some((_, text)) => weight(text)?,
        None => 1000,
    };
    Some(Element { name, parameters, weight })
}

/// Which offer, by looking at every range for every offer.
fn expected(elements: &[Element]) -> Option<usize> {
    let ranges: Vec<_> = elements
        .iter()
        .filter_map(|element| {
            let (kind, subtype) = element.name.split_once('/')?;
            (!kind.is_empty() && !subtype.is_empty()).then_some((kind, subtype, element))
        })
        .collect();
    if ranges.is_empty() {
        return Some(0);
    }
    let mut best: Option<(u32, usize, usize)> = None;
    for (nth, offer) in OFFERS.iter().enumerate() {
        let mut parts = offer.split(';').map(str::trim);
        let (of_kind, of_subtype) = parts.next().and_then(|name| name.split_once('/')).expect("a type");
        let has: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
        let mut fits = Vec::new();
        for (kind, subtype, element) in &ranges {
            let mut fit = match (*kind, *subtype) {
                ("*", "*") => 0,
                (kind, "*") if kind == of_kind => 1,
                (kind, subtype) if kind == of_kind && subtype == of_subtype => 2,
                _ => continue,
            };
            let named = element.parameters.iter().filter(|(name, _)| name != "q");
            let shared: Vec<_> = named
                .filter_map(|(name, value)| Some((value, has.iter().find(|(known, _)| known == name)?.1)))
                .collect();
            if shared.iter().any(|(value, known)| !value.trim_matches('"').eq_ignore_ascii_case(known)) {
                continue;
            }
            fit += shared.len();
            fits.push((fit, element.weight));
        }
        if let Some((fit, weight)) = fits.into_iter().max()
            && weight > 0
            && best.is_none_or(|(than, closer, _)| (weight, fit) > (than, closer))
        {
            best = Some((weight, fit, nth));
        }
    }
    best.map(|(.., nth)| nth)
}

fn headers(name: &HeaderName, values: &[&str]) -> Option<HeaderMap> {
    values.iter().map(|value| Some((name.clone(), HeaderValue::from_str(value).ok()?))).collect()
}

fuzz_target!(|text: &str| {
    let fields: Vec<&str> = text.split('\n').collect();
    let (Some(accept), Some(encoding)) = (headers(&ACCEPT, &fields), headers(&ACCEPT_ENCODING, &fields)) else {
        return;
    };
    let (chosen, liked) = (media(&accept, &OFFERS), codings(&encoding));
    if !text.is_ascii() {
        // A field that is not ASCII is not read.
        return;
    }
    let mut parts: Vec<String> = fields.iter().flat_map(|field| split(field, ',')).collect();
    let elements: Vec<Element> = parts.iter().filter_map(|part| read(part)).collect();
    assert_eq!(chosen, expected(&elements));
    let of = |names: &[&str]| {
        let named = elements.iter().filter(|element| names.contains(&element.name.as_str()));
        let any = elements.iter().filter(|element| element.name == "*");
        named.map(|element| element.weight).max().or(any.map(|element| element.weight).max())
    };
    assert_eq!(liked.gzip.map(u32::from), of(&["gzip", "x-gzip"]));
    assert_eq!(liked.brotli.map(u32::from), of(&["br"]));
    assert_eq!(liked.identity.map(u32::from), of(&["identity"]));

    // Unless a quoted string has no end: then what stands behind it is part of it.
    if text.matches('"').count() % 2 == 0 && parts.iter().all(|part| !part.contains('\\') && part.matches('"').count() % 2 == 0) {
        parts.sort_by_key(|part| std::cmp::Reverse(part.clone()));
        let joined = parts.join(",");
        if let (Some(accept), Some(encoding)) = (headers(&ACCEPT, &[&joined]), headers(&ACCEPT_ENCODING, &[&joined])) {
            assert_eq!((media(&accept, &OFFERS), codings(&encoding)), (chosen, liked));
        }
    }
});
