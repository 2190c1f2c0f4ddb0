//! Follows the frames of an HTTP/2 connection: which bytes are progress, and which responses have not been sent.
//!
//! h2 accepts a whole response and does not report when the peer has let it through. A peer that opens its window by
//! one byte at a time would look idle. It would also receive ten times as many bytes in frame headers, which are no
//! progress.

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;

/// A frame header (RFC 9113 §4.1).
#[derive(Clone, Copy)]
pub struct Head {
    kind: u8,
    flags: u8,
    stream: u32,
}

/// The position within the frames of one direction of a connection.
#[derive(Default)]
pub struct Frames {
    head: [u8; 9],
    /// Bytes of `head` that are complete.
    begun: usize,
    /// Bytes of the payload that are still to come.
    left: usize,
    /// The payload is content, or the head of a message.
    is_progress: bool,
}

impl Frames {
    /// Frames that begin after this many bytes.
    pub fn after(bytes: usize) -> Self {
        Self { left: bytes, ..Self::default() }
    }

    /// Moves on over the next bytes. Returns how many of them are progress, and calls `on_frame` for each frame header.
    pub fn advance(&mut self, mut bytes: &[u8], mut on_frame: impl FnMut(Head)) -> u64 {
        let mut counted = 0;
        while !bytes.is_empty() {
            if self.left > 0 {
                let here = self.left.min(bytes.len());
                self.left -= here;
                if self.is_progress {
                    counted += here as u64;
                }
                bytes = &bytes[here..];
                continue;
            }
            let here = (self.head.len() - self.begun).min(bytes.len());
            self.head[self.begun..self.begun + here].copy_from_slice(&bytes[..here]);
            self.begun += here;
            bytes = &bytes[here..];
            if self.begun == self.head.len() {
                let [high, middle, low, kind, flags, stream @ ..] = self.head;
                self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                self.is_progress = matches!(kind, DATA | HEADERS | CONTINUATION);
                self.begun = 0;
                on_frame(Head { kind, flags, stream: u32::from_be_bytes(stream) });
            }
        }
        counted
    }
}

/// The streams whose response has started and not ended. There are at most as many as streams may be open.
#[derive(Default)]
pub struct Unfinished(Vec<u32>);

impl Unfinished {
    pub fn sent(&mut self, frame: Head) {
        let ends = frame.flags & END_STREAM != 0;
        match frame.kind {
            HEADERS if !ends => self.0.push(frame.stream),
            DATA if ends => self.remove(frame.stream),
            RST_STREAM => self.remove(frame.stream),
            _ => {}
        }
    }

    /// A stream that the peer resets needs no further response.
    pub fn received(&mut self, frame: Head) {
        if frame.kind == RST_STREAM {
            self.remove(frame.stream);
        }
    }

    fn remove(&mut self, stream: u32) {
        if let Some(at) = self.0.iter().position(|unfinished| *unfinished == stream) {
            self.0.swap_remove(at);
        }
    }

    pub fn count(&self) -> u32 {
        u32::try_from(self.0.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload).expect("small").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], &vec![0; payload][..]].concat()
    }

    #[test]
    fn only_content_and_heads_are_progress_however_they_are_cut() {
        let frames =
            [frame(0, 0, 1, 1), frame(0, 0, 1, 1), frame(1, 0, 3, 20), frame(6, 0, 0, 8), frame(8, 0, 0, 4)];
        let bytes = [frames.concat(), frame(0, 1, 1, 300)].concat();
        for piece in [1, 2, 9, 10, 1000] {
            let mut frames = Frames::default();
            let counted: u64 = bytes.chunks(piece).map(|piece| frames.advance(piece, drop)).sum();
            assert_eq!(counted, 1 + 1 + 20 + 300, "{piece}");
        }
    }

    #[test]
    fn an_answer_is_unfinished_until_its_end_goes_out_or_nobody_wants_it() {
        let mut unfinished = Unfinished::default();
        let sent =
            [frame(1, 4, 1, 5), frame(1, 4, 3, 5), frame(1, 5, 5, 5), frame(1, 4, 7, 5), frame(0, 0, 1, 9)]
                .concat();
        Frames::default().advance(&sent, |frame| unfinished.sent(frame));
        assert_eq!(unfinished.count(), 3);
        Frames::default().advance(&frame(0, 1, 1, 0), |frame| unfinished.sent(frame));
        Frames::after(3)
            .advance(&[b"PRI", &frame(3, 0, 7, 4)[..]].concat(), |frame| unfinished.received(frame));
        assert_eq!(unfinished.0, [3]);
        Frames::default().advance(&frame(3, 0, 3, 4), |frame| unfinished.sent(frame));
        assert_eq!(unfinished.count(), 0);
    }
}
