//! Data that is known by its looks, in text that people wrote: e-mail addresses, telephone numbers,
//! IP addresses, numbers of payment cards. In doubt something is found: a masked order number is a
//! nuisance, a shown card number is a breach.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use crate::config::Kind;

/// Digits of a payment card's number (ISO/IEC 7812).
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;
/// Digits of a telephone number: the longest by E.164, the shortest that is no year, price or time.
const PHONE_DIGITS: std::ops::RangeInclusive<usize> = 7..=15;

/// Finds all of one kind in a text.
type Find = fn(&str) -> Vec<Range<usize>>;

/// Looks for some kinds.
#[derive(Debug)]
pub struct Finder {
    all: Vec<Find>,
    has_cards: bool,
}

impl Finder {
    pub fn new(kinds: &[Kind]) -> Self {
        let has = |kind| kinds.contains(&kind);
        let all: [(Kind, Find); 4] =
            [(Kind::Email, emails), (Kind::Card, cards), (Kind::Ip, addresses), (Kind::Phone, phones)];
        let all = all.into_iter().filter(|(kind, _)| has(*kind)).map(|(_, find)| find).collect();
        Self { all, has_cards: has(Kind::Card) }
    }

    /// Whether a JSON number is one of a card: most others in text are times.
    pub fn finds_number(&self, number: &str) -> bool {
        let is_time = number.len() == 13 && !number.starts_with('4');
        self.has_cards && !is_time && number.bytes().all(|byte| byte.is_ascii_digit()) && is_card(number)
    }

    /// Where in `text` something is, in order, without overlaps.
    pub fn find(&self, text: &str) -> Vec<Range<usize>> {
        let mut found: Vec<Range<usize>> = self.all.iter().flat_map(|find| find(text)).collect();
        found.sort_by_key(|range| range.start);
        let mut merged: Vec<Range<usize>> = Vec::with_capacity(found.len());
        for range in found {
            match merged.last_mut() {
                Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
                _ => merged.push(range),
            }
        }
        merged
    }
}

/// Everything around an `@` that an address may be made of, in any script, if what follows is a
/// domain with a dot in it.
fn emails(text: &str) -> Vec<Range<usize>> {
    let is_part = |c: char| c.is_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let is_domain = |c: char| c.is_alphanumeric() || c == '-' || c == '.';
    let mut found = Vec::new();
    // Also as a URL spells it.
    let signs = text.match_indices('@').chain(text.match_indices("%40"));
    for (at, sign) in signs {
        let (before, after) = (&text[..at], &text[at + sign.len()..]);
        let start = before.trim_end_matches(is_part).len();
        let domain = &after[..after.len() - after.trim_start_matches(is_domain).len()];
        let domain = domain.trim_end_matches(['.', '-']);
        let has_dot = domain.trim_start_matches('.').contains('.');
        if start < at && has_dot {
            found.push(start..at + sign.len() + domain.len());
        }
    }
    found
}

/// How numbers are written.
struct Spelling {
    /// What may stand between digits, beside spaces and hyphens of all kinds.
    signs: &'static str,
    /// So many of them in a row.
    most_signs: usize,
    /// Not as a part of a name: `a1`, `1a` and `a-1` are none.
    stands_alone: bool,
}

const CARD: Spelling = Spelling { signs: ".", most_signs: 3, stands_alone: false };
const PHONE: Spelling = Spelling { signs: "./()", most_signs: 2, stands_alone: true };

/// A decimal digit of a script that people type numbers in: ASCII, Arabic, Persian, Devanagari, and the
/// wide ones of East Asia.
fn digit(c: char) -> Option<u32> {
    const ZEROS: [char; 4] = ['\u{660}', '\u{6f0}', '\u{966}', '\u{ff10}'];
    let offset = |zero: char| u32::from(c).checked_sub(zero.into()).filter(|digit| *digit < 10);
    c.to_digit(10).or_else(|| ZEROS.into_iter().find_map(offset))
}

fn is_digit(c: char) -> bool {
    digit(c).is_some()
}

/// A space or a hyphen, of whatever width.
fn is_gap(c: char) -> bool {
    c == '-'
        || c == '\u{2212}'
        || ('\u{2010}'..='\u{2015}').contains(&c)
        || c == '\u{200b}'
        || c.is_whitespace() && !matches!(c, '\n' | '\r')
}

