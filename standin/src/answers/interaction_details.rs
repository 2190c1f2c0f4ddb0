//! E2: the rows of a window (contract §4).

use serde::Deserialize;

use super::super::Conversation;
use super::super::json::{Json, list, object};
use super::super::options::{NumResults, Offset, Range, Switches};
use super::super::refusal::Refusal;
use super::super::time::Written;
use super::super::wire::Request;
use super::{limit, number, row};

const LIMIT_MAX: usize = 100;
const OFFSET_MAX_PAGES: usize = 10;
const DAY_MS: i64 = 86_400_000;
const SECOND_MS: i64 = 1_000;
/// The widest offset on Earth is 14 h; documented values go to 11 h.
const OFFSET_MAX_MINUTES: i64 = 14 * 60;

/// A well-formed question.
pub(crate) struct Search {
    /// What strict mode says to it although it is answered.
    pub(crate) objection: Option<String>,
    from_ms: i64,
    /// Exclusive.
    until_ms: i64,
    limit: usize,
    offset: usize,
    body: Body,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    start_date: String,
    end_date: String,
    /// Minutes; east of GMT is negative.
    time_zone_offset: i64,
    #[serde(default)]
    channels: Vec<String>,
    #[serde(default)]
    queues: Vec<String>,
    #[serde(default)]
    bots: Vec<String>,
    #[serde(default)]
    selected_fields: Vec<String>,
    direction: Option<String>,
    /// In one sample only; what it does is not said. Checked, then ignored.
    #[serde(rename = "isAutomation")]
    _is_automation: Option<bool>,
}

impl Search {
    pub(crate) fn parse(request: &Request, switches: &Switches) -> Result<Search, Refusal> {
        let limit = limit(number(request, "limit")?, LIMIT_MAX, switches.over_limit)?;
        let offset = number(request, "offset")?.unwrap_or(0);
        if switches.offset == Offset::Pages && offset > OFFSET_MAX_PAGES {
            return Err(Refusal::arguments(format!("offset {offset} above 10 pages")));
        }
        let body: Body =
            serde_json::from_slice(&request.body).map_err(|error| Refusal::arguments(error.to_string()))?;
        if body.time_zone_offset.abs() > OFFSET_MAX_MINUTES {
            return Err(Refusal::arguments("timeZoneOffset of no place on Earth"));
        }
        let known = ["Inbound", "Outbound", "Both"];
        let direction = body.direction.as_deref().unwrap_or("Both");
        if !known.contains(&direction) {
            return Err(Refusal::arguments(format!("direction {direction}")));
        }
        let (from_ms, until_ms) = window(&body, switches.range)?;
        Ok(Search { objection: limit.objection, from_ms, until_ms, limit: limit.rows, offset, body })
    }

    pub(crate) fn answer<'a>(
        &self,
        records: impl Iterator<Item = &'a Conversation>,
        switches: &Switches,
        now_ms: i64,
    ) -> Json {
        let mut found: Vec<&Conversation> =
            records.filter(|record| record.stage(now_ms).is_some() && self.matches(record)).collect();
        // Two lists put together: sessions without an agent forwards, then conversations
        // backwards in time.
        found.sort_by_key(|record| {
            let time = record.start_ms;
            (record.has_agent, if record.has_agent { -time } else { time })
        });
        let page = self.page(switches);
        let rows: Vec<Json> = found
            .iter()
            .skip(page)
            .take(self.limit)
            .map(|record| row::render(record, &self.rendering(), now_ms))
            .collect();
        let counted = match switches.num_results {
            NumResults::Page => rows.len(),
            NumResults::Total => found.len(),
        };
        answer_of(counted, rows)
    }

    /// How many rows come before this page.
    fn page(&self, switches: &Switches) -> usize {
        // A page that shares a row with its neighbour begins one row earlier, and so does each
        // one after it: rows are repeated, none is lost.
        let repeated = usize::from(switches.repeat_rows && self.offset > 0);
        match switches.offset {
            Offset::Documents => self.offset - repeated,
            Offset::Pages => self.offset * (self.limit - repeated.min(self.limit - 1)),
        }
    }

    fn matches(&self, record: &Conversation) -> bool {
        let body = &self.body;
        let any = |filter: &[String], value: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.trim() == value.trim())
        };
        (self.from_ms..self.until_ms).contains(&record.start_ms)
            && any(&body.channels, &record.channel)
            && any(&body.bots, &record.stream)
            // A session without an agent never entered a queue.
            && (body.queues.is_empty() || record.has_agent && any(&body.queues, &record.queue_id))
            && match body.direction.as_deref() {
                None | Some("Both") => true,
                Some(direction) => direction == record.direction,
            }
    }

    fn rendering(&self) -> row::Rendering<'_> {
        row::Rendering {
            offset_minutes: self.body.time_zone_offset,
            selected_fields: &self.body.selected_fields,
        }
    }
}

/// `{numResults, data}`.
fn answer_of(counted: usize, rows: Vec<Json>) -> Json {
    let counted = i64::try_from(counted).unwrap_or(i64::MAX);
    object([("numResults", counted.into()), ("data", list(rows))])
}

/// One row, of somebody else.
pub(crate) fn of_somebody_else(record: &Conversation, now_ms: i64) -> Json {
    let rendering = row::Rendering { offset_minutes: 0, selected_fields: &[] };
    answer_of(1, vec![row::render(record, &rendering, now_ms)])
}

/// The effective window, from and until (exclusive), in Unix milliseconds.
fn window(body: &Body, range: Range) -> Result<(i64, i64), Refusal> {
    let written = |name: &str, text: &str| {
        Written::parse(text).ok_or_else(|| Refusal::arguments(format!("{name} {text:?}")))
    };
    let start = written("startDate", &body.start_date)?;
    let end = written("endDate", &body.end_date)?;
    let offset = body.time_zone_offset;
    let (from_ms, end_ms) = (start.begin_ms(offset), end.begin_ms(offset));
    // A day as the end is meant whole; a moment includes its own second, as rows show seconds.
    let (until_ms, effective_ms) = match end {
        Written::Day(_) => (end_ms + DAY_MS, end_ms + DAY_MS - from_ms),
        Written::Moment(_) => (end_ms + SECOND_MS, end_ms - from_ms),
    };
    if until_ms <= from_ms {
        return Err(Refusal::arguments("endDate before startDate"));
    }
    let judged_ms = match range {
        Range::SevenDays => effective_ms,
        Range::EightDates => end_ms - from_ms,
    };
    if judged_ms > 7 * DAY_MS {
        return Err(Refusal::arguments("a window of more than seven days"));
    }
    Ok((from_ms, until_ms))
}
