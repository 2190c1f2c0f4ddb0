//! What is wrong with a configuration, and the paths of its keys.

use std::cell::RefCell;
use std::fmt;

/// Something wrong with the configuration: `path.to.key: what is wrong`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConfigFault {
    pub path: String,
    pub problem: String,
}

impl fmt::Display for ConfigFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// All faults of one reading, in the order they were found.
///
/// One wrong thing is one fault: a key has one at most, and one that is in a table or a list that could not be
/// read has none. What depends on the values of several keys is checked where all of them are known
/// ([`Faults::cover`]).
#[derive(Default)]
pub struct Faults(RefCell<Vec<Found>>);

struct Found {
    fault: ConfigFault,
    /// Another fault says more of the same.
    is_explained: bool,
}

impl Faults {
    pub fn report(&self, path: impl Into<String>, problem: impl Into<String>) {
        let (path, problem) = (path.into(), problem.into());
        if !self.cover(&path) {
            self.0.borrow_mut().push(Found { fault: ConfigFault { path, problem }, is_explained: false });
        }
    }

    /// Whether a key, or a table or list that it is in, has a fault: then its value is none.
    pub fn cover(&self, path: &str) -> bool {
        self.0.borrow().iter().any(|Found { fault, .. }| fault.path == path || is_below(path, &fault.path))
    }

    /// Whether a table, or anything in it, has a fault.
    pub fn touch(&self, path: &str) -> bool {
        self.cover(path) || self.0.borrow().iter().any(|found| is_below(&found.fault.path, path))
    }

    /// The fault of a key is not shown: another one says why it is there.
    pub fn explain(&self, path: &str) {
        for found in self.0.borrow_mut().iter_mut().filter(|found| found.fault.path == path) {
            found.is_explained = true;
        }
    }

    pub fn into_vec(self) -> Vec<ConfigFault> {
        let found = self.0.into_inner().into_iter();
        found.filter(|found| !found.is_explained).map(|found| found.fault).collect()
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
