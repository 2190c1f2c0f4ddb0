//! Digests of what is only ever compared and never read again, cut short to be small.

use aws_lc_rs::digest;

/// The first bytes of the SHA-256.
pub fn short<const LENGTH: usize>(bytes: &[u8]) -> [u8; LENGTH] {
    const { assert!(LENGTH <= digest::SHA256_OUTPUT_LEN) };
    let mut short = [0; LENGTH];
    let whole = digest::digest(&digest::SHA256, bytes);
    short.iter_mut().zip(whole.as_ref()).for_each(|(short, byte)| *short = *byte);
    short
}
