//! A request's JSON body: read strictly, reported on in full, written back in one way.
//!
//! Canonical form follows RFC 8785 (JCS): members sorted, no white space, one spelling for a string
//! and for a number. Numbers keep all their digits (`routes::value`), and members are sorted by code
//! point: the form has to be the same for the same meaning, nobody else has to be able to compute it.

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

use super::names::{Names, Place};
use super::params::between;
use super::shown;
use super::value::{self, Number, Spellings, Value};
use crate::error::{Fault, MOST_FAULTS};

/// Of a canonical body.
const USUAL_LENGTH: usize = 128;

/// The members of a body. A route takes out what it knows, checks it and puts back the canonical
/// value; unknown members stay.
#[derive(Clone, Debug)]
pub struct Members {
    members: value::Members,
    /// Whether the canonical form leaves out a text, or spells a number in another way.
    pub drops_text: bool,
    pub faults: Vec<Fault>,
}

impl Members {
    /// Reads a body that is one JSON object, nested at most `max_depth` deep. Duplicate members are
    /// refused, wherever they are: parsers differ in which one counts. Names that are nearly one of
    /// `names` are faults.
    pub fn parse(body: &[u8], max_depth: usize, names: &Names) -> Self {
        let reader = Reader {
            max_depth,
            faults: RefCell::default(),
            spellings: RefCell::new(Spellings::of(body)),
            passed: Cell::new(0),
            is_respelling: Cell::new(false),
        };
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let place = Strict { reader: &reader, depth: 0, above: None };
        let value = place.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
        let mut faults = reader.faults.into_inner();
        let members = match value {
            Ok(Value::Object(members)) => members,
            Ok(_) => {
                faults.push(Fault::at_pointer("", "the body is not a JSON object"));
                value::Members::new()
            }
            Err(error) => {
                let detail = match foreign_encoding(body) {
                    Some(found) => format!("the body {found}"),
                    None => format!("the body is not JSON: {error}"),
                };
                faults.push(Fault::at_pointer("", detail));
                value::Members::new()
            }
        };
        for name in members.keys() {
            if let Some(misplaced) = names.misplaced(name, Place::Body)
                && faults.len() <= MOST_FAULTS
            {
                faults.push(fault(name, misplaced));
            }
        }
        Self { members, drops_text: reader.is_respelling.get(), faults }
    }

    /// Whether the body could be read; if not, missing members are no news.
    pub fn is_readable(&self) -> bool {
        self.faults.iter().all(|fault| fault.place != crate::error::Place::Pointer(String::new()))
    }

    pub fn fault(&mut self, name: &str, problem: impl fmt::Display) {
        self.faults.push(fault(name, problem));
    }

    pub fn has(&self, name: &str) -> bool {
        self.members.contains_key(name)
    }

    pub fn put(&mut self, name: &str, value: impl Into<Value>) {
        self.members.insert(name.to_owned(), value.into());
    }

    /// Takes out what is no part of the question.
    pub fn remove(&mut self, name: &str) {
        self.drops_text |= matches!(self.members.remove(name), Some(Value::String(_)));
    }

    fn ill_typed(&mut self, name: &str, expected: &str) {
        if let Some(value) = self.members.get(name) {
            let got = describe(value);
            self.fault(name, format_args!("is {got}; it is {expected}"));
        }
    }

    /// A string, if it is there and is one.
    pub fn string(&mut self, name: &str, expected: &str) -> Option<String> {
        match self.members.get(name)? {
            Value::String(text) => Some(text.clone()),
            _ => {
                self.ill_typed(name, expected);
                None
            }
        }
    }

    /// A boolean; written out with its default if it is left out.
    pub fn boolean(&mut self, name: &str, default: Option<bool>) -> Option<bool> {
        match self.members.get(name) {
            Some(Value::Bool(flag)) => return Some(*flag),
            Some(_) => self.ill_typed(name, "true or false"),
            None => {
                if let Some(default) = default {
                    self.put(name, default);
                }
                return default;
            }
        }
        None
    }

    /// A whole number within bounds.
    pub fn whole_number(&mut self, name: &str, least: u64, most: u64) -> Option<u64> {
        let value = self.members.get(name)?;
        let number = value.as_u64().filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.ill_typed(name, &between(least, most));
        }
        number
    }

    /// A set written as a list of strings: sorted, each once. An empty one goes if it means the
    /// same as none.
    pub fn set(&mut self, name: &str, empty_is_none: bool) {
        let Some(value) = self.members.get(name) else { return };
        let items: Option<Vec<&str>> =
            value.as_list().and_then(|items| items.iter().map(Value::as_str).collect());
        let Some(mut items) = items else {
            let expected = "a list of strings";
            let odd = value.as_list().and_then(|items| items.iter().position(|item| item.as_str().is_none()));
            return match odd.and_then(|at| Some((at, describe(value.as_list()?.get(at)?)))) {
                Some((at, got)) => {
                    let detail = format!("item {at} of `{name}` is {got}; it is {expected}");
                    self.faults.push(Fault::at_pointer(format!("/{name}/{at}"), detail));
                }
                None => self.ill_typed(name, expected),
            };
        };
        items.sort_unstable();
        items.dedup();
        if items.is_empty() && empty_is_none {
            self.remove(name);
        } else {
            let items = items.into_iter().map(|item| Value::String(item.to_owned())).collect();
            self.put(name, Value::List(items));
        }
    }

    /// The canonical form.
    pub fn canonical(&self) -> String {
        let mut json = String::with_capacity(USUAL_LENGTH);
        value::write_members(&self.members, &mut json);
        json
    }

    /// A number of minutes.
    pub fn minutes(&mut self, name: &str, least: i32, most: i32, expected: &str) -> Option<i32> {
        let value = self.members.get(name)?;
        let minutes = value.as_i64().and_then(|minutes| i32::try_from(minutes).ok());
        let minutes = minutes.filter(|minutes| (least..=most).contains(minutes));
        if minutes.is_none() {
            self.ill_typed(name, expected);
        }
        minutes
    }
}

