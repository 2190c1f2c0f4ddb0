//! Reading the files that a configuration names.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::unreadable::unreadable;

/// Reads a file, and never waits for it (`open`).
pub fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file that is UTF-8, and never waits for it (`open`).
pub fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Opens a file to read it. A pipe is an error. An ordinary open of a pipe waits for a writer, and every later reload
/// would wait too. Each of these files is also read more than once, and a pipe gives its content only once.
fn open(path: &Path) -> io::Result<File> {
    let without_wait = OFlags::NONBLOCK.bits().cast_signed();
    let opened = OpenOptions::new().read(true).custom_flags(without_wait).open(path);
    let file = opened.map_err(|error| unreadable(path, error))?;
    if file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe; a regular file is expected"));
    }
    Ok(file)
}
