//! Data that is known by its looks, in text that people wrote: e-mail addresses, telephone numbers,
//! IP addresses, numbers of payment cards. In doubt something is found: a masked order number is a
//! nuisance, a shown card number is a breach.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use memchr::memchr2;

use super::Unreadable;
use super::digits::{CARD, CARD_DIGITS, PHONE, PHONE_DIGITS, cards_in, digit, is_card, is_digit, numbers};
use super::work::Work;
use crate::config::RedactionKind;

type Found = Vec<Range<usize>>;

/// Finds all of one kind in a text, in a number of steps that grows with its length and no faster.
type Find = fn(&str, &mut Found, &mut Work) -> Result<(), Unreadable>;

/// Looks for some kinds.
#[derive(Debug)]
pub struct Finder {
    all: Vec<Find>,
    has_cards: bool,
}

impl Finder {
    pub fn new(kinds: &[RedactionKind]) -> Self {
        let has = |kind| kinds.contains(&kind);
        let all: [(RedactionKind, Find); 4] = [
            (RedactionKind::Email, emails),
            (RedactionKind::Card, cards),
            (RedactionKind::Ip, addresses),
            (RedactionKind::Phone, phones),
        ];
        let all = all.into_iter().filter(|(kind, _)| has(*kind)).map(|(_, find)| find).collect();
        Self { all, has_cards: has(RedactionKind::Card) }
    }

    /// Whether a JSON number is one of a card: most others in text are times.
    pub fn finds_number(&self, number: &str) -> bool {
        let is_time = number.len() == 13 && !number.starts_with('4');
        self.has_cards && !is_time && number.bytes().all(|byte| byte.is_ascii_digit()) && is_card(number)
    }

    /// Where in `text` something is, in order, without overlaps.
    pub fn find(&self, text: &str, work: &mut Work) -> Result<Found, Unreadable> {
        let mut found = Found::new();
        for find in &self.all {
            find(text, &mut found, work)?;
        }
        // A few rows, each in order already: the sort merges them.
        found.sort_by_key(|range| range.start);
        found.dedup_by(|next, last| {
            let overlaps = next.start <= last.end;
            if overlaps {
                last.end = last.end.max(next.end);
            }
            overlaps
        });
        Ok(found)
    }
}

/// Whether an address may have it before its `@`, in any script.
fn is_local_part(c: char) -> bool {
    c.is_alphanumeric()
        || matches!(c, '!' | '#' | '$' | '%' | '&' | '\'' | '*' | '+' | '-' | '/' | '=' | '?')
        || matches!(c, '^' | '_' | '`' | '{' | '|' | '}' | '~' | '.')
}

/// Whether an address may have it behind its `@`.
fn is_domain(c: char) -> bool {
    c.is_alphanumeric() || c == '-' || c == '.'
}

/// Everything around an `@` that an address may be made of, in any script, if what follows is a
/// domain with a dot in it.
fn emails(text: &str, found: &mut Found, work: &mut Work) -> Result<(), Unreadable> {
    let bytes = text.as_bytes();
    // What has been walked over, back from the signs so far: nothing is walked over again. `%40` may itself be
    // a part of what stands before the next sign; `@` is not.
    let mut walked = 0..0;
    let mut at = 0;
    while let Some(offset) = memchr2(b'@', b'%', bytes.get(at..).unwrap_or_default()) {
        let sign = at + offset;
        // Also as a URL spells it.
        let length = match &bytes[sign..] {
            [b'@', ..] => 1,
            [b'%', b'4', b'0', ..] => 3,
            _ => 0,
        };
        work.spend(offset + 1)?;
        if length == 0 {
            at = sign + 1;
            continue;
        }
        at = sign + length;
        let local = text[walked.end..sign].trim_end_matches(is_local_part).len() + walked.end;
        let start = if local == walked.end { walked.start } else { local };
        // No domain reaches beyond the next sign, of either spelling.
        let after = &text[at..];
        let domain = &after[..after.find(|c| !is_domain(c)).unwrap_or(after.len())];
        work.spend(sign - local + 2 * domain.len())?;
        let domain = domain.trim_end_matches(['.', '-']);
        let has_dot = domain.trim_start_matches('.').contains('.');
        if start < sign && has_dot {
            found.push(start..at + domain.len());
        }
        walked = if length == 1 { at..at } else { start..at };
    }
    work.spend(text.len() - at)
}

