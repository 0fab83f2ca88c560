//! Audits: a share of the hits is computed again, and compared with what is stored.
//!
//! What they find is a function that does not always return the same, a version that was not changed with the code, a
//! file that the function reads and that is no argument, or a machine that computes wrongly. An audited call computes by
//! itself: nobody waits for it, and it stores nothing.

use crate::buffer::Buffer;
use crate::digest::hex;
use crate::dtype::DType;
use crate::entry::Array;
use crate::store::now;

/// Whether the hit at hand is one of the share, between 0 and 1, that is audited.
pub(crate) fn is_due(share: f64) -> bool {
    if share <= 0.0 || share >= 1.0 {
        return share >= 1.0;
    }
    // The nanoseconds, well stirred (the last steps of SplitMix64): a generator's state would be one more thing that a
    // child of `fork` shares with its parent.
    let mut x = now() as u64;
    x = x.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    ((x >> 11) as f64 / (1_u64 << 53) as f64) < share
}

/// The first thing in which two results differ, in words. Floating-point numbers do from more than `ulps` units in the
/// last place on; with 0, every bit counts.
pub(crate) fn difference(stored: &Buffer, computed: &Buffer, ulps: u64) -> Option<String> {
    let (old, new) = (stored.arrays(), computed.arrays());
    if old.len() != new.len() {
        return Some(format!("stored {} arrays, computed {}", old.len(), new.len()));
    }
    (0..old.len()).find_map(|i| {
        let (stored_form, computed_form) = (form(&old[i]), form(&new[i]));
        if stored_form != computed_form {
            return Some(format!("array {i}: stored {stored_form}, computed {computed_form}"));
        }
        let what = first_element(&old[i], stored.bytes(i), computed.bytes(i), ulps)?;
        let name = old[i].name().map(|name| format!(" `{name}`")).unwrap_or_default();
        Some(format!("array {i}{name}{what}"))
    })
}

/// What an array is, but for its elements.
fn form(array: &Array) -> String {
    let order = if array.is_fortran_order() { " in Fortran order" } else { "" };
    let name = array.name().map(|name| format!(", `{name}`")).unwrap_or_default();
    format!("{} of shape {:?}{order}{name}", array.descr().as_str(), array.shape())
}

fn first_element(array: &Array, stored: &[u8], computed: &[u8], ulps: u64) -> Option<String> {
    if stored == computed {
        return None;
    }
    let (size, dtype) = (array.descr().itemsize().max(1), array.dtype());
    let pairs = || stored.chunks_exact(size).zip(computed.chunks_exact(size));
    let differ = |(a, b): &(&[u8], &[u8])| a != b && !(ulps > 0 && are_close(dtype, a, b, ulps));
    let at = pairs().position(|pair| differ(&pair))?;
    let count = pairs().filter(differ).count();
    let (a, b) = (&stored[at * size..][..size], &computed[at * size..][..size]);
    let (mut old, mut new) = (show(dtype, a), show(dtype, b));
    if old == new {
        (old, new) = (show(None, a), show(None, b));
    }
    let of = stored.len() / size;
    let index = index_of(at, array);
    Some(format!(" at {index:?}: stored {old}, computed {new} ({count} of {of} elements differ)"))
}

/// The index of the `at`th element in memory.
fn index_of(mut at: usize, array: &Array) -> Vec<usize> {
    let mut index = vec![0; array.shape().len()];
    let mut axes: Vec<usize> = (0..index.len()).collect();
    if !array.is_fortran_order() {
        axes.reverse();
    }
    for axis in axes {
        let len = array.shape()[axis] as usize;
        (index[axis], at) = (at % len, at / len);
    }
    index
}

