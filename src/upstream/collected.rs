//! Collects a body in pieces of one size, however small the parts are in which it arrives.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;
use memmap2::MmapMut;

/// Bytes of the first piece, which grows with its content. Most bodies need no more.
const FIRST: usize = 64 * 1024;

/// Bytes of each further piece. A full piece is not copied, so a growing body is not in memory twice.
const PIECE: usize = 1024 * 1024;

/// The least bytes that a part counts for, because of its work: a body in parts of one byte is as much work as a body
/// that is sixty times as large.
const PART: usize = 64;

/// The byte order mark that some senders put before their JSON. RFC 8259 §8.1 forbids it, and many readers fail on it.
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

#[derive(Default)]
pub struct Collected {
    /// The only part so far. Many bodies come in one part.
    only: Bytes,
    pieces: Vec<Piece>,
    length: usize,
    parts: usize,
}

struct Piece {
    memory: Memory,
    filled: usize,
}

enum Memory {
    /// Memory that returns to the machine as soon as it is dropped. The allocator would keep it for a while, and the
    /// process would hold a large body twice while its pieces are copied.
    Mapped(MmapMut),
    Heap(Vec<u8>),
}

impl Collected {
    pub fn push(&mut self, part: Bytes) {
        self.parts += 1;
        self.length += part.len();
        if self.parts == 1 {
            self.only = part;
            return;
        }
        let first = std::mem::take(&mut self.only);
        self.append(&first);
        self.append(&part);
    }

    fn append(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let is_first = self.pieces.is_empty();
            match self.pieces.last_mut().map_or(0, |last| last.take(bytes)) {
                0 if is_first => self.pieces.push(Piece::growing()),
                0 => self.pieces.push(Piece::mapped()),
                taken => bytes = bytes.get(taken..).unwrap_or_default(),
            }
        }
    }

    /// The size that counts against the limit on bodies.
    pub fn weight(&self) -> usize {
        self.length.max(self.parts.saturating_mul(PART))
    }

    /// The body in pieces, for a stream.
    pub fn into_pieces(mut self) -> Vec<Bytes> {
        let mark = self.mark();
        let only = std::mem::take(&mut self.only);
        let pieces = self.pieces.into_iter().map(Bytes::from_owner);
        let mut pieces: Vec<Bytes> = std::iter::once(only).chain(pieces).collect();
        pieces.retain(|piece| !piece.is_empty());
        if let Some(first) = pieces.first_mut() {
            *first = first.split_off(mark.min(first.len()));
        }
        pieces
    }

    /// The body in one piece of exactly its length: the spare capacity of a buffer would be stored and not counted.
    /// Each piece is freed as soon as it is copied.
    pub fn into_whole(mut self) -> Arc<[u8]> {
        let mark = self.mark();
        if let [] | [_] = &*self.pieces {
            return Arc::from(self.start().get(mark..).unwrap_or_default());
        }
        let mut pieces = std::mem::take(&mut self.pieces).into_iter();
        let (mut piece, mut at) = (pieces.next(), mark);
        // An iterator of known length is collected in place, byte by byte.
        let next = |_| {
            loop {
                let Some(current) = &piece else { break 0 };
                if let Some(byte) = current.as_ref().get(at) {
                    at += 1;
                    break *byte;
                }
                (piece, at) = (pieces.next(), 0);
            }
        };
        (mark..self.length).map(next).collect()
    }

    fn start(&self) -> &[u8] {
        self.pieces.first().map_or(&*self.only, AsRef::as_ref)
    }

    /// The length of the byte order mark, if there is one before JSON.
    fn mark(&self) -> usize {
        let text = self.start().strip_prefix(BYTE_ORDER_MARK).map(<[u8]>::trim_ascii_start);
        let is_json = text.is_some_and(|text| matches!(text.first(), Some(b'{' | b'[')));
        if is_json { BYTE_ORDER_MARK.len() } else { 0 }
    }
}

impl Piece {
    fn growing() -> Self {
        Self { memory: Memory::Heap(Vec::new()), filled: 0 }
    }

    fn mapped() -> Self {
        // If the machine maps no more memory, the allocator may still have some.
        let memory = MmapMut::map_anon(PIECE).map_or_else(|_| Memory::Heap(vec![0; PIECE]), Memory::Mapped);
        Self { memory, filled: 0 }
    }

    /// Copies as much of `bytes` as there is room for, and returns how much that was.
    fn take(&mut self, bytes: &[u8]) -> usize {
        if let Memory::Heap(memory) = &mut self.memory
            && memory.len() < FIRST
        {
            let taken = bytes.len().min(FIRST - memory.len());
            memory.extend_from_slice(bytes.get(..taken).unwrap_or_default());
            self.filled = memory.len();
            return taken;
        }
        let room = self.memory.len() - self.filled;
        let (taken, _) = bytes.split_at(bytes.len().min(room));
        if let Some(room) = self.memory.get_mut(self.filled..self.filled + taken.len()) {
            room.copy_from_slice(taken);
        }
        self.filled += taken.len();
        taken.len()
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        self.memory.get(..self.filled).unwrap_or_default()
    }
}

impl Deref for Memory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(memory) => memory,
            Self::Heap(memory) => memory,
        }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Mapped(memory) => memory,
            Self::Heap(memory) => memory,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collected(body: &[u8], part: usize) -> Collected {
        let mut collected = Collected::default();
        body.chunks(part).for_each(|part| collected.push(Bytes::copy_from_slice(part)));
        collected
    }

    #[test]
    fn a_body_is_the_same_in_whatever_parts_it_comes() {
        for length in [0, 1, 2, FIRST - 1, FIRST, FIRST + 1, FIRST + PIECE, FIRST + 2 * PIECE + 7] {
            let body: Vec<u8> = (0..=250).cycle().take(length).collect();
            for part in [1, 1000, FIRST, PIECE + 1, usize::MAX] {
                assert!(*collected(&body, part).into_whole() == *body, "{length} by {part}");
                let pieces = collected(&body, part).into_pieces();
                assert!(pieces.concat() == body, "{length} by {part}");
            }
        }
    }

    #[test]
    fn small_parts_are_joined_and_count_more_than_their_bytes() {
        let body = vec![b' '; FIRST];
        let by_one = collected(&body, 1);
        assert_eq!(by_one.weight(), FIRST * PART);
        assert_eq!(by_one.pieces.len(), 1);
        assert_eq!(collected(&body, FIRST).weight(), FIRST);
    }

    #[test]
    fn a_mark_before_json_is_taken_off_and_before_anything_else_it_stays() {
        for (body, wanted) in [
            ("\u{feff}{}", "{}"),
            ("\u{feff} \r\n[1]", " \r\n[1]"),
            ("\u{feff}", "\u{feff}"),
            ("\u{feff}yF0a", "\u{feff}yF0a"),
            ("{\"a\":\"\u{feff}\"}", "{\"a\":\"\u{feff}\"}"),
        ] {
            for part in [1, 2, 100] {
                assert_eq!(*collected(body.as_bytes(), part).into_whole(), *wanted.as_bytes());
                assert_eq!(collected(body.as_bytes(), part).into_pieces().concat(), wanted.as_bytes());
            }
        }
        let large = format!("\u{feff}[{}]", " ".repeat(2 * FIRST));
        assert_eq!(&*collected(large.as_bytes(), 100).into_whole(), &large.as_bytes()[3..]);
    }
}
