//! An entry's body in the codings that callers take, and the parts of it that some callers are shown: made once,
//! on first demand.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::jobs::{Job, UnderWay};
use crate::error::Error;

/// Bodies below this many bytes do not get smaller by more than their header.
const SMALLEST: usize = 256;

/// Gzip's own default. On a 20 KB transcript 63 µs for a tenth of its size.
const GZIP_LEVEL: u32 = 6;
/// The last level that costs no more than some milliseconds on a large body.
const BROTLI_LEVEL: i32 = 5;

/// How a body's bytes are coded on the wire (RFC 9110 §8.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coding {
    Identity,
    Gzip,
    Brotli,
}

impl Coding {
    /// Those that compress, the better first.
    pub const COMPRESSING: [Self; 2] = [Self::Brotli, Self::Gzip];

    /// The word in `Content-Encoding`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
        }
    }
}

/// A body in another coding, or none where that would be no smaller.
type Coded = Option<Arc<[u8]>>;

/// What has been made so far of an entry `E`. No memory but a pointer's before anything was asked for.
#[derive(Debug)]
pub struct Variants<E>(OnceLock<Box<Made<E>>>);

#[derive(Debug)]
struct Made<E> {
    gzip: Variant,
    brotli: Variant,
    views: Mutex<Vec<View<E>>>,
}

impl<E> Default for Variants<E> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<E> Default for Made<E> {
    fn default() -> Self {
        Self { gzip: Variant::default(), brotli: Variant::default(), views: Mutex::default() }
    }
}

#[derive(Debug, Default)]
struct Variant {
    /// One that would not be smaller is remembered as none.
    made: OnceLock<Coded>,
    under_way: Mutex<Option<UnderWay<Coded>>>,
}

/// What one projection shows of the entry. Not held here: the store holds it, or whoever is being answered with it.
#[derive(Debug)]
struct View<E> {
    projection: Box<[u8]>,
    shown: Weak<E>,
    under_way: Option<UnderWay<Result<Arc<E>, Error>>>,
}

/// A view that is at hand, or will be.
pub enum Shown<E> {
    Made(Arc<E>),
    UnderWay(Job<Result<Arc<E>, Error>>),
}

impl<E> Made<E> {
    fn variant(&self, coding: Coding) -> Option<&Variant> {
        match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(&self.gzip),
            Coding::Brotli => Some(&self.brotli),
        }
    }
}

impl<E> Variants<E> {
    fn made(&self) -> &Made<E> {
        self.0.get_or_init(Box::default)
    }

    /// Whether `coding` still has to be made.
    pub fn lacks(&self, coding: Coding) -> bool {
        let made = || self.0.get()?.variant(coding)?.made.get();
        coding != Coding::Identity && made().is_none()
    }

    /// What has been made in that coding, if anything.
    pub fn get(&self, coding: Coding) -> Option<Arc<[u8]>> {
        self.0.get()?.variant(coding)?.made.get()?.clone()
    }

    /// `body` in that coding; none if it is no smaller, or if the making was given up.
    pub fn get_or_make(
        &self,
        coding: Coding,
        body: &[u8],
        is_unwanted: &AtomicBool,
        count: impl FnOnce(),
    ) -> Option<Arc<[u8]>> {
        let variant = self.made().variant(coding)?;
        if let Some(made) = variant.made.get() {
            return made.clone();
        }
        count();
        let made = smaller(coding, body, is_unwanted)?;
        variant.made.get_or_init(|| made).clone()
    }

    /// The making of that coding: the one under way, or `begun`.
    pub fn making(&self, coding: Coding, begin: impl FnOnce() -> Job<Coded>) -> Option<Job<Coded>> {
        let mut under_way = locked(&self.made().variant(coding)?.under_way);
        if let Some(job) = under_way.as_ref().and_then(UnderWay::upgrade) {
            return Some(job);
        }
        let job = begin();
        *under_way = job.downgrade();
        Some(job)
    }

    /// What `projection` shows: at hand, under way, or under way as `begin` begins it.
    pub fn view(&self, projection: &[u8], begin: impl FnOnce() -> Job<Result<Arc<E>, Error>>) -> Shown<E> {
        let mut views = locked(&self.made().views);
        if let Some(view) = views.iter().find(|view| *view.projection == *projection) {
            if let Some(shown) = view.shown.upgrade() {
                return Shown::Made(shown);
            }
            if let Some(job) = view.under_way.as_ref().and_then(UnderWay::upgrade) {
                return Shown::UnderWay(job);
            }
        }
        let job = begin();
        let under_way = job.downgrade();
        put(&mut views, View { projection: projection.into(), shown: Weak::new(), under_way });
        Shown::UnderWay(job)
    }

    /// What `projection` shows, if anybody has it still.
    pub fn view_at_hand(&self, projection: &[u8]) -> Option<Arc<E>> {
        let views = locked(&self.0.get()?.views);
        views.iter().find(|view| *view.projection == *projection)?.shown.upgrade()
    }

