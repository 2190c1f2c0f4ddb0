//! Sets of bots (`bots`).

use super::section::Section;
use crate::routes::ids;

/// A set of bots: some, or any.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bots {
    Any,
    These(Vec<String>),
}

impl Bots {
    pub fn include(&self, bot: &str) -> bool {
        match self {
            Self::Any => true,
            Self::These(bots) => bots.iter().any(|known| known == bot),
        }
    }

    /// The bot, if there is exactly one.
    pub fn only(&self) -> Option<&str> {
        match self {
            Self::These(bots) if bots.len() == 1 => bots.first().map(String::as_str),
            _ => None,
        }
    }
}

impl Bots {
    /// `["*"]` or a list of bot ids.
    pub(super) fn read(section: &mut Section<'_>) -> Self {
        let list = section.required("bots");
        Self::of(section, list)
    }

    /// The same, or any if it is left out.
    pub(super) fn read_or_any(section: &mut Section<'_>) -> Self {
        match section.optional("bots") {
            Some(list) => Self::of(section, list),
            None => Self::Any,
        }
    }

    fn of(section: &Section<'_>, list: Vec<String>) -> Self {
        match &list[..] {
            [any] if any == "*" => return Self::Any,
            [] => section.report("bots", r#"is empty; it is ["*"] or a list of ids"#),
            list => {
                let problem = |bot: &String| {
                    let expected = ids::stream(bot).err()?;
                    Some(format!("{bot:?} is no bot id: {expected}, or [\"*\"] alone for any"))
                };
                section.report_all("bots", &list.iter().filter_map(problem).collect::<Vec<_>>());
            }
        }
        Self::These(list)
    }
}
