//! Where a JSON string stops being ordinary, found sixteen bytes at a time.

/// How many bytes stand before the first quote, backslash or control character.
#[inline]
pub(super) fn ordinary(bytes: &[u8]) -> usize {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    for (index, block) in blocks.iter().enumerate() {
        let before = ordinary_of(block);
        if before < BLOCK {
            return index * BLOCK + before;
        }
    }
    blocks.len() * BLOCK + rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..b' ')).count()
}

const BLOCK: usize = 16;

/// Each byte compared by itself, a bit for each: most strings end within one block.
#[cfg(target_arch = "x86_64")]
#[inline]
fn ordinary_of(block: &[u8; BLOCK]) -> usize {
    use std::arch::x86_64::{__m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8};
    // SAFETY: SSE2 is part of x86_64, and sixteen bytes are read from an array of sixteen; they need no alignment.
    let marked = unsafe {
        let bytes = _mm_loadu_si128(block.as_ptr().cast::<__m128i>());
        let all = |byte: u8| _mm_set1_epi8(byte.cast_signed());
        let quotes = _mm_or_si128(_mm_cmpeq_epi8(bytes, all(b'"')), _mm_cmpeq_epi8(bytes, all(b'\\')));
        let controls = _mm_cmpeq_epi8(_mm_min_epu8(bytes, all(b' ' - 1)), bytes);
        _mm_movemask_epi8(_mm_or_si128(quotes, controls))
    };
    // Sixteen where no bit is set.
    (marked.cast_unsigned() | 1 << BLOCK).trailing_zeros() as usize
}

/// The same in two words.
#[cfg(not(target_arch = "x86_64"))]
fn ordinary_of(block: &[u8; BLOCK]) -> usize {
    in_words(block)
}

/// Each byte of a word by itself.
#[cfg(any(test, not(target_arch = "x86_64")))]
fn in_words(block: &[u8; BLOCK]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const TOPS: u64 = ONES << 7;
    let (words, _) = block.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let (quote, backslash) = (word ^ (ONES * u64::from(b'"')), word ^ (ONES * u64::from(b'\\')));
        // A byte that is below what is taken from it borrows into its top bit. The lowest that is marked is right; a borrow may mark others
        // above it. A byte of another script has its top bit set, here and in both differences.
        let below = word.wrapping_sub(ONES * u64::from(b' ')) | quote.wrapping_sub(ONES) | backslash.wrapping_sub(ONES);
        let marked = below & !word & TOPS;
        if marked != 0 {
            return index * 8 + marked.trailing_zeros() as usize / 8;
        }
    }
    BLOCK
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one_by_one(bytes: &[u8]) -> usize {
        bytes.iter().take_while(|byte| **byte >= b' ' && **byte != b'"' && **byte != b'\\').count()
    }

    #[test]
    fn every_byte_at_every_place_of_a_block_is_told_as_by_itself() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK {
                let mut block = [b'a'; BLOCK];
                block[place] = byte;
                assert_eq!((ordinary_of(&block), in_words(&block)), (one_by_one(&block), one_by_one(&block)), "{byte} at {place}");
            }
        }
    }

    proptest! {
        #[test]
        fn the_first_unusual_byte_is_found_wherever_it_stands(bytes in proptest::collection::vec(prop_oneof![9 => b' '..=u8::MAX, 1 => any::<u8>()], 0..80)) {
            prop_assert_eq!(ordinary(&bytes), one_by_one(&bytes));
        }
    }
}
