//! Digests of what is only ever compared and never read again, cut short to be small.

/// The first bytes of the BLAKE3: cryptographic, so that nobody who writes what is digested makes two that
/// are alike, and several times as fast as SHA-256.
pub fn short<const LENGTH: usize>(bytes: &[u8]) -> [u8; LENGTH] {
    const { assert!(LENGTH <= blake3::OUT_LEN) };
    let mut short = [0; LENGTH];
    let whole = blake3::hash(bytes);
    short.iter_mut().zip(whole.as_bytes()).for_each(|(short, byte)| *short = *byte);
    short
}
