//! The answers of the three APIs, one file each.

pub(super) mod conversation;
pub(super) mod conversation_details;
pub(super) mod interaction_details;
mod row;

use super::options::OverLimit;
use super::refusal::Refusal;
use super::wire::Request;

/// The one value of a query parameter; values are ids and numbers, so nothing is decoded.
fn parameter<'a>(request: &'a Request, name: &str) -> Result<Option<&'a str>, Refusal> {
    let mut values = request
        .query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(given, _)| *given == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::arguments(format!("{name} given twice"))),
    }
}

/// A query parameter that is a whole number.
fn number(request: &Request, name: &str) -> Result<Option<usize>, Refusal> {
    parameter(request, name)?
        .map(str::parse)
        .transpose()
        .map_err(|_| Refusal::arguments(format!("{name} is no number")))
}

/// A `limit`, and what strict mode says to it.
struct Limit {
    rows: usize,
    objection: Option<String>,
}

/// The limit that applies: `max` by default, at least 1.
fn limit(asked: Option<usize>, max: usize, over: OverLimit) -> Result<Limit, Refusal> {
    match (asked, over) {
        (Some(0), _) => Err(Refusal::arguments("limit 0")),
        (Some(asked), OverLimit::Refuse) if asked > max => {
            Err(Refusal::arguments(format!("limit {asked} above {max}")))
        }
        (Some(asked), OverLimit::Clamp) if asked > max => {
            Ok(Limit { rows: max, objection: Some(format!("arguments: limit {asked} above {max}")) })
        }
        (asked, _) => Ok(Limit { rows: asked.unwrap_or(max), objection: None }),
    }
}
