//! One walk over a JSON text that copies what may be shown.
//!
//! The text has been checked to be JSON before; the walk still fails rather than guesses where it
//! finds another thing than it looks for.

use std::borrow::Cow;

use memchr::memchr2;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::escapes::{Spelling, unescaped};
use super::{MASK, Node, Projection, Rule, Unreadable, Work};
use crate::config::Bots;
use crate::json::Object;

/// How deep an answer may be nested. The vendor's have some ten levels.
const DEEPEST: usize = 128;

pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    shown: Vec<u8>,
    projection: &'a Projection,
    work: &'a mut Work,
    /// An answer of the route's own shape, not an error.
    is_whole: bool,
    /// Whether there was a list of rows, where rows are chosen.
    pub(super) has_rows: bool,
    /// Rows shown, and where in `shown` their number belongs.
    rows: usize,
    counts: Vec<usize>,
}

/// The list of rows at the top of a window, and the number of them, in lower case.
pub(super) const ROWS: &str = "data";
const COUNT: &str = "numresults";

type Step = Result<(), Unreadable>;

/// What is to be done with a member.
struct Member {
    rule: Rule,
    /// It is the number of rows.
    is_count: bool,
    is_hidden: bool,
}

impl<'a> Scan<'a> {
    /// `whole`: an answer of the route's own shape, not an error.
    pub(super) fn new(
        body: &'a [u8],
        projection: &'a Projection,
        work: &'a mut Work,
        whole: bool,
    ) -> Result<Self, Unreadable> {
        work.spend(body.len())?;
        let text = std::str::from_utf8(body).map_err(|_| Unreadable::NotJson)?;
        serde_json::from_str::<IgnoredAny>(text).map_err(|_| Unreadable::NotJson)?;
        Ok(Self {
            text,
            at: 0,
            shown: Vec::with_capacity(body.len()),
            projection,
            work,
            is_whole: whole,
            has_rows: false,
            rows: 0,
            counts: Vec::new(),
        })
    }

    pub(super) fn document(&mut self) -> Result<Vec<u8>, Unreadable> {
        self.spaces();
        self.show(0);
        self.value(&[&self.projection.root], false, 0)?;
        let end = self.at;
        self.spaces();
        self.show(end);
        Ok(self.counted())
    }

