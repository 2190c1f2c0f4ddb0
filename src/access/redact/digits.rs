//! Numbers as people write them: runs of digits with signs between them, and the payment cards among them.

use std::ops::{Range, RangeInclusive};

use super::Unreadable;
use super::work::Work;

/// Digits of a payment card's number (ISO/IEC 7812).
pub const CARD_DIGITS: RangeInclusive<usize> = 13..=19;
/// Digits of a telephone number: the longest by E.164, the shortest that is no year, price or time.
pub const PHONE_DIGITS: RangeInclusive<usize> = 7..=15;

/// How numbers are written.
pub struct Spelling {
    /// What may stand between digits, beside spaces and hyphens of all kinds.
    is_sign: fn(char) -> bool,
    /// So many of them in a row.
    most_signs: usize,
    /// Not as a part of a name: `a1`, `1a` and `a-1` are none.
    stands_alone: bool,
}

pub const CARD: Spelling = Spelling { is_sign: |c| c == '.', most_signs: 3, stands_alone: false };
pub const PHONE: Spelling =
    Spelling { is_sign: |c| matches!(c, '.' | '/' | '(' | ')'), most_signs: 2, stands_alone: true };

/// The zeros of scripts beside ASCII that people type numbers in: Arabic, Persian, Devanagari, and the wide ones
/// of East Asia.
const ZEROS: [char; 4] = ['\u{660}', '\u{6f0}', '\u{966}', '\u{ff10}'];

/// Whether a digit may begin with such a byte.
static MAY_BEGIN_DIGIT: [bool; 256] = {
    let mut table = [false; 256];
    let mut digit = b'0';
    while digit <= b'9' {
        table[digit as usize] = true;
        digit += 1;
    }
    let mut script = 0;
    while script < ZEROS.len() {
        // All ten digits of a script begin with the same byte.
        let mut spelled = [0; 4];
        ZEROS[script].encode_utf8(&mut spelled);
        table[spelled[0] as usize] = true;
        script += 1;
    }
    table
};

/// A decimal digit's value.
pub fn digit(c: char) -> Option<u32> {
    if c.is_ascii() {
        return c.to_digit(10);
    }
    let offset = |zero: char| u32::from(c).checked_sub(zero.into()).filter(|digit| *digit < 10);
    ZEROS.into_iter().find_map(offset)
}

pub fn is_digit(c: char) -> bool {
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

/// Where the next digit at or after `from` is.
fn next_digit(text: &str, from: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|byte| MAY_BEGIN_DIGIT[usize::from(*byte)])?;
        let c = text.get(at..)?.chars().next()?;
        if is_digit(c) {
            return Some(at);
        }
        at += c.len_utf8();
    }
}

/// Digits with signs between them, as they stand between other characters.
pub struct Run {
    pub place: Range<usize>,
    pub digits: usize,
}

/// Takes all runs of a text to `each`.
pub fn numbers(
    text: &str,
    spelling: &Spelling,
    work: &mut Work,
    mut each: impl FnMut(Run, &mut Work) -> Result<(), Unreadable>,
) -> Result<(), Unreadable> {
    let mut at = 0;
    while let Some(start) = next_digit(text, at) {
        work.spend(start - at)?;
        let (mut end, mut digits, mut since_digit) = (start, 0, 0);
        for (offset, c) in text[start..].char_indices() {
            if is_digit(c) {
                since_digit = 0;
                digits += 1;
                end = start + offset + c.len_utf8();
            } else if since_digit < spelling.most_signs && (is_gap(c) || (spelling.is_sign)(c)) {
                since_digit += 1;
            } else {
                break;
            }
        }
        work.spend(end - start + spelling.most_signs + 1)?;
        at = end;
        if !(spelling.stands_alone && is_in_a_name(text, start..end)) {
            each(Run { place: start..end, digits }, work)?;
        }
    }
    work.spend(text.len() - at)
}