fn fault(name: &str, problem: impl fmt::Display) -> Fault {
    let detail = format!("{} {problem}", shown(name).replace('"', "`"));
    Fault::at_pointer(format!("/{}", escaped(name)), detail)
}

/// A name as part of a pointer (RFC 6901).
fn escaped(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// What a value is, shown short, with its kind.
fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => format!("{flag}"),
        Value::Number(number) => format!("{number}"),
        Value::String(text) => format!("the string {}", shown(text)),
        Value::List(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

/// What stands in front of a body that is in no encoding of JSON's, or marked as if it were in one of several.
fn foreign_encoding(body: &[u8]) -> Option<&'static str> {
    match body {
        [0xEF, 0xBB, 0xBF, ..] => {
            Some("begins with a byte order mark (EF BB BF); send the same without it (RFC 8259, section 8.1)")
        }
        [0xFE, 0xFF, ..] | [0xFF, 0xFE, ..] | [0, _, ..] | [_, 0, ..] => {
            Some("is not in UTF-8 but in UTF-16 or UTF-32; JSON is sent in UTF-8 (RFC 8259, section 8.1)")
        }
        _ => None,
    }
}

struct Reader<'t> {
    max_depth: usize,
    faults: RefCell<Vec<Fault>>,
    /// The numbers of the body as they are spelled there, for those that a float would change.
    spellings: RefCell<Spellings<'t>>,
    /// How many numbers were read since the last one that was taken out of `spellings`.
    passed: Cell<usize>,
    /// Whether there was one that is not an integer of 64 bits.
    is_respelling: Cell<bool>,
}

impl Reader<'_> {
    /// Notes that an integer was read, whose spelling says nothing more.
    fn pass(&self) {
        self.passed.set(self.passed.get() + 1);
    }

    /// The number that is being read, exactly.
    fn spelled(&self) -> Option<Number> {
        let passed = self.passed.take();
        self.is_respelling.set(true);
        Number::from_json(self.spellings.borrow_mut().nth(passed)?)
    }

    /// Keeps one fault more than an answer lists, so that it is known that there are more.
    fn report(&self, fault: impl FnOnce() -> Fault) {
        let mut faults = self.faults.borrow_mut();
        if faults.len() <= MOST_FAULTS {
            faults.push(fault());
        }
    }
}

/// Reads one value strictly. Number spellings that mean the same become the same number here.
#[derive(Clone, Copy)]
struct Strict<'a, 't> {
    reader: &'a Reader<'t>,
    depth: usize,
    /// The value it is in, and its name or number there. Made into a pointer only for a fault.
    above: Option<(&'a Self, Token<'a>)>,
}

#[derive(Clone, Copy)]
enum Token<'a> {
    RouteName(&'a str),
    Index(usize),
}

impl<'a, 't> Strict<'a, 't> {
    fn below<'b>(&'b self, token: Token<'b>) -> Strict<'b, 't> {
        Strict { reader: self.reader, depth: self.depth + 1, above: Some((self, token)) }
    }

    /// RFC 6901.
    fn pointer(&self) -> String {
        match self.above {
            None => String::new(),
            Some((above, Token::RouteName(name))) => {
                format!("{}/{}", above.pointer(), escaped(name))
            }
            Some((above, Token::Index(index))) => format!("{}/{index}", above.pointer()),
        }
    }

    fn check_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        let most = self.reader.max_depth;
        if self.depth < most {
            Ok(())
        } else {
            Err(E::custom(format_args!("nested deeper than {most} levels")))
        }
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_, '_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        self.reader.pass();
        Ok(number.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        self.reader.pass();
        Ok(Value::Number(Number::Negative(number)))
    }

    /// The float has lost digits: the spelling counts.
    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Value, E> {
        let number = self.reader.spelled();
        number.map(Value::Number).ok_or_else(|| E::custom("a number with an exponent of more than 18 digits"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        self.check_depth()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self.below(Token::Index(list.len())))? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        self.check_depth::<A::Error>()?;
        let mut members = value::Members::new();
        while let Some(name) = entries.next_key::<String>()? {
            let place = self.below(Token::RouteName(&name));
            let value = entries.next_value_seed(place)?;
            if members.contains_key(&name) {
                self.reader.report(|| {
                    let pointer = place.pointer();
                    let detail =
                        format!("the member {} is there more than once; send it once", shown(&pointer));
                    Fault::at_pointer(pointer, detail)
                });
            }
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests;
