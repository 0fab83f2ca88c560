//! The subset of CBOR that canonical arguments are written in (docs/keys.md): its writer, its reader, and
//! the description of a call that is kept with its result.
//!
//! The reader accepts canonical encodings only, so that what it reads, written again, is the same bytes. It
//! trusts nothing: its input may be any bytes.

use std::borrow::Cow;
use std::fmt;

use crate::digest::{CHUNK, Content, Digest, byte_length, hex, tree_root};
use crate::dtype::{DType, Descr};
use crate::npy::MAX_NDIM;

/// Lists and maps nest at most this deep, the call's own not counted.
pub(crate) const MAX_DEPTH: usize = 64;
/// The key of a map under which Python, say, tells its type: docs/python.md.
const TYPE_KEY: &str = "npcache:type";
/// Byte strings and texts that are longer are a digest in a description.
const DESCRIBED: usize = 64;

pub(crate) const UNSIGNED: u8 = 0;
pub(crate) const NEGATIVE: u8 = 1;
pub(crate) const BYTES: u8 = 2;
pub(crate) const TEXT: u8 = 3;
pub(crate) const LIST: u8 = 4;
pub(crate) const MAP: u8 = 5;
pub(crate) const TAG: u8 = 6;

pub(crate) const TAG_POSITIVE: u64 = 2;
pub(crate) const TAG_NEGATIVE: u64 = 3;
pub(crate) const TAG_FILE: u64 = u32::from_be_bytes(*b"NPCF") as u64;
const TAG_ARRAY: u64 = 40;
const TAG_DESCR: u64 = u32::from_be_bytes(*b"NPCA") as u64;
const TAG_LONG_BYTES: u64 = u32::from_be_bytes(*b"NPCD") as u64;
const TAG_LONG_TEXT: u64 = u32::from_be_bytes(*b"NPCT") as u64;

/// RFC 8746, section 2.1.
const ELEMENT_TAGS: [(&str, u64); 22] = [
    ("|u1", 64),
    (">u2", 65),
    (">u4", 66),
    (">u8", 67),
    ("<u2", 69),
    ("<u4", 70),
    ("<u8", 71),
    ("|i1", 72),
    (">i2", 73),
    (">i4", 74),
    (">i8", 75),
    ("<i2", 77),
    ("<i4", 78),
    ("<i8", 79),
    (">f2", 80),
    (">f4", 81),
    (">f8", 82),
    (">f16", 83),
    ("<f2", 84),
    ("<f4", 85),
    ("<f8", 86),
    ("<f16", 87),
];

fn element_tag(descr: &str) -> Option<u64> {
    ELEMENT_TAGS.iter().find(|(name, _)| *name == descr).map(|(_, tag)| *tag)
}

/// A head, as short as can be.
pub(crate) fn write_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    if argument < 24 {
        out.push(major | argument as u8);
    } else if let Ok(argument) = u8::try_from(argument) {
        out.extend([major | 24, argument]);
    } else if let Ok(argument) = u16::try_from(argument) {
        out.push(major | 25);
        out.extend(argument.to_be_bytes());
    } else if let Ok(argument) = u32::try_from(argument) {
        out.push(major | 26);
        out.extend(argument.to_be_bytes());
    } else {
        out.push(major | 27);
        out.extend(argument.to_be_bytes());
    }
}

/// A text; a digest of it beyond `limit` bytes.
pub(crate) fn write_text(out: &mut Vec<u8>, text: &str, limit: usize) {
    if text.len() <= limit {
        write_head(out, TEXT, text.len() as u64);
        out.extend_from_slice(text.as_bytes());
    } else {
        write_long(out, TAG_LONG_TEXT, text.len() as u64, &tree_root(text.as_bytes()));
    }
}

/// A byte string; a digest of it beyond `limit` bytes.
pub(crate) fn write_content(out: &mut Vec<u8>, content: &Content<'_>, limit: usize) {
    match content {
        Content::Whole(bytes) if bytes.len() <= limit => {
            write_head(out, BYTES, bytes.len() as u64);
            out.extend_from_slice(bytes);
        }
        _ => write_long(out, TAG_LONG_BYTES, content.length(), &content.root()),
    }
}