/// Whether two elements are floating-point numbers, real or complex, at most so many units in the last place apart.
fn are_close(dtype: Option<DType>, a: &[u8], b: &[u8], ulps: u64) -> bool {
    let (size, infinity) = match dtype {
        Some(DType::Float16) => (2, 0x7c00),
        Some(DType::Float32 | DType::Complex64) => (4, 0x7f80_0000),
        Some(DType::Float64 | DType::Complex128) => (8, 0x7ff0_0000_0000_0000),
        _ => return false,
    };
    let sign = 1_u64 << (8 * size - 1);
    let bits = |part: &[u8]| {
        let mut word = [0; 8];
        word[..size].copy_from_slice(part);
        u64::from_le_bytes(word)
    };
    a.chunks_exact(size).zip(b.chunks_exact(size)).all(|(a, b)| {
        let (a, b) = (bits(a), bits(b));
        let (size_a, size_b) = (a & !sign, b & !sign);
        if size_a.max(size_b) >= infinity {
            // An infinity is next to nothing; one NaN is as good as another.
            return a == b || size_a.min(size_b) > infinity;
        }
        let apart = if (a ^ b) & sign == 0 { size_a.abs_diff(size_b) } else { size_a + size_b };
        apart <= ulps
    })
}

/// An element as a person reads it; its bytes where the type is none of C's.
fn show(dtype: Option<DType>, bytes: &[u8]) -> String {
    macro_rules! number {
        ($number:ty) => {
            format!("{:?}", <$number>::from_le_bytes(bytes.try_into().expect("an element's size")))
        };
    }
    let (real, imaginary) = bytes.split_at(bytes.len() / 2);
    match dtype {
        Some(DType::Bool | DType::UInt8) => number!(u8),
        Some(DType::Int8) => number!(i8),
        Some(DType::Int16) => number!(i16),
        Some(DType::Int32) => number!(i32),
        Some(DType::Int64) => number!(i64),
        Some(DType::UInt16) => number!(u16),
        Some(DType::UInt32) => number!(u32),
        Some(DType::UInt64) => number!(u64),
        Some(DType::Float32) => number!(f32),
        Some(DType::Float64) => number!(f64),
        Some(DType::Complex64) => {
            format!("({}, {})", show(Some(DType::Float32), real), show(Some(DType::Float32), imaginary))
        }
        Some(DType::Complex128) => {
            format!("({}, {})", show(Some(DType::Float64), real), show(Some(DType::Float64), imaginary))
        }
        _ => format!("bytes {}", hex(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn about_the_share_that_is_asked_for_is_due() {
        let due = |share| (0..20_000).filter(|_| is_due(share)).count();
        assert_eq!((due(0.0), due(1.0)), (0, 20_000));
        // Twenty standard deviations.
        assert!((4_000..6_000).contains(&due(0.25)));
    }

    #[test]
    fn numbers_are_close_by_their_last_places() {
        let close =
            |a: f64, b: f64, ulps| are_close(Some(DType::Float64), &a.to_le_bytes(), &b.to_le_bytes(), ulps);
        let next = 1.0_f64.next_up();
        assert!(close(1.0, next, 1) && !close(1.0, next.next_up(), 1) && close(1.0, next.next_up(), 2));
        assert!(close(0.0, -0.0, 1) && close(5e-324, -5e-324, 2) && !close(5e-324, -5e-324, 1));
        assert!(!close(f64::MAX, f64::INFINITY, u64::MAX) && !close(1.0, f64::NAN, u64::MAX));
        assert!(close(f64::NAN, -f64::NAN, 1) && !close(f64::INFINITY, f64::NEG_INFINITY, u64::MAX));
        assert!(!close(1.0, -1.0, 1 << 60) && close(1.0, -1.0, u64::MAX));
        let pair = |re: f32, im: f32| [re.to_le_bytes(), im.to_le_bytes()].concat();
        let complex = |a: &[u8], b: &[u8]| are_close(Some(DType::Complex64), a, b, 4);
        assert!(complex(&pair(1.0, 2.0), &pair(1.0, 2.0_f32.next_down())));
        assert!(!complex(&pair(1.0, 2.0), &pair(1.0, 2.1)));
        assert!(!are_close(Some(DType::Int64), &[0; 8], &[1, 0, 0, 0, 0, 0, 0, 0], 9));
    }
}
