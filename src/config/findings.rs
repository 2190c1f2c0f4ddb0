//! What `check` finds beside the faults of the text: files that `serve` could not write to, a certificate that no
//! caller accepts, and what can be meant but looks wrong.

use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Access, access};

use super::{AuditTo, Config, ConfigFault, LogTo};
use crate::clock::UnixMillis;

/// A certificate that is valid for less than this should have been renewed already.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 86_400);

impl Config {
    /// The files that could not be opened for writing. Makes none of them.
    pub fn unwritable(&self) -> Vec<ConfigFault> {
        let log = match &self.log.access_to {
            LogTo::File(path) if self.log.access => Some(("log.access_to", path)),
            _ => None,
        };
        let audit = match &self.audit.to {
            AuditTo::File(path) => Some(("audit.to", path)),
            _ => None,
        };
        let files = log.into_iter().chain(audit);
        files
            .filter_map(|(key, path)| {
                let error = writable(path).err()?;
                Some(ConfigFault { path: key.to_owned(), problem: format!("cannot be written: {error}") })
            })
            .collect()
    }

    /// The certificate, if it has expired at `now`. `check` refuses it, where it costs nothing yet. `serve` takes it:
    /// with such a certificate some callers are still served, and a reload may bring what has nothing to do with it.
    pub fn expired_certificate(&self, now: UnixMillis) -> Option<ConfigFault> {
        let not_after = self.server.tls.as_ref()?.not_after();
        let problem = format!("has expired at {}; callers refuse it", date(not_after));
        (not_after <= now).then(|| ConfigFault { path: "server.tls.cert".to_owned(), problem })
    }

    fn expiring_certificate(&self, now: UnixMillis) -> Option<ConfigFault> {
        let not_after = self.server.tls.as_ref()?.not_after();
        let problem = format!("expires at {}, in less than 14 days; renew it", date(not_after));
        let is_soon = now < not_after && not_after.since(now) < RENEWED_BEFORE;
        is_soon.then(|| ConfigFault { path: "server.tls.cert".to_owned(), problem })
    }

    /// What works, and is hardly meant, at `now`.
    pub fn warnings(&self, now: UnixMillis) -> Vec<ConfigFault> {
        let bases = self.accounts.iter().enumerate().flat_map(|(number, account)| {
            let urls = [
                ("contact_center_url", &account.contact_center_url),
                ("automation_url", &account.automation_url),
            ];
            urls.into_iter().filter(|(_, url)| has_path(url)).map(move |(key, _)| ConfigFault {
                path: format!("accounts[{number}].{key}"),
                problem: "has a path; routes are appended to it".to_owned(),
            })
        });
        let expired = self.clients.iter().filter(|client| self.clients.all_keys_expired(client, now));
        let expired = expired.map(|client| ConfigFault {
            path: format!("clients[{}].api_keys", client.number),
            problem: format!("have all expired: client {} cannot call with a key", client.name),
        });
        bases.chain(expired).chain(self.expiring_certificate(now)).collect()
    }
}

fn date(time: UnixMillis) -> String {
    jiff::Timestamp::from_millisecond(time.0).map_or_else(|_| "no time".to_owned(), |time| time.to_string())
}

/// Whether it can be opened as `serve` opens it, or made.
fn writable(path: &Path) -> io::Result<()> {
    match path.metadata() {
        // A pipe is not opened for a look: its reader would take that for the end. Whether somebody reads it when
        // `serve` starts is that moment's affair, as a free port is.
        Ok(found) if found.is_file() => OpenOptions::new().append(true).open(path).map(drop),
        Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            if !folder.metadata()?.is_dir() {
                return Err(io::ErrorKind::NotADirectory.into());
            }
            Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
        }
        Err(error) => Err(error),
    }
}

fn has_path(base: &str) -> bool {
    base.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains('/'))
}
