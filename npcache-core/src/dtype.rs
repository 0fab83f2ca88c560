//! What an element is: numpy's element types and the text (`descr`) by which an `.npy` file names them.
//!
//! The types that C has a type for are a [`DType`]. Every other fixed-size type is carried through by its
//! descr, [`Descr`], which is checked, put into one canonical spelling and measured here. Object types are
//! refused: reading one means running code from a file.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use crate::error::{Error, Result};

/// The element types that C has a type for. The numbers are part of the ABI and are never changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum DType {
    /// One byte, 0 or 1.
    Bool = 1,
    /// Signed, 1 byte.
    Int8 = 2,
    /// Signed, 2 bytes.
    Int16 = 3,
    /// Signed, 4 bytes.
    Int32 = 4,
    /// Signed, 8 bytes.
    Int64 = 5,
    /// Unsigned, 1 byte.
    UInt8 = 6,
    /// Unsigned, 2 bytes.
    UInt16 = 7,
    /// Unsigned, 4 bytes.
    UInt32 = 8,
    /// Unsigned, 8 bytes.
    UInt64 = 9,
    /// IEEE 754 binary16.
    Float16 = 10,
    /// IEEE 754 binary32.
    Float32 = 11,
    /// IEEE 754 binary64.
    Float64 = 12,
    /// Two binary32: real, imaginary.
    Complex64 = 13,
    /// Two binary64: real, imaginary.
    Complex128 = 14,
}

impl DType {
    /// Every type, in the order of its number.
    pub const ALL: [DType; 14] = [
        DType::Bool,
        DType::Int8,
        DType::Int16,
        DType::Int32,
        DType::Int64,
        DType::UInt8,
        DType::UInt16,
        DType::UInt32,
        DType::UInt64,
        DType::Float16,
        DType::Float32,
        DType::Float64,
        DType::Complex64,
        DType::Complex128,
    ];

    /// The type with this number.
    pub fn from_code(code: i32) -> Result<DType> {
        DType::ALL.into_iter().find(|dtype| *dtype as i32 == code).ok_or_else(|| {
            Error::Dtype(format!("dtype {code} is none of NPCACHE_BOOL (1) to NPCACHE_COMPLEX128 (14)"))
        })
    }

    /// Its descr, as numpy writes it on a little-endian machine.
    pub fn descr(self) -> &'static str {
        self.c_descr().to_str().expect("ASCII")
    }

    fn c_descr(self) -> &'static CStr {
        match self {
            DType::Bool => c"|b1",
            DType::Int8 => c"|i1",
            DType::Int16 => c"<i2",
            DType::Int32 => c"<i4",
            DType::Int64 => c"<i8",
            DType::UInt8 => c"|u1",
            DType::UInt16 => c"<u2",
            DType::UInt32 => c"<u4",
            DType::UInt64 => c"<u8",
            DType::Float16 => c"<f2",
            DType::Float32 => c"<f4",
            DType::Float64 => c"<f8",
            DType::Complex64 => c"<c8",
            DType::Complex128 => c"<c16",
        }
    }

    /// The type with this descr. Every hit asks: a match is a few comparisons of numbers.
    pub(crate) fn from_descr(descr: &[u8]) -> Option<DType> {
        Some(match descr {
            b"|b1" => DType::Bool,
            b"|i1" => DType::Int8,
            b"<i2" => DType::Int16,
            b"<i4" => DType::Int32,
            b"<i8" => DType::Int64,
            b"|u1" => DType::UInt8,
            b"<u2" => DType::UInt16,
            b"<u4" => DType::UInt32,
            b"<u8" => DType::UInt64,
            b"<f2" => DType::Float16,
            b"<f4" => DType::Float32,
            b"<f8" => DType::Float64,
            b"<c8" => DType::Complex64,
            b"<c16" => DType::Complex128,
            _ => return None,
        })
    }

    /// Bytes an element.
    pub fn itemsize(self) -> usize {
        match self {
            DType::Bool | DType::Int8 | DType::UInt8 => 1,
            DType::Int16 | DType::UInt16 | DType::Float16 => 2,
            DType::Int32 | DType::UInt32 | DType::Float32 => 4,
            DType::Int64 | DType::UInt64 | DType::Float64 | DType::Complex64 => 8,
            DType::Complex128 => 16,
        }
    }
}

