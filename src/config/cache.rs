//! What is stored, and how long (`[cache]`).

use std::time::Duration;

use super::section::Section;
use super::value::Size;
use crate::lifecycle::phase::Rule;
use crate::routes::{ROUTES, Route, RouteName};

#[derive(Debug)]
pub struct Cache {
    /// Bytes.
    pub capacity: u64,
    /// Ids.
    pub seen: u64,
    /// After a fill that failed, until the next one for the same answer.
    pub back_off: Duration,
    rules: [Rule; ROUTES.len()],
}

impl Cache {
    pub fn rule(&self, route: &Route) -> &Rule {
        &self.rules[route.name as usize]
    }
}

impl Cache {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let capacity = section.required::<Size>("capacity").0;
        let seen = section.required("seen");
        let back_off = section.required("back_off");
        let rules = ROUTES.each_ref().map(|route| {
            let mut section = section.section(route.name.as_str());
            let rule = Rule {
                settle: section.required("settle"),
                settled_ttl: section.required("settled_ttl"),
                over_ttl: section.required("over_ttl"),
                live_ttl: section.required("live_ttl"),
                summary_ttl: (route.name == RouteName::ConversationDetails)
                    .then(|| section.required("summary_ttl")),
                not_found_ttl: section.required("not_found_ttl"),
                stale_while_revalidate: section.required("stale_while_revalidate"),
                stale_if_error: section.required("stale_if_error"),
            };
            section.close();
            rule
        });
        section.close();
        Self { capacity, seen, back_off, rules }
    }
}