    /// What `projection` shows was made.
    pub fn shows(&self, projection: &[u8], shown: &Arc<E>) {
        let view = View { projection: projection.into(), shown: Arc::downgrade(shown), under_way: None };
        put(&mut locked(&self.made().views), view);
    }

    /// Bytes of all that has been made.
    pub fn len(&self) -> usize {
        let Some(made) = self.0.get() else { return 0 };
        let variants = [&made.gzip, &made.brotli].into_iter();
        let bodies = variants.filter_map(|variant| variant.made.get()).flatten();
        bodies.map(|body| body.len()).sum()
    }
}

/// In place of the one of its projection, and without those that are gone.
fn put<E>(views: &mut Vec<View<E>>, view: View<E>) {
    let is_alive = |view: &View<E>| {
        view.shown.strong_count() > 0 || view.under_way.as_ref().is_some_and(|job| job.upgrade().is_some())
    };
    views.retain(|other| other.projection != view.projection && is_alive(other));
    views.push(view);
}

/// No change is left half done by a panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The body in that coding, or none if it is no smaller. No answer if it was given up.
#[expect(clippy::option_option, reason = "given up, or no smaller")]
fn smaller(coding: Coding, body: &[u8], is_unwanted: &AtomicBool) -> Option<Option<Arc<[u8]>>> {
    if body.len() < SMALLEST {
        return Some(None);
    }
    match compressed(coding, Wanted { body, is_unwanted }) {
        Ok(made) => Some((made.len() < body.len()).then(|| made.into())),
        Err(_) if is_unwanted.load(Ordering::Relaxed) => None,
        Err(_) => Some(None),
    }
}

/// A body that is read piece by piece, as long as somebody wants it in another coding.
struct Wanted<'a> {
    body: &'a [u8],
    is_unwanted: &'a AtomicBool,
}

/// Bytes that are compressed between two looks at whether they are wanted.
const STRETCH: usize = 64 * 1024;

impl Read for Wanted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.is_unwanted.load(Ordering::Relaxed) {
            return Err(io::Error::other("nobody waits for it any more"));
        }
        let most = buffer.len().min(STRETCH);
        self.body.read(buffer.get_mut(..most).unwrap_or_default())
    }
}

fn compressed(coding: Coding, mut body: Wanted<'_>) -> io::Result<Vec<u8>> {
    let length = body.body.len();
    let mut made = Vec::with_capacity(length / 4);
    match coding {
        Coding::Identity => {
            body.read_to_end(&mut made)?;
        }
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(&mut made, Compression::new(GZIP_LEVEL));
            io::copy(&mut body, &mut encoder)?;
            encoder.finish()?;
        }
        Coding::Brotli => {
            let params = BrotliEncoderParams {
                quality: BROTLI_LEVEL,
                size_hint: length,
                ..BrotliEncoderParams::default()
            };
            brotli::BrotliCompress(&mut body, &mut made, &params)?;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    static WANTED: AtomicBool = AtomicBool::new(false);

    #[test]
    fn a_variant_is_made_once_and_only_if_it_is_smaller() {
        let variants = Variants::<()>::default();
        let body = vec![b'a'; 1000];
        assert!(variants.lacks(Coding::Gzip));
        let made = variants.get_or_make(Coding::Gzip, &body, &WANTED, || ()).expect("smaller");
        assert!(!variants.lacks(Coding::Gzip));
        // Another body would be coded otherwise; this one is not looked at any more.
        assert_eq!(variants.get_or_make(Coding::Gzip, b"x", &WANTED, || ()), Some(made.clone()));
        assert_eq!(variants.len(), made.len());
        assert!(!variants.lacks(Coding::Identity));

        let tiny = Variants::<()>::default();
        assert_eq!(tiny.get_or_make(Coding::Brotli, b"{}", &WANTED, || ()), None);
        assert!(!tiny.lacks(Coding::Brotli));
        assert_eq!(tiny.len(), 0);
    }

    #[test]
    fn what_does_not_compress_stays_as_it_is() {
        let noise: Vec<u8> = (0..32_u8)
            .flat_map(|n| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[n]).as_ref().to_vec())
            .collect();
        assert_eq!(smaller(Coding::Gzip, &noise, &WANTED), Some(None));
    }

    #[test]
    fn what_is_given_up_is_not_remembered_and_can_be_made_later() {
        let variants = Variants::<()>::default();
        let body = vec![b'a'; 1000];
        for coding in Coding::COMPRESSING {
            assert_eq!(variants.get_or_make(coding, &body, &AtomicBool::new(true), || ()), None);
            assert!(variants.lacks(coding));
            assert!(variants.get_or_make(coding, &body, &WANTED, || ()).is_some());
        }
    }
}