/// A fixed-size element type, by numpy's name for it.
///
/// ```
/// use npcache_core::{DType, Descr};
///
/// let descr: Descr = "[('position', '<f8', (3,)), ('label', '|S4')]".parse()?;
/// assert_eq!((descr.itemsize(), descr.dtype()), (28, None));
/// assert_eq!("f8".parse::<Descr>()?, Descr::from(DType::Float64));
/// assert!("|O".parse::<Descr>().unwrap_err().to_string().contains("object"));
/// # Ok::<(), npcache_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Descr {
    text: Cow<'static, CStr>,
    itemsize: usize,
    /// Which one it is of those that C has; asked for at every hit.
    dtype: Option<DType>,
}

impl Descr {
    /// The canonical text: `<f8`, `|S5`, or `[('a', '<f4'), ('b', '<i8', (2,))]`.
    pub fn as_str(&self) -> &str {
        self.text.to_str().expect("a descr is made from text")
    }

    /// The same, as C reads it.
    pub fn as_c_str(&self) -> &CStr {
        &self.text
    }

    /// Bytes an element; 0 for `<U0`, `|S0` and `|V0`.
    pub fn itemsize(&self) -> usize {
        self.itemsize
    }

    /// The [`DType`], where this is one of them in this machine's byte order.
    pub fn dtype(&self) -> Option<DType> {
        self.dtype
    }

    /// Whether this is a structured type, which an npy header writes without quotes around it.
    pub fn is_structured(&self) -> bool {
        self.text.to_bytes().starts_with(b"[")
    }
}

impl From<DType> for Descr {
    fn from(dtype: DType) -> Descr {
        Descr { text: dtype.c_descr().into(), itemsize: dtype.itemsize(), dtype: Some(dtype) }
    }
}

impl std::str::FromStr for Descr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Descr> {
        if let Some(dtype) = DType::from_descr(text.as_bytes()) {
            return Ok(dtype.into());
        }
        let refuse = |why: String| Error::Dtype(format!("dtype `{}`: {why}", text.escape_debug()));
        if text.len() > MAX_DESCR {
            return Err(Error::Dtype(format!(
                "a dtype's descr of {} bytes; at most {MAX_DESCR}",
                text.len()
            )));
        }
        let mut parser = Parser { rest: text, canonical: String::with_capacity(text.len() + 8) };
        let itemsize =
            if text.trim_start().starts_with('[') { parser.structure(0) } else { parser.plain(text) }
                .map_err(refuse)?;
        if text.trim_start().starts_with('[') && !parser.rest.trim().is_empty() {
            return Err(refuse(format!("`{}` follows its end", parser.rest.escape_debug())));
        }
        let dtype = DType::from_descr(parser.canonical.as_bytes());
        let text = CString::new(parser.canonical).map_err(|_| refuse("it contains a NUL byte".into()))?;
        Ok(Descr { text: text.into(), itemsize, dtype })
    }
}

/// A descr longer than this is refused: `numpy.load` takes headers of up to 10,000 characters.
const MAX_DESCR: usize = 8 << 10;
/// Structured types nested deeper are refused, so that no text can exhaust the stack.
const MAX_DEPTH: u32 = 16;

/// A recursive-descent parser of numpy's `dtype.descr`, which writes the canonical text as it goes.
struct Parser<'a> {
    rest: &'a str,
    canonical: String,
}

type Parsed<T> = std::result::Result<T, String>;

