//! The header of an `.npy` record, written in numpy's spelling and read back without a general parser.
//!
//! Only headers in this one spelling are read: it is that of all that numpy and npcache write, and in an entry a header that
//! differs by a byte is damage. (A parser of Python literals takes 43 µs, ten times the open and read
//! of a small entry.) Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use smallvec::SmallVec;

use crate::dtype::{DType, Descr};
use crate::map::ALIGNMENT;

/// An array has at most this many dimensions, as in numpy before 2.0.
pub const MAX_NDIM: usize = 32;

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// A shape or strides: of up to four dimensions without an allocation, of which a hit would make one each.
pub(crate) type Dims = SmallVec<[i64; 4]>;

/// What a header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) descr: Descr,
    pub(crate) fortran_order: bool,
    pub(crate) shape: Dims,
}

impl Header {
    /// Bytes of the data, which follows the header; `None` where they cannot be addressed. Dimensions of length
    /// 0 do not excuse the others: numpy refuses such shapes too.
    pub(crate) fn data_len(&self) -> Option<usize> {
        let item = self.descr.itemsize().max(1);
        let extent = self.shape.iter().try_fold(item, |product, n| {
            product
                .checked_mul(usize::try_from((*n).max(1)).ok()?)
                .filter(|product| *product <= isize::MAX as usize)
        })?;
        let empty = self.descr.itemsize() == 0 || self.shape.contains(&0);
        (!self.shape.iter().any(|n| *n < 0)).then_some(if empty { 0 } else { extent })
    }

    /// Bytes from an element to the next along each dimension.
    pub(crate) fn strides(&self) -> Dims {
        let mut strides = Dims::from_elem(0, self.shape.len());
        let mut step = self.descr.itemsize() as i64;
        let mut walk = |i: usize| {
            strides[i] = step;
            step = step.saturating_mul(self.shape[i].max(1));
        };
        if self.fortran_order {
            (0..self.shape.len()).for_each(&mut walk);
        } else {
            (0..self.shape.len()).rev().for_each(&mut walk);
        }
        strides
    }
}

/// Appends a header that starts at `position` in its file, padded so that the data after it starts on a multiple
/// of [`ALIGNMENT`].
pub(crate) fn write_header(out: &mut Vec<u8>, position: u64, header: &Header) {
    let start = out.len();
    let descr = header.descr.as_str();
    let quote = if header.descr.is_structured() { "" } else { "'" };
    let order = if header.fortran_order { "True" } else { "False" };
    let mut text = format!("{{'descr': {quote}{descr}{quote}, 'fortran_order': {order}, 'shape': (");
    for (i, n) in header.shape.iter().enumerate() {
        if i > 0 {
            text.push_str(", ");
        }
        text.push_str(&n.to_string());
    }
    text.push_str(if header.shape.len() == 1 { ",), }" } else { "), }" });
    // Version 1.0 is Latin-1 with a two-byte length, which every descr fits; 3.0 is UTF-8 with four. numpy takes 1.0 for all of
    // Latin-1, and adds spaces for some arrays to grow; entries stay as they were first written.
    let preamble = if text.is_ascii() { 10 } else { 12 };
    let end = (position + (preamble + text.len() + 1) as u64).next_multiple_of(ALIGNMENT as u64);
    let total = (end - position) as usize;
    let len = (total - preamble) as u32;
    out.extend_from_slice(MAGIC);
    if text.is_ascii() {
        out.extend_from_slice(&[1, 0]);
        out.extend_from_slice(&(len as u16).to_le_bytes());
    } else {
        out.extend_from_slice(&[3, 0]);
        out.extend_from_slice(&len.to_le_bytes());
    }
    out.extend_from_slice(text.as_bytes());
    out.resize(start + total - 1, b' ');
    out.push(b'\n');
}