fn write_long(out: &mut Vec<u8>, tag: u64, length: u64, root: &Digest) {
    write_head(out, TAG, tag);
    write_head(out, LIST, 2);
    write_head(out, UNSIGNED, length);
    write_head(out, BYTES, root.0.len() as u64);
    out.extend(root.0);
}

/// An array, whose elements beyond `limit` bytes are a digest.
pub(crate) fn write_array(
    out: &mut Vec<u8>,
    shape: &[usize],
    descr: &Descr,
    data: &Content<'_>,
    limit: usize,
) {
    write_head(out, TAG, TAG_ARRAY);
    write_head(out, LIST, 2);
    write_head(out, LIST, shape.len() as u64);
    for &length in shape {
        write_head(out, UNSIGNED, length as u64);
    }
    match element_tag(descr.as_str()) {
        Some(tag) => write_head(out, TAG, tag),
        None => {
            write_head(out, TAG, TAG_DESCR);
            write_head(out, LIST, 2);
            write_text(out, descr.as_str(), CHUNK); // a type is never a digest
        }
    }
    write_content(out, data, limit);
}

/// `f6`, `f4`, `f5`.
pub(crate) const NULL: u8 = 0xf6;
pub(crate) const FALSE: u8 = 0xf4;
pub(crate) const TRUE: u8 = 0xf5;
pub(crate) const FLOAT16: u8 = 0xf9;
pub(crate) const FLOAT32: u8 = 0xfa;
pub(crate) const FLOAT64: u8 = 0xfb;