impl Parser<'_> {
    /// `<f8`, `|S5`, `<M8[ns]`, `=i4`, `f8`: byte order, kind, size, unit. Writes it canonically.
    fn plain(&mut self, text: &str) -> Parsed<usize> {
        let (order, body) = match text.as_bytes().first() {
            Some(b'<' | b'>' | b'|' | b'=') => (text.as_bytes()[0], &text[1..]),
            _ => (b'=', text),
        };
        let kind = body.chars().next().ok_or("it is empty; a descr looks like `<f8`")?;
        let after = &body[kind.len_utf8()..];
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (size, unit) = after.split_at(digits);
        if kind == 'O' {
            return Err("object arrays are not stored: only plain data is ever read or written".into());
        }
        let size: usize = size.parse().map_err(|_| "its size in bytes is missing or too large")?;
        let known = match kind {
            'b' => size == 1,
            'i' | 'u' => matches!(size, 1 | 2 | 4 | 8),
            'f' => matches!(size, 2 | 4 | 8 | 16),
            'c' => matches!(size, 8 | 16 | 32),
            'm' | 'M' => size == 8,
            'S' | 'U' | 'V' => true,
            _ => false,
        };
        if !known {
            return Err("no such fixed-size type".into());
        }
        let unit = match kind {
            'm' | 'M' => time_unit(unit),
            _ => Some(String::new()).filter(|_| unit.is_empty()),
        };
        let unit = unit.ok_or_else(|| {
            format!("`{}` after its size is not understood", after[digits..].escape_debug())
        })?;
        let itemsize = if kind == 'U' { size.checked_mul(4).ok_or("its size is too large")? } else { size };
        // One byte has no order; text counts in 4-byte characters, raw bytes and |S have none.
        let order = match (kind, size) {
            ('S' | 'V' | 'b', _) | ('i' | 'u', 1) => '|',
            _ if order == b'>' => '>',
            _ => '<',
        };
        self.canonical.extend([order, kind]);
        self.canonical.push_str(&format!("{size}{unit}"));
        Ok(itemsize)
    }

    /// `[('a', '<f4'), (('title', 'b'), [...], (2, 3))]`.
    fn structure(&mut self, depth: u32) -> Parsed<usize> {
        if depth == MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels"));
        }
        self.expect('[')?;
        self.canonical.push('[');
        let mut itemsize = 0usize;
        let mut first = true;
        while !self.accept(']') {
            if !first {
                self.expect(',')?;
                if self.accept(']') {
                    break; // a trailing comma
                }
                self.canonical.push_str(", ");
            }
            first = false;
            self.expect('(')?;
            self.canonical.push('(');
            if self.accept('(') {
                self.canonical.push('(');
                self.name()?;
                self.expect(',')?;
                self.canonical.push_str(", ");
                self.name()?;
                self.accept(',');
                self.expect(')')?;
                self.canonical.push(')');
            } else {
                self.name()?;
            }
            self.expect(',')?;
            self.canonical.push_str(", ");
            let mut field = if self.rest.trim_start().starts_with('[') {
                self.structure(depth + 1)?
            } else {
                let text = self.quoted()?;
                self.canonical.push('\'');
                let size = self.plain(text)?;
                self.canonical.push('\'');
                size
            };
            if self.accept(',') && self.rest.trim_start().starts_with('(') {
                field = self.subarray()?.checked_mul(field).ok_or("its size is too large")?;
                self.accept(',');
            }
            self.expect(')')?;
            self.canonical.push(')');
            itemsize = itemsize.checked_add(field).ok_or("its size is too large")?;
        }
        self.canonical.push(']');
        if first {
            return Err("a structured type needs at least one field".into());
        }
        Ok(itemsize)
    }

    /// `(2, 3)` or `(3,)`; the number of elements. `()` is one, and needs no writing.
    fn subarray(&mut self) -> Parsed<usize> {
        self.expect('(')?;
        if self.accept(')') {
            return Ok(1);
        }
        self.canonical.push_str(", (");
        let mut count = 1usize;
        let mut dims = 0;
        while !self.accept(')') {
            if dims > 0 {
                self.canonical.push_str(", ");
            }
            self.rest = self.rest.trim_start();
            let digits = self.rest.len() - self.rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let n: usize = self.rest[..digits].parse().map_err(|_| "a subarray's shape is not understood")?;
            self.rest = &self.rest[digits..];
            self.canonical.push_str(&n.to_string());
            count = count.checked_mul(n).ok_or("its size is too large")?;
            dims += 1;
            if !self.accept(',') {
                self.expect(')')?;
                break;
            }
        }
        self.canonical.push_str(if dims == 1 { ",)" } else { ")" });
        Ok(count)
    }

    /// A field's name or title, copied to the canonical text in quotes.
    fn name(&mut self) -> Parsed<()> {
        let name = self.quoted()?;
        self.canonical.push('\'');
        self.canonical.push_str(name);
        self.canonical.push('\'');
        Ok(())
    }
}