/// Runs of digits with signs between them, as they stand between other characters.
fn numbers<'a>(text: &'a str, spelling: &'static Spelling) -> impl Iterator<Item = Range<usize>> + 'a {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            let start = at + text.get(at..)?.find(is_digit)?;
            let mut end = start;
            let mut since_digit = 0;
            for (offset, c) in text[start..].char_indices() {
                if is_digit(c) {
                    since_digit = 0;
                    end = start + offset + c.len_utf8();
                } else if (is_gap(c) || spelling.signs.contains(c)) && since_digit < spelling.most_signs {
                    since_digit += 1;
                } else {
                    break;
                }
            }
            at = end;
            // Of ASCII only: other scripts put no space between a word and a number.
            let is_joined = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let before = text[..start].chars().next_back();
            let after = text[end..].chars().next();
            let in_a_name = before.is_some_and(is_joined)
                || after.is_some_and(is_joined)
                || before == Some('-') && text[..start - 1].ends_with(is_joined);
            if !(spelling.stands_alone && in_a_name) {
                return Some(start..end);
            }
        }
    })
}

fn digits(text: &str) -> impl DoubleEndedIterator<Item = u32> + '_ {
    text.chars().filter_map(digit)
}

fn cards(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for run in numbers(text, &CARD) {
        // A row of numbers may hold one that is a card's: from the start of a group to the end of one.
        let mut at = run.start;
        while let Some(start) = group_start(text, at..run.end) {
            let card = group_ends(text, start..run.end).find(|end| is_card(&text[start..*end]));
            at = card.unwrap_or_else(|| after_digits(text, start));
            found.extend(card.map(|end| start..end));
        }
    }
    found
}

fn group_start(text: &str, within: Range<usize>) -> Option<usize> {
    let start = within.start;
    text[within].find(is_digit).map(|offset| start + offset)
}

fn after_digits(text: &str, at: usize) -> usize {
    at + text[at..].find(|c| !is_digit(c)).unwrap_or(text.len() - at)
}

/// Where the groups of digits end, as far as one card's number can reach.
fn group_ends(text: &str, within: Range<usize>) -> impl Iterator<Item = usize> + '_ {
    let (start, mut at) = (within.start, Some(within.start));
    std::iter::from_fn(move || {
        let end = after_digits(text, at?);
        at = group_start(text, end..within.end);
        Some(end)
    })
    .take_while(move |end| digits(&text[start..*end]).count() <= *CARD_DIGITS.end())
}

fn is_card(text: &str) -> bool {
    CARD_DIGITS.contains(&digits(text).count()) && passes_luhn(text)
}