/// One argument, read from its canonical encoding, whose bytes it borrows.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// None.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer from −2^64 to 2^64−1.
    Int(i128),
    /// Any other integer.
    BigInt {
        /// Whether it is below zero.
        negative: bool,
        /// The bytes, big-endian, of n, or where it is below zero of −1−n.
        bytes: Content<'a>,
    },
    /// An IEEE 754 binary16, by its bits.
    Float16(u16),
    /// An IEEE 754 binary32.
    Float32(f32),
    /// An IEEE 754 binary64.
    Float64(f64),
    /// A text.
    Text(&'a str),
    /// What stands for a long text.
    LongText {
        /// Its length in bytes.
        length: u64,
        /// The root of the tree over its UTF-8.
        root: Digest,
    },
    /// Bytes.
    Bytes(Content<'a>),
    /// A list or tuple.
    List(Vec<Value<'a>>),
    /// A map, in the canonical order of its keys.
    Map(Vec<(&'a str, Value<'a>)>),
    /// An array.
    Array {
        /// Its dimensions, outermost first.
        shape: Vec<usize>,
        /// Its element type.
        descr: Descr,
        /// Its elements in C order.
        data: Content<'a>,
    },
    /// What a file holds.
    File(Content<'a>),
}

/// The arguments of one call, read from their canonical encoding or from a description.
///
/// ```
/// use npcache_core::{Args, Call};
///
/// let mut args = Args::new();
/// args.add_int(3)?.add_string("x")?.key("nu")?.add_float(0.5)?;
/// let canonical = args.finish()?;
/// let call = Call::parse(canonical.bytes().unwrap()).unwrap();
/// assert_eq!(call.to_string(), r#"(3, "x", nu=0.5)"#);
/// # Ok::<(), npcache_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Call<'a> {
    /// The positional arguments.
    pub positional: Vec<Value<'a>>,
    /// The keyword arguments, in the canonical order of their names.
    pub keywords: Vec<(&'a str, Value<'a>)>,
}

impl<'a> Call<'a> {
    /// The call that these bytes are the canonical encoding of; `None` where they are of none.
    pub fn parse(bytes: &'a [u8]) -> Option<Call<'a>> {
        Reader { rest: bytes, limit: CHUNK }.call()
    }

    /// The call that [`Call::describe`] described in these bytes.
    pub fn parse_description(bytes: &'a [u8]) -> Option<Call<'a>> {
        Reader { rest: bytes, limit: DESCRIBED }.call()
    }

    /// The call's encoding, with a digest in place of every byte string and text longer than 64 bytes. Names
    /// and types are kept whole.
    pub fn describe(&self) -> Vec<u8> {
        self.encode(DESCRIBED)
    }

    fn encode(&self, limit: usize) -> Vec<u8> {
        let mut out = Vec::new();
        write_head(&mut out, LIST, 2);
        write_head(&mut out, LIST, self.positional.len() as u64);
        self.positional.iter().for_each(|value| value.encode(&mut out, limit));
        encode_map(&self.keywords, &mut out, limit);
        out
    }
}

fn encode_map(entries: &[(&str, Value<'_>)], out: &mut Vec<u8>, limit: usize) {
    write_head(out, MAP, entries.len() as u64);
    for (key, value) in entries {
        write_text(out, key, CHUNK);
        value.encode(out, limit);
    }
}

impl Value<'_> {
    /// Whether they are one argument: floats bit for bit, as in the encoding.
    pub(crate) fn same(&self, other: &Value<'_>) -> bool {
        let encoding = |value: &Value<'_>| {
            let mut out = Vec::new();
            value.encode(&mut out, usize::MAX);
            out
        };
        encoding(self) == encoding(other)
    }

    fn encode(&self, out: &mut Vec<u8>, limit: usize) {
        match self {
            Value::Null => out.push(NULL),
            Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
            Value::Int(n) if *n >= 0 => write_head(out, UNSIGNED, *n as u64),
            Value::Int(n) => write_head(out, NEGATIVE, (-1 - *n) as u64),
            Value::BigInt { negative, bytes } => {
                write_head(out, TAG, if *negative { TAG_NEGATIVE } else { TAG_POSITIVE });
                write_content(out, bytes, limit);
            }
            Value::Float16(bits) => {
                out.push(FLOAT16);
                out.extend(bits.to_be_bytes());
            }
            Value::Float32(value) => {
                out.push(FLOAT32);
                out.extend(value.to_be_bytes());
            }
            Value::Float64(value) => {
                out.push(FLOAT64);
                out.extend(value.to_be_bytes());
            }
            Value::Text(text) => write_text(out, text, limit),
            Value::LongText { length, root } => write_long(out, TAG_LONG_TEXT, *length, root),
            Value::Bytes(bytes) => write_content(out, bytes, limit),
            Value::List(items) => {
                write_head(out, LIST, items.len() as u64);
                items.iter().for_each(|item| item.encode(out, limit));
            }
            Value::Map(entries) => encode_map(entries, out, limit),
            Value::Array { shape, descr, data } => write_array(out, shape, descr, data, limit),
            Value::File(contents) => {
                write_head(out, TAG, TAG_FILE);
                write_content(out, contents, limit);
            }
        }
    }
}

/// Reads values off the front of `rest`.
struct Reader<'a> {
    rest: &'a [u8],
    /// Longer byte strings and texts must be digests, and only they may be.
    limit: usize,
}

impl<'a> Reader<'a> {
    fn call(mut self) -> Option<Call<'a>> {
        self.expect(LIST, 2)?;
        let positional = match self.head()? {
            (LIST, count) => self.list(count, 0)?,
            _ => return None,
        };
        let keywords = match self.head()? {
            (MAP, count) => self.map(count, 0)?,
            _ => return None,
        };
        self.rest.is_empty().then_some(Call { positional, keywords })
    }

    fn take(&mut self, count: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(usize::try_from(count).ok()?)?;
        self.rest = rest;
        Some(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    /// The next item's major type and argument, in its shortest form. Not for floats.
    fn head(&mut self) -> Option<(u8, u64)> {
        let [first] = self.fixed()?;
        let (argument, least) = match first & 31 {
            short @ 0..24 => (short.into(), 0),
            24 => (self.fixed::<1>()?[0].into(), 24),
            25 => (u16::from_be_bytes(self.fixed()?).into(), 1 << 8),
            26 => (u32::from_be_bytes(self.fixed()?).into(), 1 << 16),
            27 => (u64::from_be_bytes(self.fixed()?), 1 << 32),
            _ => return None, // indefinite lengths
        };
        (argument >= least).then_some((first >> 5, argument))
    }

    fn expect(&mut self, major: u8, argument: u64) -> Option<()> {
        (self.head()? == (major, argument)).then_some(())
    }

    fn unsigned(&mut self) -> Option<u64> {
        self.head().filter(|(major, _)| *major == UNSIGNED).map(|(_, argument)| argument)
    }

    fn list(&mut self, count: u64, depth: usize) -> Option<Vec<Value<'a>>> {
        (0..count).map(|_| self.value(depth)).collect()
    }

    fn map(&mut self, count: u64, depth: usize) -> Option<Vec<(&'a str, Value<'a>)>> {
        let mut entries: Vec<(&str, Value<'_>)> = Vec::new();
        for _ in 0..count {
            let key = match self.head()? {
                (TEXT, length) if length <= CHUNK as u64 => std::str::from_utf8(self.take(length)?).ok()?,
                _ => return None,
            };
            // The order of the encodings: a shorter key has the smaller head.
            if entries.last().is_some_and(|(last, _)| (last.len(), *last) >= (key.len(), key)) {
                return None;
            }
            entries.push((key, self.value(depth)?));
        }
        Some(entries)
    }

    /// A value inside `depth` lists and maps.
    fn value(&mut self, depth: usize) -> Option<Value<'a>> {
        match *self.rest.first()? {
            NULL => self.simple(Value::Null),
            FALSE => self.simple(Value::Bool(false)),
            TRUE => self.simple(Value::Bool(true)),
            FLOAT16 => self.fixed().map(|[_, a, b]| Value::Float16(u16::from_be_bytes([a, b]))),
            FLOAT32 => self.fixed().map(|[_, a, b, c, d]| Value::Float32(f32::from_be_bytes([a, b, c, d]))),
            FLOAT64 => {
                self.simple(())?;
                Some(Value::Float64(f64::from_be_bytes(self.fixed()?)))
            }
            _ => match self.head()? {
                (UNSIGNED, n) => Some(Value::Int(n.into())),
                (NEGATIVE, n) => Some(Value::Int(-1 - i128::from(n))),
                (BYTES, length) => self.whole(length).map(Value::Bytes),
                (TEXT, length) if length <= self.limit as u64 => {
                    std::str::from_utf8(self.take(length)?).ok().map(Value::Text)
                }
                (LIST, count) if depth < MAX_DEPTH => self.list(count, depth + 1).map(Value::List),
                (MAP, count) if depth < MAX_DEPTH => self.map(count, depth + 1).map(Value::Map),
                (TAG, tag) => self.tagged(tag),
                _ => None,
            },
        }
    }

    /// Passes the one byte that was seen to be `value`.
    fn simple<T>(&mut self, value: T) -> Option<T> {
        self.fixed::<1>().map(|_| value)
    }

    fn tagged(&mut self, tag: u64) -> Option<Value<'a>> {
        match tag {
            TAG_POSITIVE | TAG_NEGATIVE => {
                let bytes = self.content()?;
                let canonical = match &bytes {
                    Content::Whole(bytes) => bytes.len() > 8 && bytes[0] != 0,
                    Content::Long { .. } => true,
                };
                canonical.then_some(Value::BigInt { negative: tag == TAG_NEGATIVE, bytes })
            }
            TAG_ARRAY => self.array(),
            TAG_FILE => self.content().map(Value::File),
            TAG_LONG_BYTES => self.long().map(|(length, root)| Value::Bytes(Content::Long { length, root })),
            TAG_LONG_TEXT => self.long().map(|(length, root)| Value::LongText { length, root }),
            _ => None,
        }
    }

    fn array(&mut self) -> Option<Value<'a>> {
        self.expect(LIST, 2)?;
        let dimensions = match self.head()? {
            (LIST, count) if count <= MAX_NDIM as u64 => count,
            _ => return None,
        };
        let shape: Vec<usize> =
            (0..dimensions).map(|_| usize::try_from(self.unsigned()?).ok()).collect::<Option<_>>()?;
        let descr: Descr = match self.head()? {
            (TAG, TAG_DESCR) => {
                self.expect(LIST, 2)?;
                let text = match self.head()? {
                    (TEXT, length) => std::str::from_utf8(self.take(length)?).ok()?,
                    _ => return None,
                };
                let descr: Descr = text.parse().ok()?;
                if descr.as_str() != text || element_tag(text).is_some() {
                    return None;
                }
                descr
            }
            (TAG, tag) => ELEMENT_TAGS.iter().find(|(_, of)| *of == tag)?.0.parse().ok()?,
            _ => return None,
        };
        let data = self.content()?;
        let length = byte_length(&shape, descr.itemsize())?;
        (data.length() == length as u64).then_some(Value::Array { shape, descr, data })
    }

    /// A byte string, or the digest of one.
    fn content(&mut self) -> Option<Content<'a>> {
        match self.head()? {
            (BYTES, length) => self.whole(length),
            (TAG, TAG_LONG_BYTES) => self.long().map(|(length, root)| Content::Long { length, root }),
            _ => None,
        }
    }

    fn whole(&mut self, length: u64) -> Option<Content<'a>> {
        if length > self.limit as u64 {
            return None;
        }
        self.take(length).map(|bytes| Content::Whole(Cow::Borrowed(bytes)))
    }

    fn long(&mut self) -> Option<(u64, Digest)> {
        self.expect(LIST, 2)?;
        let length = self.unsigned()?;
        self.expect(BYTES, 32)?;
        let root = Digest(self.fixed()?);
        (length > self.limit as u64).then_some((length, root))
    }
}

