//! Why a file could not be read, for whoever has to change that.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The error; where this process is not allowed to read the file, also who it is, whose the file is, and what helps.
pub fn unreadable(path: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::PermissionDenied {
        return error;
    }
    let user = rustix::process::geteuid().as_raw();
    let (verb, at, found) = match path.metadata() {
        Ok(found) => ("read", path, found),
        // Not even looked at: a folder above it may not be entered. It is the last one that can be looked at.
        Err(_) => {
            let folder = path.ancestors().skip(1).find_map(|folder| Some((folder, folder.metadata().ok()?)));
            let Some((folder, found)) = folder else { return error };
            ("enter", folder, found)
        }
    };
    let text = format!(
        "{error}; this process is user {user} and may not {verb} {at}, which belongs to user {owner} with mode {mode:04o}: \
         chown {user} {at}, or hand the file over by systemd's LoadCredential",
        at = at.display(),
        owner = found.uid(),
        mode = found.mode() & 0o7777,
    );
    io::Error::new(error.kind(), text)
}
