//! Follows HTTP/2's frames (RFC 9113, 4.1) as their bytes come, to know whether one has begun that does not end.
//!
//! Not here: what is in them. h2 reads them, and has no word about half of one.

/// The length of what a client says first (RFC 9113, 3.4).
const PREFACE_BYTES: u64 = 24;

/// Length (3 bytes), type, flags, stream (4 bytes).
const HEAD_BYTES: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// Where in its frames a connection is.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of the present frame that are still to come.
    left: u64,
    /// Whether those are a request's body, for whose pace others look.
    body: bool,
    head: [u8; HEAD_BYTES],
    /// Bytes of a frame's head that are there.
    known: usize,
    /// Headers have begun and go on in the next frame.
    open: bool,
    ended: u32,
}

impl Frames {
    /// A connection that has said nothing yet.
    pub fn new() -> Self {
        Self { left: PREFACE_BYTES, body: false, head: [0; HEAD_BYTES], known: 0, open: false, ended: 0 }
    }

    /// The next bytes.
    pub fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let taken = self.left.min(bytes.len() as u64);
                self.left -= taken;
                bytes = &bytes[taken as usize..];
            } else {
                let taken = (HEAD_BYTES - self.known).min(bytes.len());
                self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
                self.known += taken;
                bytes = &bytes[taken..];
                if self.known == HEAD_BYTES {
                    self.begin();
                }
            }
            if self.left == 0 && self.known == 0 && !self.open {
                self.ended = self.ended.wrapping_add(1);
            }
        }
    }

    /// The head of a frame is there.
    fn begin(&mut self) {
        let [a, b, c, kind, flags, ..] = self.head;
        self.known = 0;
        self.left = u64::from(u32::from_be_bytes([0, a, b, c]));
        self.body = kind == DATA;
        if kind == HEADERS || kind == CONTINUATION {
            self.open = flags & END_HEADERS == 0;
        }
    }

    /// Whether a frame, or headers over several, have begun and not ended; a body's frames do not count.
    pub fn partial(&self) -> bool {
        self.open || self.known > 0 || (self.left > 0 && !self.body)
    }

    /// Whether a body's frame has begun and not ended.
    pub fn in_body(&self) -> bool {
        self.left > 0 && self.body
    }

    /// A number that is another one whenever something has ended.
    pub fn ended(&self) -> u32 {
        self.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = (payload.len() as u32).to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    /// Whether something is open after the preface and these bytes, however they were cut.
    #[track_caller]
    fn partial_after(bytes: &[u8]) -> bool {
        let all = [&[b'P'; 24], bytes].concat();
        let found: Vec<bool> = [1, 2, 7, 9, 10, all.len()]
            .map(|size| {
                let mut frames = Frames::new();
                all.chunks(size).for_each(|piece| frames.take(piece));
                frames.partial()
            })
            .into();
        assert!(found.iter().all(|partial| *partial == found[0]), "{found:?}");
        found[0]
    }

    #[test]
    fn what_has_begun_and_not_ended_is_seen() {
        let whole =
            [frame(4, 0, &[0; 6]), frame(HEADERS, END_HEADERS, b"abc"), frame(6, 0, &[0; 8])].concat();
        assert!(!partial_after(&whole) && !partial_after(&[]));
        assert!(partial_after(&whole[..whole.len() - 1]));
        let half_head = [whole.clone(), vec![0, 0]].concat();
        assert!(partial_after(&half_head));
        let open = [whole.clone(), frame(HEADERS, 0, b"abc")].concat();
        assert!(partial_after(&open));
        assert!(partial_after(&[open.clone(), frame(CONTINUATION, 0, b"d")].concat()));
        assert!(!partial_after(&[open, frame(CONTINUATION, END_HEADERS, b"")].concat()));
        // A body may come at its own pace.
        let body = frame(DATA, 1, &[7; 100]);
        assert!(!partial_after(&[whole, body[..50].to_vec()].concat()));
        let mut frames = Frames::new();
        frames.take(&[&[b'P'; 24], &body[..50]].concat());
        assert!(frames.in_body());
        frames.take(&body[50..]);
        assert!(!frames.in_body());
    }

    #[test]
    fn only_what_ends_changes_the_number() {
        let mut frames = Frames::new();
        assert!(frames.partial(), "the preface is to come");
        frames.take(&[b'P'; 24]);
        let begun = frames.ended();
        frames.take(&frame(HEADERS, 0, b"abc"));
        for _ in 0..100 {
            frames.take(&frame(CONTINUATION, 0, b""));
        }
        assert_eq!(frames.ended(), begun);
        frames.take(&frame(CONTINUATION, END_HEADERS, b""));
        assert_ne!(frames.ended(), begun);
    }
}