/// The header that `bytes` start with, and its length; `None` for anything that neither [`write_header`] nor numpy writes.
pub(crate) fn read_header(bytes: &[u8]) -> Option<(Header, usize)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (preamble, len) = match *rest.get(..6)? {
        [1, 0, a, b, ..] => (10, u16::from_le_bytes([a, b]) as usize),
        [3, 0, a, b, c, d] => (12, u32::from_le_bytes([a, b, c, d]) as usize),
        _ => return None,
    };
    let total = preamble + len;
    let mut text = bytes.get(preamble..total)?.strip_suffix(b"\n")?;
    // The padding, of up to 63 spaces: by eights, which one comparison is.
    while let Some(rest) = text.strip_suffix(b"        ") {
        text = rest;
    }
    let end = text.iter().rposition(|byte| *byte != b' ')? + 1;
    let rest = text[..end].strip_prefix(b"{'descr': ")?;
    // From the end: only there is it known what is the descr's, which may hold any text, and what is not.
    let (rest, dims) = rest.strip_suffix(b"), }").and_then(|rest| {
        let open = rest.iter().rposition(|byte| *byte == b'(')?;
        Some((rest[..open].strip_suffix(b", 'shape': ")?, &rest[open + 1..]))
    })?;
    let (rest, fortran_order) = match rest.strip_suffix(b"False") {
        Some(rest) => (rest, false),
        None => (rest.strip_suffix(b"True")?, true),
    };
    let rest = rest.strip_suffix(b", 'fortran_order': ")?;
    let descr = match rest.strip_prefix(b"'") {
        Some(rest) => rest.strip_suffix(b"'")?,
        None => rest,
    };
    let mut shape = Dims::new();
    let mut dims = dims;
    while !dims.is_empty() {
        if shape.len() == MAX_NDIM {
            return None;
        }
        let digits = dims.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(dims.len());
        let n = dims[..digits]
            .iter()
            .try_fold(0i64, |n, digit| n.checked_mul(10)?.checked_add((digit - b'0').into()));
        shape.push(n.filter(|_| digits > 0)?);
        dims = &dims[digits..];
        dims = dims.strip_prefix(b", ").or_else(|| dims.strip_prefix(b",")).unwrap_or(dims);
    }
    let descr = match DType::from_descr(descr) {
        Some(dtype) => dtype.into(),
        // Latin-1 is the first 256 characters.
        None if bytes[6] == 1 => descr.iter().copied().map(char::from).collect::<String>().parse().ok()?,
        None => std::str::from_utf8(descr).ok()?.parse().ok()?,
    };
    Some((Header { descr, fortran_order, shape }, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(descr: &str, fortran_order: bool, shape: &[i64]) -> Header {
        Header { descr: descr.parse().unwrap(), fortran_order, shape: shape.into() }
    }

    #[test]
    fn a_header_is_numpys_own_to_the_byte() {
        let mut out = Vec::new();
        write_header(&mut out, 0, &header("<f8", false, &[3, 4]));
        let text = b"{'descr': '<f8', 'fortran_order': False, 'shape': (3, 4), }";
        assert_eq!(&out[..8], b"\x93NUMPY\x01\x00");
        assert_eq!((&out[10..10 + text.len()], out.len(), out[127]), (&text[..], 128, b'\n'));
    }

    #[test]
    fn a_header_reads_back_wherever_it_starts() {
        let shapes: [&[i64]; 5] = [&[], &[0], &[7], &[2, 0, 3], &[1; MAX_NDIM]];
        for descr in ["<f8", "|b1", ">c16", "<U10", "<M8[ns]", "[('größe', '<f8'), ('b', '|S3', (2, 2))]"] {
            for (i, shape) in shapes.into_iter().enumerate() {
                for position in [0, 1, 100, 12_345] {
                    let written = header(descr, i % 2 == 1, shape);
                    let mut out = Vec::new();
                    write_header(&mut out, position, &written);
                    assert_eq!((position + out.len() as u64) % ALIGNMENT as u64, 0);
                    assert_eq!(read_header(&out), Some((written, out.len())));
                    assert_eq!(read_header(&out[..out.len() - 1]), None);
                }
            }
        }
    }

    #[test]
    fn what_numpy_writes_in_latin_1_is_read() {
        // numpy.lib.format.header_data_from_array_1_0 of numpy.zeros(2, [("\xfc", "<f8")]), less its padding.
        let text = b"{'descr': [('\xfc', '<f8')], 'fortran_order': False, 'shape': (2,), }  \n";
        let bytes = [&b"\x93NUMPY\x01\x00"[..], &(text.len() as u16).to_le_bytes(), text].concat();
        assert_eq!(read_header(&bytes), Some((header("[('ü', '<f8')]", false, &[2]), bytes.len())));
    }

    #[test]
    fn sizes_that_cannot_be_addressed_have_no_length() {
        assert_eq!(header("<f8", false, &[1 << 40, 1 << 40]).data_len(), None);
        assert_eq!(header("<f8", false, &[0, 1 << 62, 1 << 62]).data_len(), None);
        assert_eq!(header("<f8", false, &[i64::MAX]).data_len(), None);
        assert_eq!(header("<f8", false, &[-1]).data_len(), None);
        assert_eq!(header("<f8", false, &[]).data_len(), Some(8));
        assert_eq!(header("<U0", false, &[5]).data_len(), Some(0));
        assert_eq!(header("<f8", false, &[2, 0]).data_len(), Some(0));
        assert_eq!(header("<f8", true, &[2, 3]).strides()[..], [8, 16]);
        assert_eq!(header("<f8", false, &[2, 3]).strides()[..], [24, 8]);
    }
}
