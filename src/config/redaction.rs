//! What is taken out of answers before some clients see them (`[redaction.<name>]`).

use std::sync::Arc;

use super::section::Section;
use super::setting::{Setting, text};

/// Where people write freely in the answers of the three routes. What is below these is searched
/// for kinds of data, unless a profile says where else.
const FREE_TEXT: [&str; 13] = [
    "/conversationHistory/*/components",
    "/conversationHistory/*/agentAssistDetails/userInput",
    "/summary",
    "/notes/*/note",
    "/keyIntentUserInput",
    "/dispositions/remarks",
    "/formData",
    "/userInfo/agentTransferConfig/lastIntentuserInput",
    "/data/*/lastIntentuserInput",
    "/data/*/metaInfo/agentTransferConfig/lastIntentuserInput",
    "/data/*/dispositionRemarks",
    "/data/*/csatFeedback",
    "/data/*/destinations/*/respondingAgent/agentNotes",
];

/// One profile. Clients name it in `redact`.
#[derive(Debug)]
pub struct Redaction {
    pub name: Arc<str>,
    /// Gone, name and value.
    pub remove: Vec<Pointer>,
    /// There, but without its value.
    pub mask: Vec<Pointer>,
    /// Shown although the vendor does not list it.
    pub show: Vec<Pointer>,
    /// Masked where they are found in free text.
    pub kinds: Vec<RedactionKind>,
    /// Where to look for them: strings here and below.
    pub text: Vec<Pointer>,
}

/// A JSON pointer (RFC 6901) in which `*` stands for every member or element.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pointer(pub Vec<Step>);

/// One step down.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Any,
    Name(String),
}

/// A kind of data that is known by its looks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RedactionKind {
    Email,
    Phone,
    Ip,
    /// A payment card's number.
    Card,
}

impl Redaction {
    pub(super) fn read_all(section: Section<'_>) -> Vec<Arc<Self>> {
        let profiles = section.named_sections().into_iter();
        profiles.map(|(name, section)| Arc::new(Self::read(name, section))).collect()
    }

    fn read(name: String, mut section: Section<'_>) -> Self {
        let redaction = Self {
            name: name.into(),
            remove: section.or("remove", Vec::new()),
            mask: section.or("mask", Vec::new()),
            show: section.or("show", Vec::new()),
            kinds: section.or("kinds", Vec::new()),
            text: section
                .optional("text")
                .unwrap_or_else(|| FREE_TEXT.iter().filter_map(|text| Pointer::parse(text)).collect()),
        };
        let is_empty = redaction.remove.is_empty() && redaction.mask.is_empty() && redaction.kinds.is_empty();
        if is_empty && section.is_known("mask") && section.is_known("kinds") {
            let problem = "is missing, and so are `mask` and `kinds`; this profile redacts nothing";
            section.report_missing("remove", &["mask", "kinds"], problem);
        }
        section.close();
        redaction
    }
}

impl Pointer {
    /// `None` for what is no pointer, and for the empty one: nobody asks for an answer to be shown
    /// no part of it.
    fn parse(text: &str) -> Option<Self> {
        let steps = text.strip_prefix('/')?.split('/').map(|token| match token {
            "*" => Some(Step::Any),
            token if token.replace("~0", "").replace("~1", "").contains('~') => None,
            token => Some(Step::Name(token.replace("~1", "/").replace("~0", "~"))),
        });
        steps.collect::<Option<Vec<_>>>().map(Self)
    }
}

impl Setting for Pointer {
    const EXPECTED: &'static str =
        r#"a JSON pointer, `*` for every element, for example "/data/*/customerinfo""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        let text = text::<Self>(value)?;
        Self::parse(&text).ok_or_else(|| format!("is {text:?}; it is {}", Self::EXPECTED))
    }

    fn placeholder() -> Self {
        Self(Vec::new())
    }
}

impl Setting for RedactionKind {
    const EXPECTED: &'static str = r#""email", "phone", "ip" or "card""#;

    fn read(value: toml::Value) -> Result<Self, String> {
        match value.as_str() {
            Some("email") => Ok(Self::Email),
            Some("phone") => Ok(Self::Phone),
            Some("ip") => Ok(Self::Ip),
            Some("card") => Ok(Self::Card),
            _ => Err(format!("is no kind; it is {}", Self::EXPECTED)),
        }
    }

    fn placeholder() -> Self {
        Self::Email
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_unescaped_and_a_star_is_any() {
        let name = |name: &str| Step::Name(name.to_owned());
        assert_eq!(
            Pointer::parse("/a/*/b~1c~0d/0"),
            Some(Pointer(vec![name("a"), Step::Any, name("b/c~d"), name("0"),]))
        );
        assert_eq!(Pointer::parse("/~01"), Some(Pointer(vec![name("~1")])));
        for wrong in ["", "a", "a/b", "/a~", "/a~2b"] {
            assert_eq!(Pointer::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_places_of_free_text_are_pointers() {
        assert!(FREE_TEXT.iter().all(|text| Pointer::parse(text).is_some()));
    }
}