/// `(3, 0.1, float64[2, 3] 1f2e3d4c…, nu=0.5)`: one line without control characters. Digits after a type or
/// size are the first of the tree root over the contents.
impl fmt::Display for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(")?;
        for (index, value) in self.positional.iter().enumerate() {
            write!(f, "{}{value}", separator(index))?;
        }
        for (index, (name, value)) in self.keywords.iter().enumerate() {
            write!(f, "{}{}={value}", separator(self.positional.len() + index), name.escape_debug())?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("none"),
            Value::Bool(value) => write!(f, "{value}"),
            Value::Int(n) => write!(f, "{n}"),
            Value::BigInt { negative, bytes } => {
                write!(f, "{}integer[{} bytes] ", if *negative { "-" } else { "" }, bytes.length())?;
                write_root(f, &bytes.root())
            }
            Value::Float16(bits) => write!(f, "float16({:?})", float16(*bits)),
            Value::Float32(value) => write!(f, "float32({value:?})"),
            Value::Float64(value) => write!(f, "{value:?}"),
            Value::Text(text) if text.len() <= DESCRIBED => write!(f, "{text:?}"),
            Value::Text(text) => {
                write!(f, "text[{} bytes] ", text.len())?;
                write_root(f, &tree_root(text.as_bytes()))
            }
            Value::LongText { length, root } => {
                write!(f, "text[{length} bytes] ")?;
                write_root(f, root)
            }
            Value::Bytes(Content::Whole(bytes)) if bytes.len() <= DESCRIBED => {
                write!(f, "b\"{}\"", bytes.escape_ascii())
            }
            Value::Bytes(bytes) => {
                write!(f, "bytes[{}] ", bytes.length())?;
                write_root(f, &bytes.root())
            }
            Value::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", separator(index))?;
                }
                f.write_str("]")
            }
            Value::Map(entries) => write_map(f, entries),
            Value::Array { shape, descr, data: Content::Whole(number) }
                if shape.is_empty() && descr.dtype() == Some(DType::Complex128) =>
            {
                let (parts, _) = number.as_chunks();
                let [re, im] =
                    [0, 1].map(|part| parts.get(part).map_or(f64::NAN, |b| f64::from_le_bytes(*b)));
                write!(f, "{re:?}{}{:?}i", if im.is_sign_negative() { '-' } else { '+' }, im.abs())
            }
            Value::Array { shape, descr, data } => {
                match descr.dtype() {
                    Some(dtype) => write!(f, "{}", format!("{dtype:?}").to_ascii_lowercase())?,
                    None => f.write_str(descr.as_str())?,
                }
                write!(f, "{shape:?} ")?;
                write_root(f, &data.root())
            }
            Value::File(contents) => {
                write!(f, "file[{} bytes] ", contents.length())?;
                write_root(f, &contents.root())
            }
        }
    }
}