/// The check digit of ISO/IEC 7812-1.
fn passes_luhn(text: &str) -> bool {
    let sum: u32 = digits(text)
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, digit * 2) {
            (0, _) => digit,
            (_, double) if double > 9 => double - 9,
            (_, double) => double,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn phones(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for run in numbers(text, &PHONE) {
        let mut number = run;
        // A date in front is none of it.
        if let Some(rest) = after_date(&text[number.clone()]) {
            number.start += rest;
        }
        let candidate = &text[number.clone()];
        let count = digits(candidate).count();
        let is_solid = candidate.chars().all(is_digit);
        // Longer than any number, but in groups: several of them in a row.
        let are_several = count > *PHONE_DIGITS.end() && !is_solid && !is_card(candidate);
        let is_one = PHONE_DIGITS.contains(&count) && candidate.parse::<Ipv4Addr>().is_err();
        if !is_one && !are_several {
            continue;
        }
        // The sign or the bracket in front belongs to it.
        let before = text[..number.start].trim_end_matches(['+', '(']);
        found.push(before.len()..number.end);
    }
    found
}

/// Where what follows `2026-02-16` begins.
fn after_date(text: &str) -> Option<usize> {
    let date = text.get(..10)?;
    let is_date = date.char_indices().all(|(at, c)| match at {
        4 | 7 => c == '-',
        _ => c.is_ascii_digit(),
    });
    is_date.then(|| text.len() - text[10..].trim_start_matches([' ', '-', '.', '/', '(', ')']).len())
}

fn addresses(text: &str) -> Vec<Range<usize>> {
    let is_part = |c: char| c.is_ascii_hexdigit() || c == ':' || c == '.';
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = text.get(at..).and_then(|rest| rest.find(is_part)) {
        let start = at + offset;
        let length = text[start..].find(|c| !is_part(c)).unwrap_or(text.len() - start);
        at = start + length;
        let run = &text[start..at];
        // Around it a full stop or a colon is the sentence's; a port is not the address.
        let trimmed = run.trim_end_matches(['.', ':']);
        let bare = match trimmed.strip_prefix(':') {
            Some(rest) if !rest.starts_with(':') => rest,
            _ => trimmed,
        };
        let with_port = bare.rsplit_once(':').map(|(address, _)| address);
        let is_ipv6 = |candidate: &&str| candidate.len() > 2 && candidate.parse::<Ipv6Addr>().is_ok();
        if let Some(address) = [Some(bare), with_port].into_iter().flatten().find(is_ipv6) {
            let start = start + (trimmed.len() - bare.len());
            found.push(start..start + address.len());
            continue;
        }
        let mut from = start;
        for piece in run.split(':') {
            let address = piece.trim_matches('.');
            if address.parse::<Ipv4Addr>().is_ok() {
                let start = from + (piece.len() - piece.trim_start_matches('.').len());
                found.push(start..start + address.len());
            }
            from += piece.len() + 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(kinds: &[Kind], text: &str) -> String {
        let mut masked = text.to_owned();
        for range in Finder::new(kinds).find(text).into_iter().rev() {
            masked.replace_range(range, "***");
        }
        masked
    }

    const ALL: [Kind; 4] = [Kind::Email, Kind::Phone, Kind::Ip, Kind::Card];

    #[test]
    fn each_kind_is_found_in_the_middle_of_a_sentence() {
        for (kind, text, expected) in [
            (Kind::Email, "mail asha.rao+x@mail.example.co.uk, please", "mail ***, please"),
            (Kind::Email, "<a@b.de>.", "<***>."),
            (Kind::Email, "jürgen@müller.de und 张@例子.中国", "*** und ***"),
            (Kind::Email, "mailto:a@b.example?x", "mailto:***?x"),
            (Kind::Email, "mail a.b%40mail.example&x", "mail ***&x"),
            (Kind::Phone, "call +1 (555) 059-9716 now", "call *** now"),
            (Kind::Phone, "電話番号は03-1234-5678です", "電話番号は***です"),
            (Kind::Phone, "номер89161234567", "номер***"),
            (Kind::Phone, "اتصل على ٠٥٥١٢٣٤٥٦٧", "اتصل على ***"),
            (Kind::Phone, "+1\u{a0}555\u{2011}059\u{2011}9716", "***"),
            (Kind::Ip, "IP:203.0.113.69, face:10.0.0.1", "IP:***, face:***"),
            (Kind::Ip, "ip=203.0.113.69..., at :2001:db8::1", "ip=***..., at :***"),
            (Kind::Card, "我的卡号是4111111111111111。", "我的卡号是***。"),
            (Kind::Card, "VISA4111111111111111, card-4111111111111111x", "VISA***, card-***x"),
            (Kind::Card, "4111\u{a0}1111\u{a0}1111\u{a0}1111", "***"),
            (Kind::Card, "4111 - 1111 - 1111 - 1111", "***"),
            (Kind::Card, "4111.1111.1111.1111", "***"),
            (Kind::Card, "４１１１　１１１１　１１１１　１１１１", "***"),
            (Kind::Card, "٤١١١١١١١١١١١١١١١", "***"),
            (Kind::Phone, "call +15550599716.", "call ***."),
            (Kind::Phone, "(0711) 123456-78, ask for Al", "***, ask for Al"),
            (Kind::Phone, "555-0123", "***"),
            (Kind::Phone, "0711 1234567 0711 7654321", "***"),
            (Kind::Phone, "tel:0049 711 1234567", "tel:***"),
            (Kind::Ip, "from 203.0.113.69, port", "from ***, port"),
            (Kind::Ip, "203.0.113.69:8080 and 2001:db8::1.", "***:8080 and ***."),
            (Kind::Ip, "[::ffff:203.0.113.69]", "[***]"),
            (Kind::Card, "4111 1111 1111 1111 exp 12/30", "*** exp 12/30"),
            (Kind::Card, "it's 4111111111111111!", "it's ***!"),
            (Kind::Card, "3782-822463-10005", "***"),
            (Kind::Card, "cards 4111111111111111 5555555555554444", "cards *** ***"),
        ] {
            assert_eq!(masked(&[kind], text), expected, "{text}");
        }
    }

    #[test]
    fn what_only_looks_a_little_like_it_stays() {
        for text in [
            "Order 12345, 3 items, 19.99 EUR",
            "on 2026-02-16 at 12:30:00",
            "2023-08-07T11:18:10.195Z",
            "st-24ccdea9-de4e-5139-923f-883c53ffaaaa",
            "version 1.2.3 of 10:30",
            "me @ home, you@work",
            "4111 1111 1111 1112 is no card",
            "a1234567890b",
        ] {
            let kinds: &[Kind] = if text.contains("no card") { &[Kind::Card] } else { &ALL };
            assert_eq!(masked(kinds, text), text);
        }
    }

    #[test]
    fn a_kind_that_is_off_is_not_looked_for() {
        let text = "a@b.example; 203.0.113.69; 4111111111111111; +15550599716";
        assert_eq!(masked(&[], text), text);
        assert_eq!(masked(&[Kind::Phone], text), "a@b.example; 203.0.113.69; 4111111111111111; ***");
        assert_eq!(masked(&ALL, text), "***; ***; ***; ***");
    }
}
