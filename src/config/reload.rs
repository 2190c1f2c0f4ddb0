//! When changed files are taken up (`[reload]`), and what they cannot change.

use std::time::Duration;

use super::section::Section;
use super::{Config, ConfigFault};

/// When changed files are taken up.
#[derive(Clone, Copy, Debug)]
pub struct Reload {
    /// Zero: not by themselves.
    pub check_files_every: Duration,
}

impl Reload {
    pub(super) fn read(mut section: Section<'_>) -> Self {
        let reload = Self { check_files_every: section.required("check_files_every") };
        section.close();
        reload
    }
}

impl Config {
    /// What of `self` cannot take the place of `running` without a restart, as faults.
    pub fn needs_restart(&self, running: &Self) -> Vec<ConfigFault> {
        let (new, old) = (self, running);
        let fixed = [
            ("server.listen", new.server.listen == old.server.listen),
            ("server.share_port", new.server.share_port == old.server.share_port),
            ("server.workers", new.server.workers == old.server.workers),
            ("server.max_connections", new.server.max_connections == old.server.max_connections),
            (
                "server.max_connections_per_address",
                new.server.max_connections_per_address == old.server.max_connections_per_address,
            ),
            // The guard and the budget of bytes are made with the listener.
            ("server.max_head", new.server.max_head == old.server.max_head),
            ("server.max_target", new.server.max_target == old.server.max_target),
            ("server.max_fields", new.server.max_fields == old.server.max_fields),
            ("server.max_request_body", new.server.max_request_body == old.server.max_request_body),
            ("server.max_streams", new.server.max_streams == old.server.max_streams),
            ("server.header_timeout", new.server.header_timeout == old.server.header_timeout),
            ("server.idle_timeout", new.server.idle_timeout == old.server.idle_timeout),
            ("server.write_timeout", new.server.write_timeout == old.server.write_timeout),
            ("server.handshake_timeout", new.server.handshake_timeout == old.server.handshake_timeout),
            ("server.drain_timeout", new.server.drain_timeout == old.server.drain_timeout),
            ("ops.listen", new.ops.listen == old.ops.listen),
            ("log.level", new.log.level == old.log.level),
            ("log.format", new.log.format == old.log.format),
            ("limits.tracked_callers", new.callers.tracked == old.callers.tracked),
            ("cache.capacity", new.cache.capacity == old.cache.capacity),
            ("cache.seen", new.cache.seen == old.cache.seen),
            ("cache.back_off", new.cache.back_off == old.cache.back_off),
        ];
        let changed = fixed.into_iter().filter(|(_, same)| !same);
        let problem = "has changed, and only a restart can change it";
        changed.map(|(path, _)| ConfigFault { path: path.to_owned(), problem: problem.to_owned() }).collect()
    }
}