fn cards(text: &str, found: &mut Found, work: &mut Work) -> Result<(), Unreadable> {
    numbers(text, &CARD, work, |run, work| {
        if run.digits < *CARD_DIGITS.start() {
            return Ok(());
        }
        cards_in(text, run.place, found, work)
    })
}

fn phones(text: &str, found: &mut Found, work: &mut Work) -> Result<(), Unreadable> {
    numbers(text, &PHONE, work, |run, work| {
        if run.digits < *PHONE_DIGITS.start() {
            return Ok(());
        }
        let mut number = run.place;
        work.spend(4 * number.len())?;
        // A date in front is none of it.
        if let Some(rest) = after_date(&text[number.clone()]) {
            number.start += rest;
        }
        let candidate = &text[number.clone()];
        let count = candidate.chars().filter_map(digit).count();
        let is_solid = candidate.chars().all(is_digit);
        // Longer than any number, but in groups: several of them in a row.
        let are_several = count > *PHONE_DIGITS.end() && !is_solid && !is_card(candidate);
        let is_one = PHONE_DIGITS.contains(&count) && candidate.parse::<Ipv4Addr>().is_err();
        if is_one || are_several {
            // The sign or the bracket in front belongs to it.
            let before = text[..number.start].trim_end_matches(['+', '(']);
            work.spend(number.start - before.len())?;
            found.push(before.len()..number.end);
        }
        Ok(())
    })
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

fn addresses(text: &str, found: &mut Found, work: &mut Work) -> Result<(), Unreadable> {
    let bytes = text.as_bytes();
    let is_part = |byte: &&u8| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.');
    let mut at = 0;
    // No address is without one of these.
    while let Some(offset) = memchr2(b'.', b':', bytes.get(at..).unwrap_or_default()) {
        let sign = at + offset;
        let start = sign - bytes[at..sign].iter().rev().take_while(is_part).count();
        let end = sign + bytes[sign..].iter().take_while(is_part).count();
        let run = &text[start..end];
        work.spend(sign - at + 4 * run.len())?;
        at = end;
        let count = |sign| run.bytes().filter(|byte| *byte == sign).count();
        if count(b':') > 1 || count(b'.') > 2 {
            addresses_in(run, start, found);
        }
    }
    work.spend(text.len() - at)
}

/// The addresses in a run of what they are made of, which stands at `at`.
fn addresses_in(run: &str, at: usize, found: &mut Found) {
    // Around it a full stop or a colon is the sentence's; a port is not the address.
    let trimmed = run.trim_end_matches(['.', ':']);
    let bare = match trimmed.strip_prefix(':') {
        Some(rest) if !rest.starts_with(':') => rest,
        _ => trimmed,
    };
    let with_port = bare.rsplit_once(':').map(|(address, _)| address);
    let is_ipv6 = |candidate: &&str| candidate.len() > 2 && candidate.parse::<Ipv6Addr>().is_ok();
    if let Some(address) = [Some(bare), with_port].into_iter().flatten().find(is_ipv6) {
        let start = at + trimmed.len() - bare.len();
        found.push(start..start + address.len());
        return;
    }
    let mut from = at;
    for piece in run.split(':') {
        let address = piece.trim_matches('.');
        if address.parse::<Ipv4Addr>().is_ok() {
            let start = from + (piece.len() - piece.trim_start_matches('.').len());
            found.push(start..start + address.len());
        }
        from += piece.len() + 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(kinds: &[RedactionKind], text: &str) -> String {
        let mut masked = text.to_owned();
        let found = Finder::new(kinds).find(text, &mut Work::unlimited()).expect("within any limit");
        for range in found.into_iter().rev() {
            masked.replace_range(range, "***");
        }
        masked
    }

    const ALL: [RedactionKind; 4] =
        [RedactionKind::Email, RedactionKind::Phone, RedactionKind::Ip, RedactionKind::Card];

    #[test]
    fn each_kind_is_found_in_the_middle_of_a_sentence() {
        for (kind, text, expected) in [
            (RedactionKind::Email, "mail asha.rao+x@mail.example.co.uk, please", "mail ***, please"),
            (RedactionKind::Email, "<a@b.de>.", "<***>."),
            (RedactionKind::Email, "jürgen@müller.de und 张@例子.中国", "*** und ***"),
            (RedactionKind::Email, "mailto:a@b.example?x", "mailto:***?x"),
            (RedactionKind::Email, "mail a.b%40mail.example&x", "mail ***&x"),
            (RedactionKind::Phone, "call +1 (555) 059-9716 now", "call *** now"),
            (RedactionKind::Phone, "電話番号は03-1234-5678です", "電話番号は***です"),
            (RedactionKind::Phone, "номер89161234567", "номер***"),
            (RedactionKind::Phone, "اتصل على ٠٥٥١٢٣٤٥٦٧", "اتصل على ***"),
            (RedactionKind::Phone, "+1\u{a0}555\u{2011}059\u{2011}9716", "***"),
            (RedactionKind::Ip, "IP:203.0.113.69, face:10.0.0.1", "IP:***, face:***"),
            (RedactionKind::Ip, "ip=203.0.113.69..., at :2001:db8::1", "ip=***..., at :***"),
            (RedactionKind::Card, "我的卡号是4111111111111111。", "我的卡号是***。"),
            (RedactionKind::Card, "VISA4111111111111111, card-4111111111111111x", "VISA***, card-***x"),
            (RedactionKind::Card, "4111\u{a0}1111\u{a0}1111\u{a0}1111", "***"),
            (RedactionKind::Card, "4111 - 1111 - 1111 - 1111", "***"),
            (RedactionKind::Card, "4111.1111.1111.1111", "***"),
            (RedactionKind::Card, "４１１１　１１１１　１１１１　１１１１", "***"),
            (RedactionKind::Card, "٤١١١١١١١١١١١١١١١", "***"),
            (RedactionKind::Phone, "call +15550599716.", "call ***."),
            (RedactionKind::Phone, "(0711) 123456-78, ask for Al", "***, ask for Al"),
            (RedactionKind::Phone, "555-0123", "***"),
            (RedactionKind::Phone, "0711 1234567 0711 7654321", "***"),
            (RedactionKind::Phone, "tel:0049 711 1234567", "tel:***"),
            (RedactionKind::Ip, "from 203.0.113.69, port", "from ***, port"),
            (RedactionKind::Ip, "203.0.113.69:8080 and 2001:db8::1.", "***:8080 and ***."),
            (RedactionKind::Ip, "[::ffff:203.0.113.69]", "[***]"),
            (RedactionKind::Card, "4111 1111 1111 1111 exp 12/30", "*** exp 12/30"),
            (RedactionKind::Card, "it's 4111111111111111!", "it's ***!"),
            (RedactionKind::Card, "3782-822463-10005", "***"),
            (RedactionKind::Card, "cards 4111111111111111 5555555555554444", "cards *** ***"),
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
            let kinds: &[RedactionKind] =
                if text.contains("no card") { &[RedactionKind::Card] } else { &ALL };
            assert_eq!(masked(kinds, text), text);
        }
    }

    #[test]
    fn a_kind_that_is_off_is_not_looked_for() {
        let text = "a@b.example; 203.0.113.69; 4111111111111111; +15550599716";
        assert_eq!(masked(&[], text), text);
        assert_eq!(masked(&[RedactionKind::Phone], text), "a@b.example; 203.0.113.69; 4111111111111111; ***");
        assert_eq!(masked(&ALL, text), "***; ***; ***; ***");
    }
}