    /// What is shown, with the number of rows wherever that belongs.
    fn counted(&mut self) -> Vec<u8> {
        let shown = std::mem::take(&mut self.shown);
        if self.counts.is_empty() {
            return shown;
        }
        let number = self.rows.to_string().into_bytes();
        let mut counted = Vec::with_capacity(shown.len() + self.counts.len() * number.len());
        let mut from = 0;
        for place in std::mem::take(&mut self.counts) {
            counted.extend_from_slice(shown.get(from..place).unwrap_or_default());
            counted.extend_from_slice(&number);
            from = place;
        }
        counted.extend_from_slice(shown.get(from..).unwrap_or_default());
        counted
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Step {
        if self.peek() != Some(byte) {
            return Err(Unreadable::NotJson);
        }
        self.at += 1;
        Ok(())
    }

    fn spaces(&mut self) {
        while self.peek().is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Copies what was walked over since `from`.
    fn show(&mut self, from: usize) {
        self.shown.extend_from_slice(self.text.as_bytes().get(from..self.at).unwrap_or_default());
    }

    /// Copies one value, as far as it may be shown. `nodes` are the places it is at, `is_text` says
    /// whether its strings are searched.
    fn value(&mut self, nodes: &[&'a Node], is_text: bool, depth: usize) -> Step {
        if nodes.is_empty() && !is_text {
            let start = self.at;
            self.skip(depth)?;
            self.show(start);
            return Ok(());
        }
        match self.peek() {
            Some(b'{') => self.container(b'}', nodes, is_text, depth),
            Some(b'[') => self.container(b']', nodes, is_text, depth),
            Some(b'"') if is_text => self.free_text(),
            Some(b'0'..=b'9') if is_text => self.number(depth),
            _ => {
                let start = self.at;
                self.skip(depth)?;
                self.show(start);
                Ok(())
            }
        }
    }

    /// What the projection says of a member of a container that ends with `end`. `nodes` are the places the container
    /// is at, `below` those of the member.
    fn member(&self, name: Option<&str>, end: u8, nodes: &[&Node], below: &[&Node], depth: usize) -> Member {
        let has_place = |node: &&Node| name.is_some_and(|name| node.named.contains_key(name));
        let is_unlisted = self.is_whole
            && end == b'}'
            && nodes.iter().any(|node| node.is_listed)
            && !nodes.iter().any(has_place);
        let rule = below.iter().map(|node| node.rule).max().unwrap_or_default();
        let chooses_rows = depth == 0 && self.projection.rows.is_some();
        let is_count = chooses_rows && name == Some(COUNT);
        // Whatever else the vendor may come to say of a window, it would say of everybody's rows.
        let is_foreign = chooses_rows && self.is_whole && !is_count && name != Some(ROWS);
        Member { rule, is_count, is_hidden: rule == Rule::Remove || is_foreign || is_unlisted }
    }

    /// A container is its members between commas, each with the spaces around it: those that may
    /// be shown, joined by commas again.
    fn container(&mut self, end: u8, nodes: &[&'a Node], is_text: bool, depth: usize) -> Step {
        if depth >= DEEPEST {
            return Err(Unreadable::TooDeep);
        }
        let holds_rows = |node: &&Node| node.any.as_ref().is_some_and(|any| any.is_row);
        self.has_rows |= end == b']' && nodes.iter().any(holds_rows);
        let start = self.at;
        self.at += 1;
        self.show(start);
        let start = self.at;
        self.spaces();
        if self.peek() == Some(end) {
            self.at += 1;
            self.show(start);
            return Ok(());
        }
        self.at = start;
        let (mut is_first, mut index) = (true, 0_usize);
        loop {
            let start = self.at;
            self.spaces();
            let is_named = depth == 0 || nodes.iter().any(|node| !node.named.is_empty());
            let name = if end == b'}' { self.name(is_named)? } else { is_named.then(|| index.to_string()) };
            self.work.spend(1 + nodes.len())?;
            let below: Vec<&Node> = match &name {
                Some(name) => nodes.iter().flat_map(|node| node.below(name)).collect(),
                // A name that is no text matches what any name does.
                None => nodes.iter().filter_map(|node| node.any.as_deref()).collect(),
            };
            let Member { rule, is_count, is_hidden } =
                self.member(name.as_deref(), end, nodes, &below, depth);
            if !is_hidden && self.is_own(&below, depth)? {
                if !is_first {
                    self.shown.push(b',');
                }
                is_first = false;
                self.show(start);
                if rule == Rule::Mask {
                    self.mask(depth)?;
                } else if is_count {
                    self.skip(depth)?;
                    self.counts.push(self.shown.len());
                } else {
                    let is_text = is_text || below.iter().any(|node| node.is_text);
                    let below: Vec<_> = below.into_iter().filter(|node| node.says_something()).collect();
                    self.value(&below, is_text, depth + 1)?;
                }
                let start = self.at;
                self.spaces();
                self.show(start);
            } else {
                self.skip(depth)?;
                self.spaces();
            }
            index += 1;
            if self.peek() == Some(b',') {
                self.at += 1;
                continue;
            }
            let start = self.at;
            self.expect(end)?;
            self.show(start);
            return Ok(());
        }
    }

    /// A member's name in lower case, if it is needed, and the way to its value.
    fn name(&mut self, is_needed: bool) -> Result<Option<String>, Unreadable> {
        let start = self.at;
        self.string()?;
        let raw = self.text.get(start..self.at).ok_or(Unreadable::NotJson)?;
        self.spaces();
        self.expect(b':')?;
        self.spaces();
        if !is_needed {
            return Ok(None);
        }
        self.work.spend(2 * raw.len())?;
        Ok(serde_json::from_str::<Cow<'_, str>>(raw).ok().map(|name| name.to_lowercase()))
    }

    /// Whether the value ahead is no row, or a row of one's own.
    fn is_own(&mut self, nodes: &[&Node], depth: usize) -> Result<bool, Unreadable> {
        let Some(bots) = self.projection.rows.as_ref().filter(|_| nodes.iter().any(|node| node.is_row))
        else {
            return Ok(true);
        };
        let start = self.at;
        self.skip(depth)?;
        let row = self.text.get(start..self.at).ok_or(Unreadable::NotJson)?;
        self.at = start;
        self.work.spend(row.len())?;
        let is_own = is_row_of(row, bots);
        self.rows += usize::from(is_own);
        Ok(is_own)
    }

    /// In place of a string another one, in place of anything else `null`.
    fn mask(&mut self, depth: usize) -> Step {
        let is_string = self.peek() == Some(b'"');
        self.skip(depth)?;
        if is_string {
            self.shown.extend_from_slice(format!("\"{MASK}\"").as_bytes());
        } else {
            self.shown.extend_from_slice(b"null");
        }
        Ok(())
    }

    /// A string that is searched for kinds. What is not found stays as it is spelled.
    fn free_text(&mut self) -> Step {
        let start = self.at;
        self.string()?;
        let raw = self.text.get(start + 1..self.at - 1).ok_or(Unreadable::NotJson)?;
        let text = unescaped(raw);
        let found = self.projection.finder.find(&text, self.work)?;
        if matches!(text, Cow::Owned(_)) {
            // Written as text, and looked up in how it is spelled.
            self.work.spend(2 * raw.len())?;
        }
        let (bytes, mut from) = (self.text.as_bytes(), start);
        let mut spelling = Spelling { raw, is_plain: matches!(text, Cow::Borrowed(_)), at: 0, text_at: 0 };
        for found in found {
            let first = start + 1 + spelling.place(found.start);
            self.shown.extend_from_slice(bytes.get(from..first).unwrap_or_default());
            self.shown.extend_from_slice(MASK.as_bytes());
            from = start + 1 + spelling.place(found.end);
        }
        self.show(from);
        Ok(())
    }

    /// A number where people write freely: a card's, perhaps.
    fn number(&mut self, depth: usize) -> Step {
        let start = self.at;
        self.skip(depth)?;
        let number = self.text.get(start..self.at).ok_or(Unreadable::NotJson)?;
        self.work.spend(3 * number.len())?;
        if self.projection.finder.finds_number(number) {
            self.shown.extend_from_slice(b"null");
        } else {
            self.show(start);
        }
        Ok(())
    }

    /// Over one string, quotes included.
    fn string(&mut self) -> Step {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = self.text.as_bytes().get(self.at..).ok_or(Unreadable::NotJson)?;
            let sign = memchr2(b'"', b'\\', rest).ok_or(Unreadable::NotJson)?;
            self.at += sign + 1;
            if rest.get(sign) == Some(&b'"') {
                return self.work.spend(self.at - start);
            }
            self.at += 1;
        }
    }

    /// Over one value, whatever is in it.
    fn skip(&mut self, depth: usize) -> Step {
        let mut open = 0_usize;
        loop {
            self.work.spend(1)?;
            match self.peek() {
                Some(b'"') => self.string()?,
                Some(b'{' | b'[') => {
                    self.at += 1;
                    open += 1;
                    if depth + open > DEEPEST {
                        return Err(Unreadable::TooDeep);
                    }
                }
                Some(b'}' | b']') if open > 0 => {
                    self.at += 1;
                    open -= 1;
                }
                Some(b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') if open > 0 => self.at += 1,
                Some(b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n') | None => {
                    return Err(Unreadable::NotJson);
                }
                Some(_) => {
                    // A number or a word: up to the next sign.
                    while self.peek().is_some_and(|byte| {
                        byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')
                    }) {
                        self.at += 1;
                        self.work.spend(1)?;
                    }
                }
            }
            if open == 0 {
                return Ok(());
            }
        }
    }
}

#[derive(Deserialize)]
struct Row<'a> {
    #[serde(rename = "botId", borrow)]
    bot: Cow<'a, str>,
}

/// Only a row that names its bot, once, as one of these.
fn is_row_of(row: &str, bots: &Bots) -> bool {
    serde_json::from_str::<Object<Row<'_>>>(row).is_ok_and(|Object(row)| bots.include(&row.bot))
}