fn separator(index: usize) -> &'static str {
    if index == 0 { "" } else { ", " }
}

/// `{"a": 1}`; and what a host tells apart beyond docs/keys.md by its type, as `tuple:[1, 2]`, Python's `(1, 2)`.
fn write_map(f: &mut fmt::Formatter<'_>, entries: &[(&str, Value<'_>)]) -> fmt::Result {
    let type_name = entries.iter().find_map(|(key, value)| match value {
        Value::Text(name) if *key == TYPE_KEY => Some(*name),
        _ => None,
    });
    if let Some(name) = type_name {
        write!(f, "{}:", name.escape_debug())?;
    }
    let parts: Vec<_> = entries.iter().filter(|(key, _)| type_name.is_none() || *key != TYPE_KEY).collect();
    if let (Some(_), [("items", items @ Value::List(_))]) = (type_name, &parts[..]) {
        return write!(f, "{items}");
    }
    f.write_str("{")?;
    for (index, (key, value)) in parts.into_iter().enumerate() {
        write!(f, "{}{key:?}: {value}", separator(index))?;
    }
    f.write_str("}")
}

fn write_root(f: &mut fmt::Formatter<'_>, root: &Digest) -> fmt::Result {
    write!(f, "{}…", hex(&root.0[..4]))
}

