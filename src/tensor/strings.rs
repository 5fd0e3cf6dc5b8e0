//! Packed strings: for each element a little-endian u32 length, then that many bytes of any value.

use bytes::{BufMut, Bytes, BytesMut};

/// Why bytes are not the strings that a shape asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StringsError {
    #[error(
        "string element {index} is cut off: its 4-byte length or its bytes reach past the end of the data"
    )]
    Truncated { index: usize },
    #[error("expected {expected} string elements, and {left_over} bytes are left over after them")]
    LeftOver { expected: usize, left_over: usize },
}

/// Checks that `data` is exactly `elements` packed strings.
pub fn check(data: &[u8], elements: usize) -> Result<(), StringsError> {
    let mut rest = data;
    for index in 0..elements {
        let (_, tail) = take(rest).ok_or(StringsError::Truncated { index })?;
        rest = tail;
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(StringsError::LeftOver { expected: elements, left_over: rest.len() })
    }
}

/// The elements of packed strings, up to the first that is cut off (none is in a checked tensor).
pub fn iter(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (element, tail) = take(rest)?;
        rest = tail;
        Some(element)
    })
}

/// Packs elements one after the other.
pub fn pack<'a>(elements: impl IntoIterator<Item = &'a [u8]>) -> Bytes {
    let mut packed = BytesMut::new();
    for element in elements {
        push(&mut packed, element);
    }
    packed.freeze()
}

/// Appends one element. Lengths over u32 cannot occur: bodies are bounded far below.
pub fn push(packed: &mut BytesMut, element: &[u8]) {
    let length = u32::try_from(element.len()).expect("a string element is shorter than 4 GiB");
    packed.put_u32_le(length);
    packed.put_slice(element);
}

fn take(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    rest.split_at_checked(u32::from_le_bytes(*length) as usize)
}

/// Walks checked packed strings element by element, counting bytes.
pub struct Cursor<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    /// Skips `count` elements and returns the position after them, in bytes.
    pub fn skip(&mut self, count: usize) -> usize {
        for _ in 0..count {
            let Some((_, rest)) = take(&self.data[self.position..]) else { break };
            self.position = self.data.len() - rest.len();
        }
        self.position
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_bytes_survive() {
        let elements = [b"".as_slice(), b"a\0b", &[0xff, 0xfe], "é".as_bytes()];
        let packed = pack(elements);
        assert_eq!(check(&packed, 4), Ok(()));
        assert_eq!(iter(&packed).collect::<Vec<_>>(), elements);
    }

    #[test]
    fn cut_or_surplus_bytes_are_refused() {
        let packed = pack([b"abc".as_slice()]);
        assert_eq!(check(&packed[..6], 1), Err(StringsError::Truncated { index: 0 }));
        assert_eq!(check(&packed, 2), Err(StringsError::Truncated { index: 1 }));
        assert_eq!(check(&packed, 0), Err(StringsError::LeftOver { expected: 0, left_over: 7 }));
        assert_eq!(check(&u32::MAX.to_le_bytes(), 1), Err(StringsError::Truncated { index: 0 }));
    }
}
