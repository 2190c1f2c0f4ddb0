//! The log: what is written, in which form, and where to (`[log]`).

use std::path::PathBuf;

use super::section::Section;

/// What a level may be.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

#[derive(Debug)]
pub struct Log {
    /// `tracing_subscriber::EnvFilter` syntax, checked.
    pub level: String,
    pub format: LogFormat,
    pub access: bool,
    /// Whether an access line has its caller's address.
    pub address: bool,
    pub access_to: LogTo,
}

/// Where access lines go.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LogTo {
    Stdout,
    File(PathBuf),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    Json,
    Text,
}

impl Log {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let level: String = section.required("level");
        if let Err(problem) = check_level(&level) {
            section.report("level", format!("is {level:?}: {problem}"));
        }
        let format = section.one_of("format", &[("json", LogFormat::Json), ("text", LogFormat::Text)], None);
        let to: String = section.required("access_to");
        let access_to = if to == "stdout" { LogTo::Stdout } else { LogTo::File(to.clone().into()) };
        if let LogTo::File(path) = &access_to
            && !path.is_absolute()
        {
            section
                .report("access_to", format!("is {to:?}; it is \"stdout\" or the absolute path of a file"));
        }
        let (access, address) = (section.required("access"), section.required("address"));
        let log = Self { level, format, access, address, access_to };
        section.close();
        log
    }
}

/// A filter takes any word for the name of a module, and one that is none for a filter that lets nothing
/// through. So a word alone has to be a level.
fn check_level(filter: &str) -> Result<(), String> {
    let expected = format!("it is one of {}, or directives such as kore_gateway=debug", LEVELS.join(", "));
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    let is_directive = |word: &str| word.contains(['=', '[']) && !word.ends_with('=');
    let words = || filter.split(',').map(str::trim).filter(|word| !word.is_empty());
    if let Some(unknown) = words().find(|word| !is_level(word) && !is_directive(word)) {
        return Err(format!("{unknown:?} is no level; {expected}"));
    }
    if words().next().is_none() {
        return Err(expected);
    }
    tracing_subscriber::EnvFilter::try_new(filter).map(drop).map_err(|error| format!("{error}; {expected}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for good in
            ["info", "WARN", "off", "info,kore_gateway=debug", "warn,[span]=debug", "kore_gateway=trace"]
        {
            assert_eq!(check_level(good), Ok(()), "{good}");
        }
        for wrong in [
            "warning",
            "infos",
            "verbose",
            "info,kore_gateway",
            "kore_gateway=warning",
            "info;debug",
            "3x",
            ",",
        ] {
            let problem = check_level(wrong).unwrap_err();
            assert!(problem.contains("warn"), "{wrong}: {problem}");
        }
    }
}
