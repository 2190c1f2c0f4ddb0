//! An entry's body in the codings that callers take, made once, on first demand.

use std::io::Write;
use std::sync::{Arc, OnceLock};

use brotli::enc::BrotliEncoderParams;
use flate2::Compression;
use flate2::write::GzEncoder;

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

/// What has been made so far. No memory but a pointer's before anything was asked for.
#[derive(Debug, Default)]
pub struct Variants(OnceLock<Box<Made>>);

/// A variant that would not be smaller is remembered as none.
#[derive(Debug, Default)]
struct Made {
    gzip: OnceLock<Option<Arc<[u8]>>>,
    brotli: OnceLock<Option<Arc<[u8]>>>,
}

impl Made {
    fn slot(&self, coding: Coding) -> Option<&OnceLock<Option<Arc<[u8]>>>> {
        match coding {
            Coding::Identity => None,
            Coding::Gzip => Some(&self.gzip),
            Coding::Brotli => Some(&self.brotli),
        }
    }
}

impl Variants {
    /// Whether `coding` still has to be made.
    pub fn lacks(&self, coding: Coding) -> bool {
        let made = || self.0.get()?.slot(coding)?.get();
        coding != Coding::Identity && made().is_none()
    }

    /// `body` in that coding; none if it is no smaller. Whoever comes first makes it, the others
    /// wait for him.
    pub fn get_or_make(&self, coding: Coding, body: &[u8]) -> Option<Arc<[u8]>> {
        self.0.get_or_init(Box::default).slot(coding)?.get_or_init(|| smaller(coding, body)).clone()
    }

    /// Bytes of all that has been made.
    pub fn len(&self) -> usize {
        let Some(made) = self.0.get() else { return 0 };
        let bodies = [&made.gzip, &made.brotli].into_iter().filter_map(OnceLock::get).flatten();
        bodies.map(|body| body.len()).sum()
    }
}

fn smaller(coding: Coding, body: &[u8]) -> Option<Arc<[u8]>> {
    if body.len() < SMALLEST {
        return None;
    }
    let made = compressed(coding, body).ok()?;
    (made.len() < body.len()).then(|| made.into())
}

fn compressed(coding: Coding, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut made = Vec::with_capacity(body.len() / 4);
    match coding {
        Coding::Identity => made.extend_from_slice(body),
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(&mut made, Compression::new(GZIP_LEVEL));
            encoder.write_all(body)?;
            encoder.finish()?;
        }
        Coding::Brotli => {
            let params = BrotliEncoderParams {
                quality: BROTLI_LEVEL,
                size_hint: body.len(),
                ..BrotliEncoderParams::default()
            };
            brotli::BrotliCompress(&mut &body[..], &mut made, &params)?;
        }
    }
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_is_made_once_and_only_if_it_is_smaller() {
        let variants = Variants::default();
        let body = vec![b'a'; 1000];
        assert!(variants.lacks(Coding::Gzip));
        let made = variants.get_or_make(Coding::Gzip, &body).expect("smaller");
        assert!(!variants.lacks(Coding::Gzip));
        // Another body would be coded otherwise; this one is not looked at any more.
        assert_eq!(variants.get_or_make(Coding::Gzip, b"x"), Some(made.clone()));
        assert_eq!(variants.len(), made.len());
        assert!(!variants.lacks(Coding::Identity));

        let tiny = Variants::default();
        assert_eq!(tiny.get_or_make(Coding::Brotli, b"{}"), None);
        assert!(!tiny.lacks(Coding::Brotli));
        assert_eq!(tiny.len(), 0);
    }

    #[test]
    fn what_does_not_compress_stays_as_it_is() {
        let noise: Vec<u8> = (0..32_u8)
            .flat_map(|n| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &[n]).as_ref().to_vec())
            .collect();
        assert_eq!(smaller(Coding::Gzip, &noise), None);
    }
}
