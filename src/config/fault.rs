//! What is wrong with a configuration, and the paths of its keys.

use std::cell::RefCell;
use std::fmt;

/// Something wrong with the configuration: `path.to.key: what is wrong`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    pub path: String,
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// All faults of one reading, in the order they were found.
#[derive(Default)]
pub struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub fn report(&self, path: impl Into<String>, problem: impl Into<String>) {
        self.0.borrow_mut().push(Fault { path: path.into(), problem: problem.into() });
    }

    pub fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}

/// The path of a key below another. A key that TOML has to quote is quoted, so that every path is one line
/// and none is empty.
pub fn join(path: &str, key: &str) -> String {
    let is_bare = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let dot = if path.is_empty() { "" } else { "." };
    if !key.is_empty() && key.bytes().all(is_bare) {
        format!("{path}{dot}{key}")
    } else {
        format!("{path}{dot}{key:?}")
    }
}

/// Whether a path is of something in the table or list that another is of.
pub fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '[']))
}
