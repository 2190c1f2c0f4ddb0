//! The audit: what is written, and where to (`[audit]`).

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;

/// Where it is written down who was handed what.
#[derive(Debug)]
pub struct Audit {
    pub to: AuditTo,
    /// What cannot be written down is not handed out.
    pub refuse_on_failure: bool,
    /// A line counts as written when it is on the disk, not when the kernel has it.
    pub sync: bool,
    pub timeout: Duration,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AuditTo {
    Nowhere,
    Stdout,
    File(PathBuf),
}

impl Audit {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let to: String = section.required("to");
        let outcomes = [("serve", false), ("refuse", true)];
        let audit = Self {
            to: match to.as_str() {
                "off" => AuditTo::Nowhere,
                "stdout" => AuditTo::Stdout,
                path => AuditTo::File(path.into()),
            },
            refuse_on_failure: section.one_of("on_failure", &outcomes, None),
            sync: section.required("sync"),
            timeout: section.positive("timeout"),
        };
        if let AuditTo::File(path) = &audit.to
            && !path.is_absolute()
        {
            section
                .report("to", format!("is {to:?}; it is \"off\", \"stdout\" or the absolute path of a file"));
        }
        section.close();
        audit
    }
}