fn is_in_a_name(text: &str, place: Range<usize>) -> bool {
    // Of ASCII only: other scripts put no space between a word and a number.
    let is_joined = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let before = text[..place.start].chars().next_back();
    let after = text[place.end..].chars().next();
    before.is_some_and(is_joined)
        || after.is_some_and(is_joined)
        || before == Some('-') && text[..place.start - 1].ends_with(is_joined)
}

/// One digit of a run, and the sums of ISO/IEC 7812-1's check up to it.
#[derive(Clone, Copy, Default)]
struct Digit {
    place: (usize, usize),
    begins_group: bool,
    ends_group: bool,
    /// With every second digit doubled: those at even, and those at odd places.
    sums: [u32; 2],
}

/// The digits ahead of the place that is looked at, at most as many as a card's number has.
#[derive(Default)]
struct Ahead {
    /// A ring: digit `n` of the run is at `n % RING`.
    digits: [Digit; RING],
    first: usize,
    end: usize,
    /// The sums of the digit before `first`.
    before: [u32; 2],
}

/// More than a card's digits.
const RING: usize = 32;

impl Ahead {
    fn len(&self) -> usize {
        self.end - self.first
    }

    fn get(&self, n: usize) -> &Digit {
        &self.digits[n % RING]
    }

    fn push(&mut self, place: (usize, usize), value: u32) {
        let last = (self.len() > 0).then(|| (self.end - 1) % RING);
        let mut sums = last.map_or(self.before, |last| self.digits[last].sums);
        let doubled = if value > 4 { 2 * value - 9 } else { 2 * value };
        sums[self.end % 2] += doubled;
        sums[1 - self.end % 2] += value;
        let begins_group = last.is_none_or(|last| {
            let last = &mut self.digits[last];
            last.ends_group = last.place.1 != place.0;
            last.ends_group
        });
        self.digits[self.end % RING] = Digit { place, begins_group, ends_group: true, sums };
        self.end += 1;
    }

    fn pop(&mut self, count: usize) {
        let last = self.get(self.first + count - 1);
        self.before = last.sums;
        self.first += count;
    }

    /// Whether the first so many are whole groups with a right check digit at the end.
    fn is_card(&self, count: usize) -> bool {
        let last = self.first + count - 1;
        // The last digit counts as it is, the one before it twice.
        let doubled = 1 - last % 2;
        let sum = self.get(last).sums[doubled] - self.before[doubled];
        self.get(last).ends_group && sum.is_multiple_of(10)
    }
}

/// The cards' numbers in one run: a row of numbers may hold one, from the start of a group to the end of one.
pub fn cards_in(
    text: &str,
    run: Range<usize>,
    found: &mut Vec<Range<usize>>,
    work: &mut Work,
) -> Result<(), Unreadable> {
    let start = run.start;
    let places = text[run].char_indices().map(|(at, c)| (start + at, c));
    let mut more = places.filter_map(|(at, c)| Some(((at, at + c.len_utf8()), digit(c)?)));
    let mut ahead = Ahead::default();
    loop {
        // One more than a card has: only then it is known whether the last of them ends a group.
        while ahead.len() <= *CARD_DIGITS.end()
            && let Some((place, value)) = more.next()
        {
            work.spend(place.1 - place.0 + 1)?;
            ahead.push(place, value);
        }
        if ahead.len() == 0 {
            return Ok(());
        }
        let first = *ahead.get(ahead.first);
        let card = if first.begins_group {
            work.spend(CARD_DIGITS.count())?;
            CARD_DIGITS.take_while(|length| *length <= ahead.len()).find(|length| ahead.is_card(*length))
        } else {
            None
        };
        if let Some(length) = card {
            found.push(first.place.0..ahead.get(ahead.first + length - 1).place.1);
        }
        ahead.pop(card.unwrap_or(1));
    }
}

pub fn is_card(text: &str) -> bool {
    let digits = || text.chars().filter_map(digit);
    if !CARD_DIGITS.contains(&digits().count()) {
        return false;
    }
    let mut all = Ahead::default();
    digits().enumerate().for_each(|(at, value)| all.push((at, at + 1), value));
    all.is_card(all.end)
}