/// The unit of a time, `[ns]` or `[25s]`, as numpy spells it: none for `[generic]`, no factor of 1. Fractions, `[s/1000]`,
/// which numpy turns into other units, are not understood.
fn time_unit(text: &str) -> Option<String> {
    const UNITS: [&str; 13] = ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"];
    if matches!(text, "" | "[generic]") {
        return Some(String::new());
    }
    let text = text.strip_prefix('[')?.strip_suffix(']')?;
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let factor = match &text[..text.len() - unit.len()] {
        "" => 1,
        digits => digits.parse::<i32>().ok().filter(|factor| *factor > 0)?,
    };
    let factor = if factor == 1 { String::new() } else { factor.to_string() };
    UNITS.contains(&unit).then(|| format!("[{factor}{unit}]"))
}

impl<'a> Parser<'a> {
    /// A quoted string without escapes: names that would need them are refused, and so have one spelling.
    fn quoted(&mut self) -> Parsed<&'a str> {
        self.rest = self.rest.trim_start();
        let quote =
            self.rest.chars().next().filter(|c| matches!(c, '\'' | '"')).ok_or("a quoted name is missing")?;
        let body = &self.rest[1..];
        let end = body.find(quote).ok_or("a quote is not closed")?;
        let text = &body[..end];
        if text.chars().any(|c| c.is_control() || matches!(c, '\'' | '"' | '\\')) {
            return Err("field names with quotes, backslashes or control characters are not supported".into());
        }
        self.rest = &body[end + 1..];
        Ok(text)
    }

    fn accept(&mut self, token: char) -> bool {
        match self.rest.trim_start().strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, token: char) -> Parsed<()> {
        if self.accept(token) { Ok(()) } else { Err(format!("`{token}` is missing")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(text: &str) -> String {
        text.parse::<Descr>().unwrap().as_str().to_owned()
    }

    #[test]
    fn every_dtype_is_its_own_descr() {
        for dtype in DType::ALL {
            let descr: Descr = dtype.descr().parse().unwrap();
            assert_eq!((descr.dtype(), descr.itemsize()), (Some(dtype), dtype.itemsize()));
            assert_eq!(DType::from_code(dtype as i32).unwrap(), dtype);
        }
        assert!(
            DType::from_code(0).is_err() && DType::from_code(-1).is_err() && DType::from_code(15).is_err()
        );
    }

    #[test]
    fn spellings_of_one_type_are_one_descr() {
        for (text, expected) in [
            ("f8", "<f8"),
            ("=f8", "<f8"),
            ("|u1", "|u1"),
            (">i1", "|i1"),
            (">f4", ">f4"),
            ("U10", "<U10"),
            ("<S5", "|S5"),
            ("M8[ns]", "<M8[ns]"),
            (">m8[25s]", ">m8[25s]"),
            ("<M8[01ns]", "<M8[ns]"),
            ("<M8[generic]", "<M8"),
            ("[('a', '<f4', ())]", "[('a', '<f4')]"),
            ("[(\"a\",'f4') , ('b', '>i8' , (3, ))]", "[('a', '<f4'), ('b', '>i8', (3,))]"),
            ("[('a', [('x', '|V3')], (2,3))]", "[('a', [('x', '|V3')], (2, 3))]"),
            ("[(('time of day', 't'), '<f8')]", "[(('time of day', 't'), '<f8')]"),
            ("[('', '|V4'), ('größe', '<f8')]", "[('', '|V4'), ('größe', '<f8')]"),
        ] {
            assert_eq!(canonical(text), expected);
            assert_eq!(canonical(expected), expected, "canonical text is a fixed point");
        }
    }

    #[test]
    fn what_is_not_a_fixed_size_type_is_refused() {
        let deep = format!("{}{}", "[('a',".repeat(40), ")]".repeat(40));
        for text in [
            "",
            "O",
            "|O8",
            "[('a', '|O')]",
            "f",
            "f3",
            "<x8",
            "[]",
            "[('a')]",
            "[('a', 'f8'",
            "[('a', 'f8')]x",
            "<f8x",
            "U99999999999999999999",
            "U9223372036854775807",
            "M8[",
            "M8[n'",
            "[('a\\'', 'f8')]",
            "[('a', 'f8', (x,))]",
            &deep,
            "日本",
        ] {
            assert!(text.parse::<Descr>().is_err(), "{text}");
        }
    }
}