/// The value of a binary16.
fn float16(bits: u16) -> f32 {
    let magnitude = match (bits >> 10 & 31, f32::from(bits & 0x3ff)) {
        (0, fraction) => fraction / f32::from(1u16 << 12) / f32::from(1u16 << 12),
        (31, 0.0) => f32::INFINITY,
        (31, _) => f32::NAN,
        (exponent, fraction) => (1.0 + fraction / 1024.0) * (f32::from(exponent) - 15.0).exp2(),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
        digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    }

    /// The call with one positional argument, which is encoded in these hexadecimal digits.
    fn call_of(argument: &str) -> Vec<u8> {
        [hex("8281"), hex(argument), hex("a0")].concat()
    }

    #[test]
    fn examples_of_rfc_8949_are_read_and_written_back() {
        for (encoding, text) in [
            ("00", "0"),
            ("17", "23"),
            ("1818", "24"),
            ("1864", "100"),
            ("1903e8", "1000"),
            ("1a000f4240", "1000000"),
            ("1b000000e8d4a51000", "1000000000000"),
            ("1bffffffffffffffff", "18446744073709551615"),
            ("3bffffffffffffffff", "-18446744073709551616"),
            ("20", "-1"),
            ("3863", "-100"),
            ("3903e7", "-1000"),
            ("f90000", "float16(0.0)"),
            ("f98000", "float16(-0.0)"),
            ("f93c00", "float16(1.0)"),
            ("f93e00", "float16(1.5)"),
            ("f97bff", "float16(65504.0)"),
            ("f90001", "float16(5.9604645e-8)"),
            ("f90400", "float16(6.1035156e-5)"),
            ("f9c400", "float16(-4.0)"),
            ("f97c00", "float16(inf)"),
            ("f97e00", "float16(NaN)"),
            ("f9fc00", "float16(-inf)"),
            ("fa47c35000", "float32(100000.0)"),
            ("fa7f7fffff", "float32(3.4028235e38)"),
            ("fa7f800000", "float32(inf)"),
            ("fb3ff199999999999a", "1.1"),
            ("fb7e37e43c8800759c", "1e300"),
            ("fbc010666666666666", "-4.1"),
            ("fb7ff8000000000000", "NaN"),
            ("f4", "false"),
            ("f5", "true"),
            ("f6", "none"),
            ("40", r#"b"""#),
            ("4401020304", r#"b"\x01\x02\x03\x04""#),
            ("60", r#""""#),
            ("6449455446", r#""IETF""#),
            ("62225c", r#""\"\\""#),
            ("62c3bc", "\"ü\""),
            ("63e6b0b4", "\"水\""),
            ("64f0908591", "\"𐅑\""),
            ("80", "[]"),
            ("8301820203820405", "[1, [2, 3], [4, 5]]"),
            (
                "98190102030405060708090a0b0c0d0e0f101112131415161718181819",
                "[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25]",
            ),
            ("a0", "{}"),
            ("a26161016162820203", r#"{"a": 1, "b": [2, 3]}"#),
            ("826161a161626163", r#"["a", {"b": "c"}]"#),
            (
                "a56161614161626142616361436164614461656145",
                r#"{"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}"#,
            ),
        ] {
            let bytes = call_of(encoding);
            let call = Call::parse(&bytes).unwrap_or_else(|| panic!("{encoding}"));
            assert_eq!(call.to_string(), format!("({text})"));
            assert_eq!(call.encode(CHUNK), bytes);
            assert_eq!(call.describe(), bytes, "nothing of it is long");
        }
        let big = call_of("c249010000000000000000");
        assert!(matches!(
            &Call::parse(&big).unwrap().positional[..],
            [Value::BigInt { negative: false, bytes: Content::Whole(bytes) }] if bytes[..] == [1, 0, 0, 0, 0, 0, 0, 0, 0]
        ));
        let big = call_of("c349010000000000000000");
        assert!(Call::parse(&big).unwrap().to_string().starts_with("(-integer[9 bytes] "));
    }

    #[test]
    fn what_is_not_canonical_is_no_call() {
        let root = "00".repeat(32);
        for argument in [
            "1817", // a head too long
            "190018",
            "1a0000ffff",
            "1b00000000ffffffff",
            "f800", // other simple values
            "f7",
            "e0",
            "5f4101ff", // indefinite lengths
            "9fff",
            "61ff",           // not UTF-8
            "a1f600",         // a key that is no text
            "a2616200616100", // keys out of order
            "a262616100616200",
            "a2616100616100",       // and twice
            "c2480100000000000000", // a big integer that is small
            "c249000000000000000001",
            "c34801000000000000",
            "c101",       // other tags
            "4501020304", // cut short
            "9bffffffffffffffff",
            "bbffffffffffffffff",
            "5bffffffffffffffff",
            "d828828103d840420102", // an array of another size
            "d828828102d84041 01",
            "d8288281f6d840420102",                     // of no shape
            "d828828102d844420102",                     // of a reserved element type
            "d828828102da4e504341 82 63 7c7531 420102", // by descr where there is a tag
            "d828828102da4e504341 82 62 6231 420102",   // by a descr that is not canonical
            &format!("da4e504344821840 5820{root}"),    // a digest of what is not long
            &format!("da4e504354821a00100000 5820{root}"),
        ] {
            assert_eq!(Call::parse(&call_of(argument)), None, "{argument}");
        }
        assert!(Call::parse(&call_of("d828828102d840420102")).is_some());
        assert!(Call::parse(&call_of(&format!("da4e504354821a00100001 5820{root}"))).is_some());
        for call in ["", "82", "8280", "8280a000", "8180a0", "80", "82a0a0", "828080"] {
            assert_eq!(Call::parse(&hex(call)), None, "{call}");
        }
    }

    #[test]
    fn nesting_ends_at_64_levels() {
        for kind in ["81", "a16161"] {
            assert!(Call::parse(&call_of(&(kind.repeat(64) + "00"))).is_some());
            assert!(Call::parse(&call_of(&(kind.repeat(65) + "00"))).is_none());
        }
        assert!(Call::parse(&hex(&"81".repeat(1 << 20))).is_none());
    }

    #[test]
    fn a_description_keeps_everything_but_what_is_long() {
        let mut bytes = hex("8286");
        write_text(&mut bytes, &"x".repeat(64), CHUNK);
        write_text(&mut bytes, &"y".repeat(65), CHUNK);
        write_content(&mut bytes, &Content::of(&[7; 65]), CHUNK);
        let descr: Descr = format!("[('{}', '<f8', (10,))]", "a".repeat(80)).parse().unwrap();
        write_array(&mut bytes, &[1, 2], &descr, &Content::of(&[0; 160]), CHUNK);
        write_array(&mut bytes, &[], &DType::Complex128.into(), &Content::of(&[0; 16]), CHUNK);
        write_head(&mut bytes, TAG, TAG_FILE);
        write_content(&mut bytes, &Content::of(b"ab"), CHUNK);
        let key = "k".repeat(70);
        encode_map(
            &[(&key, Value::Bytes(Content::Long { length: 1 << 30, root: Digest([9; 32]) }))],
            &mut bytes,
            CHUNK,
        );

        let call = Call::parse(&bytes).unwrap();
        let description = call.describe();
        assert_eq!(Call::parse(&description), None, "a description is no call");
        let described = Call::parse_description(&description).unwrap();
        assert_eq!(described.describe(), description);
        let text = |length: usize| tree_root("y".repeat(length).as_bytes()).to_string();
        for read in [&call, &described] {
            assert_eq!(
                read.to_string(),
                format!(
                    "({:?}, text[65 bytes] {}…, bytes[65] {}…, {}[1, 2] {}…, 0.0+0.0i, file[2 bytes] {}…, {key}=bytes[1073741824] 09090909…)",
                    "x".repeat(64),
                    &text(65)[..8],
                    &tree_root(&[7; 65]).to_string()[..8],
                    descr.as_str(),
                    &tree_root(&[0; 160]).to_string()[..8],
                    &tree_root(b"ab").to_string()[..8],
                )
            );
        }
    }

    #[test]
    fn a_long_array_is_57_bytes() {
        let elements = Content::Long { length: 134_217_728, root: Digest([0; 32]) };
        let mut item = Vec::new();
        write_array(&mut item, &[4096, 4096], &DType::Float64.into(), &elements, CHUNK);
        assert_eq!(item.len(), 57);
        assert_eq!(item[..23], hex("d82882 82191000191000 d856 da4e504344 82 1a08000000")[..]);
    }

    #[test]
    fn element_types_have_the_tags_of_rfc_8746() {
        for (descr, tag) in ELEMENT_TAGS {
            let descr: Descr = descr.parse().unwrap();
            // Section 2.1: 0b010, float, signed, little-endian (of one byte: 0), then the size.
            let [order, kind] = [0, 1].map(|i| descr.as_str().as_bytes()[i]);
            let (float, signed) = (kind == b'f', kind == b'i');
            let size = descr.itemsize().ilog2() as u64 - u64::from(float);
            let bits = u64::from(float) << 4 | u64::from(signed) << 3 | u64::from(order == b'<') << 2 | size;
            assert_eq!(tag, 0b010 << 5 | bits, "{descr:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn whatever_is_read_is_canonical(
            start in prop::sample::select(vec!["", "82", "8281", "8281d82882", "8280a1", "8281c2", "8283"]),
            rest in prop::collection::vec(prop_oneof![
                any::<u8>(), Just(0x81u8), Just(0xa1), Just(0x61), Just(0), Just(0xa0), Just(0xd8), Just(0x40)
            ], 0..40),
        ) {
            let bytes = [hex(start), rest].concat();
            if let Some(call) = Call::parse(&bytes) {
                prop_assert_eq!(&call.encode(CHUNK), &bytes);
            }
            if let Some(call) = Call::parse_description(&bytes) {
                prop_assert_eq!(&call.describe(), &bytes);
            }
        }
    }
}
