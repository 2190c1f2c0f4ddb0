//! Lines of text for standard output or a file, written by a thread of their own.
//!
//! Lines are buffered in memory and written together some milliseconds later. No request waits for a slow disk or
//! for a pipe that nobody reads: a line that finds no room is dropped and counted.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Thread;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use crate::config::LogTo;

/// How long the writer waits for more lines.
const WRITE_DELAY: Duration = Duration::from_millis(10);
/// Bytes that may wait for the writer in each shard.
pub const MAX_BUFFERED: usize = 256 * 1024;
/// Buffers. Threads with different ones do not wait for one another.
const SHARDS: usize = 16;

/// Takes lines. When it is dropped, its thread writes what is buffered and ends.
pub struct Lines {
    buffers: Arc<Buffers>,
    writer: Thread,
}

struct Buffers {
    shards: [Mutex<Vec<u8>>; SHARDS],
    sink: Mutex<Box<dyn Write + Send>>,
    has_ended: AtomicBool,
    passes: Mutex<Passes>,
    pass_done: Condvar,
    dropped: Counter,
}

/// How often the writer has looked at all shards.
#[derive(Clone, Copy, Default)]
struct Passes {
    begun: u64,
    done: u64,
}

/// Opens a file to append to, and makes it if it is not there. A pipe that nobody reads is an error: whoever reloads
/// would wait for its reader, and everybody else for him.
pub fn open_to_append(path: &Path) -> io::Result<File> {
    let without_wait = OFlags::NONBLOCK.bits().cast_signed();
    let opened =
        OpenOptions::new().append(true).create(true).mode(0o600).custom_flags(without_wait).open(path);
    let file = opened.map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::NXIO) => io::Error::new(error.kind(), "it is a pipe that nobody reads"),
        _ => error,
    })?;
    // It is written by a thread that may wait, and by whole lines.
    fcntl_setfl(&file, fcntl_getfl(&file)? - OFlags::NONBLOCK)?;
    Ok(file)
}

impl Lines {
    /// Opens `to`, anew each time: a file that was moved away is made again. `name` is the thread's,
    /// `dropped` counts the lines that were not written.
    pub fn open(name: &str, to: &LogTo, dropped: Counter) -> io::Result<Self> {
        let sink: Box<dyn Write + Send> = match to {
            LogTo::Stdout => Box::new(io::stdout()),
            LogTo::File(path) => Box::new(open_to_append(path)?),
        };
        let buffers = Arc::new(Buffers {
            shards: Default::default(),
            sink: Mutex::new(sink),
            has_ended: AtomicBool::new(false),
            passes: Mutex::default(),
            pass_done: Condvar::new(),
            dropped,
        });
        let writing = buffers.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || writing.write())?;
        Ok(Self { buffers, writer: thread.thread().clone() })
    }

    /// Takes the line that `write` appends, with its newline, or counts it as dropped.
    pub fn take(&self, write: impl FnOnce(&mut Vec<u8>)) {
        self.take_within(MAX_BUFFERED, write);
    }

    /// The same for a line that is taken only if fewer than `share` bytes wait in its shard.
    pub fn take_within(&self, share: usize, write: impl FnOnce(&mut Vec<u8>)) {
        let mut lines = locked(self.buffers.shard());
        if lines.len() >= share.min(MAX_BUFFERED) {
            self.buffers.dropped.inc();
            return;
        }
        let is_first = lines.is_empty();
        write(&mut lines);
        drop(lines);
        if is_first {
            self.writer.unpark();
        }
    }

    /// Waits until everything taken so far was written, `at_most` for so long. Whether it was.
    pub fn flush(&self, at_most: Duration) -> bool {
        let passes = locked(&self.buffers.passes);
        // A pass that begins after this sees everything taken so far.
        let wanted = passes.begun + 1;
        self.writer.unpark();
        let waited =
            self.buffers.pass_done.wait_timeout_while(passes, at_most, |passes| passes.done < wanted);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// Each write is a line with its newline.
impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.take(|lines| lines.extend_from_slice(line));
        Ok(line.len())
    }

    /// The writer flushes by itself.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.buffers.has_ended.store(true, Ordering::Release);
        self.writer.unpark();
    }
}

impl Buffers {
    /// The shard of this thread.
    fn shard(&self) -> &Mutex<Vec<u8>> {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static SHARD: usize = THREADS.fetch_add(1, Ordering::Relaxed) % SHARDS;
        }
        &self.shards[SHARD.with(|shard| *shard)]
    }

    /// The loop of the writer's thread.
    fn write(&self) {
        loop {
            let ends = self.has_ended.load(Ordering::Acquire);
            locked(&self.passes).begun += 1;
            self.write_out();
            let mut passes = locked(&self.passes);
            passes.done = passes.begun;
            drop(passes);
            self.pass_done.notify_all();
            if ends {
                return;
            }
            std::thread::park();
            std::thread::sleep(WRITE_DELAY);
        }
    }

    fn write_out(&self) {
        let mut sink = locked(&self.sink);
        for shard in &self.shards {
            let lines = std::mem::take(&mut *locked(shard));
            if !lines.is_empty() && sink.write_all(&lines).and_then(|()| sink.flush()).is_err() {
                let lost = lines.iter().filter(|byte| **byte == b'\n').count();
                self.dropped.inc_by(lost as u64);
            }
        }
    }
}

/// A line is appended whole or not at all, so a panic elsewhere spoils none.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn what_finds_no_room_and_what_a_full_disk_refuses_is_counted() {
        let dropped = Counter::default();
        let full = LogTo::File("/dev/full".into());
        let lines = Lines::open("test", &full, dropped.clone()).expect("a device");
        for _ in 0..10 {
            lines.take(|line| line.extend_from_slice(b"r\n"));
        }
        assert!(lines.flush(SOON));
        assert_eq!(dropped.get(), 10);
        // Nobody writes while the sink is held: what comes now can only gather.
        let sink = locked(&lines.buffers.sink);
        let line = [b'r'; 64];
        (0..=MAX_BUFFERED / 64).for_each(|_| lines.take(|lines| lines.extend_from_slice(&line)));
        assert!(dropped.get() > 10, "{}", dropped.get());
        assert!(!lines.flush(Duration::from_millis(20)), "a flush waits for so long and no longer");
        drop(sink);
    }

    #[test]
    fn a_line_with_a_share_leaves_the_rest_of_the_room_to_the_others() {
        let dropped = Counter::default();
        let lines = Lines::open("test", &LogTo::File("/dev/null".into()), dropped.clone()).expect("a device");
        let sink = locked(&lines.buffers.sink);
        let line = [b'r'; 1024];
        let share = MAX_BUFFERED / 2;
        for _ in 0..MAX_BUFFERED / line.len() {
            lines.take_within(share, |lines| lines.extend_from_slice(&line));
        }
        let own = (share / line.len()) as u64;
        assert_eq!(dropped.get(), own, "half of them found room");
        for _ in 0..own {
            lines.take(|lines| lines.extend_from_slice(&line));
        }
        assert_eq!(dropped.get(), own, "and the others found theirs");
        drop(sink);
    }
}
