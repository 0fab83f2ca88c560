//! The builder of a call's arguments, and the canonical bytes (docs/keys.md) that it makes of them.
//!
//! Values are encoded as they are added; what is longer than 1 MiB is hashed at once and not kept. Nothing
//! is borrowed from the caller once a method has returned. A method that fails leaves the builder as it was.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use ndarray::{ArrayRef, Dimension};
use ndarray_npy::WritableElement;

use crate::cbor::{self, write_head};
use crate::digest::{self, CHUNK, Content, ContentWriter, Strided};
use crate::dtype::Descr;
use crate::error::{Error, Result};

/// The arguments of one call, added one by one.
///
/// Positional arguments come in their order; [`key`](Args::key) makes the next value a keyword argument.
/// Lists and maps are values between [`begin_list`](Args::begin_list) or [`begin_map`](Args::begin_map) and
/// [`end`](Args::end).
///
/// ```
/// use npcache_core::Args;
///
/// let mut args = Args::new();
/// args.add_int(3)?.add_array(&ndarray::arr2(&[[1.0, 2.0], [3.0, 4.0]]))?;
/// args.key("options")?.begin_map()?;
/// args.key("method")?.add_string("rk4")?.key("steps")?.add_int(100)?;
/// args.end()?;
/// assert_eq!(args.finish()?.layouts(), "C");
/// # Ok::<(), npcache_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Args {
    call: Frame,
    /// The open lists and maps, innermost last.
    open: Vec<Frame>,
}

/// A list, a map, or the call, which is both.
#[derive(Debug, Clone, Default)]
struct Frame {
    kind: Kind,
    items: Items,
    /// By the encoding of the key, whose order is the canonical one.
    entries: BTreeMap<Vec<u8>, Items>,
    /// Given, but still without its value.
    key: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Call,
    List,
    Map,
}

/// Encoded values and the layout letters of the arrays among them.
#[derive(Debug, Clone, Default)]
struct Items {
    count: u64,
    bytes: Vec<u8>,
    layouts: String,
}

impl Frame {
    /// Whether a value may come now.
    fn check(&self) -> Result<()> {
        if self.kind == Kind::Map && self.key.is_none() {
            return Err(Error::Argument("a value in a map needs a key before it".into()));
        }
        Ok(())
    }

    fn check_key_used(&self) -> Result<()> {
        match &self.key {
            Some(key) => Err(Error::Argument(format!("the key {key:?} has no value"))),
            None => Ok(()),
        }
    }

    /// Where the value that comes now is to be written. It is counted by this.
    fn slot(&mut self) -> &mut Items {
        let items = match self.key.take() {
            Some(key) => self.entries.entry(encoded_key(&key)).or_default(),
            None => &mut self.items,
        };
        items.count += 1;
        items
    }

    /// The whole, encoded.
    fn encode(&self, out: &mut Items) {
        if self.kind == Kind::Call {
            write_head(&mut out.bytes, cbor::LIST, 2);
        }
        if self.kind != Kind::Map {
            write_head(&mut out.bytes, cbor::LIST, self.items.count);
            out.bytes.extend_from_slice(&self.items.bytes);
            out.layouts.push_str(&self.items.layouts);
        }
        if self.kind != Kind::List {
            write_head(&mut out.bytes, cbor::MAP, self.entries.len() as u64);
            for (key, value) in &self.entries {
                out.bytes.extend_from_slice(key);
                out.bytes.extend_from_slice(&value.bytes);
                out.layouts.push_str(&value.layouts);
            }
        }
    }
}

fn encoded_key(key: &str) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(key.len() + 9);
    cbor::write_text(&mut encoded, key, CHUNK);
    encoded
}

impl Default for Args {
    fn default() -> Args {
        Args::new()
    }
}

impl Args {
    /// No arguments yet.
    pub fn new() -> Args {
        Args { call: Frame::default(), open: Vec::new() }
    }

    fn innermost(&mut self) -> &mut Frame {
        self.open.last_mut().unwrap_or(&mut self.call)
    }

    fn add(&mut self, write: impl FnOnce(&mut Items)) -> Result<&mut Args> {
        let frame = self.innermost();
        frame.check()?;
        write(frame.slot());
        Ok(self)
    }

    /// An integer. Its width does not count: 3 is 3, whatever the type it came from.
    pub fn add_int(&mut self, value: i64) -> Result<&mut Args> {
        self.add(|out| match u64::try_from(value) {
            Ok(value) => write_head(&mut out.bytes, cbor::UNSIGNED, value),
            Err(_) => write_head(&mut out.bytes, cbor::NEGATIVE, !value as u64),
        })
    }

    /// An integer that may be beyond `i64`.
    pub fn add_uint(&mut self, value: u64) -> Result<&mut Args> {
        self.add(|out| write_head(&mut out.bytes, cbor::UNSIGNED, value))
    }

    /// An integer of any size, by its sign and the big-endian bytes of its magnitude. Leading zero bytes and
    /// the sign of zero do not count, and a small one is the same argument as by [`add_int`](Args::add_int).
    pub fn add_bigint(&mut self, negative: bool, magnitude: &[u8]) -> Result<&mut Args> {
        let significant = |bytes: &[u8]| bytes.iter().position(|&byte| byte != 0).unwrap_or(bytes.len());
        let magnitude = &magnitude[significant(magnitude)..];
        if magnitude.is_empty() {
            return self.add_uint(0);
        }
        // CBOR's argument of a negative n is −1−n, the magnitude less one.
        let mut argument = Cow::Borrowed(magnitude);
        if negative {
            for byte in argument.to_mut().iter_mut().rev() {
                let borrows = *byte == 0;
                *byte = byte.wrapping_sub(1);
                if !borrows {
                    break;
                }
            }
        }
        let argument = &argument[significant(&argument)..];
        let (major, tag) = match negative {
            false => (cbor::UNSIGNED, cbor::TAG_POSITIVE),
            true => (cbor::NEGATIVE, cbor::TAG_NEGATIVE),
        };
        self.add(|out| {
            if argument.len() <= 8 {
                let small = argument.iter().fold(0, |value, &byte| value << 8 | u64::from(byte));
                write_head(&mut out.bytes, major, small);
            } else {
                write_head(&mut out.bytes, cbor::TAG, tag);
                cbor::write_content(&mut out.bytes, &Content::of(argument), CHUNK);
            }
        })
    }

    /// A float64. Every bit counts: −0.0 is not 0.0, and NaNs differ by their payload.
    pub fn add_float(&mut self, value: f64) -> Result<&mut Args> {
        self.add(|out| {
            out.bytes.push(cbor::FLOAT64);
            out.bytes.extend(value.to_be_bytes());
        })
    }

    /// A float32, which is never the same argument as a float64.
    pub fn add_float32(&mut self, value: f32) -> Result<&mut Args> {
        self.add(|out| {
            out.bytes.push(cbor::FLOAT32);
            out.bytes.extend(value.to_be_bytes());
        })
    }

    /// A float16, by its bits.
    pub fn add_float16_bits(&mut self, bits: u16) -> Result<&mut Args> {
        self.add(|out| {
            out.bytes.push(cbor::FLOAT16);
            out.bytes.extend(bits.to_be_bytes());
        })
    }

    /// A truth value.
    pub fn add_bool(&mut self, value: bool) -> Result<&mut Args> {
        self.add(|out| out.bytes.push(if value { cbor::TRUE } else { cbor::FALSE }))
    }

    /// None.
    pub fn add_null(&mut self) -> Result<&mut Args> {
        self.add(|out| out.bytes.push(cbor::NULL))
    }

    /// A text, as given: texts that differ in Unicode normalisation differ.
    pub fn add_string(&mut self, value: &str) -> Result<&mut Args> {
        self.add(|out| cbor::write_text(&mut out.bytes, value, CHUNK))
    }

    /// Bytes.
    pub fn add_bytes(&mut self, value: &[u8]) -> Result<&mut Args> {
        self.add(|out| cbor::write_content(&mut out.bytes, &Content::of(value), CHUNK))
    }

    /// What the regular file holds now; its path does not count. Blocks while it is read.
    pub fn add_file(&mut self, path: impl AsRef<Path>) -> Result<&mut Args> {
        self.innermost().check()?;
        let contents = Content::of_file(path.as_ref())?;
        self.add(|out| {
            write_head(&mut out.bytes, cbor::TAG, cbor::TAG_FILE);
            cbor::write_content(&mut out.bytes, &contents, CHUNK);
        })
    }

    /// An array. Arrays of equal shape, type and elements are one argument, however they lie in memory.
    pub fn add_array<A: WritableElement, D: Dimension>(
        &mut self,
        array: &ArrayRef<A, D>,
    ) -> Result<&mut Args> {
        self.innermost().check()?;
        let digest = ArrayDigest::of(array)?;
        self.add_digest(&digest)
    }

    /// An array that is given as bytes.
    pub fn add_array_bytes(&mut self, array: &ArrayBytes<'_>) -> Result<&mut Args> {
        self.innermost().check()?;
        self.add_digest(&ArrayDigest::new(array))
    }

    /// An array that was read before, as by [`add_array`](Args::add_array).
    pub fn add_digest(&mut self, digest: &ArrayDigest) -> Result<&mut Args> {
        self.add(|out| {
            out.bytes.extend_from_slice(&digest.item);
            out.layouts.push(digest.layout);
        })
    }

    /// Begins a list or tuple, whose items follow.
    pub fn begin_list(&mut self) -> Result<&mut Args> {
        self.begin(Kind::List)
    }

    /// Begins a map, whose keys and values follow in any order of the keys.
    pub fn begin_map(&mut self) -> Result<&mut Args> {
        self.begin(Kind::Map)
    }

    fn begin(&mut self, kind: Kind) -> Result<&mut Args> {
        self.innermost().check()?;
        if self.open.len() == cbor::MAX_DEPTH {
            return Err(Error::Argument(format!(
                "lists and maps nest at most {} levels deep",
                cbor::MAX_DEPTH
            )));
        }
        self.open.push(Frame { kind, ..Frame::default() });
        Ok(self)
    }

    /// Ends the innermost list or map.
    pub fn end(&mut self) -> Result<&mut Args> {
        if let Some(frame) = self.open.last() {
            frame.check_key_used()?;
        }
        match self.open.pop() {
            Some(frame) => self.add(|out| frame.encode(out)),
            None => Err(Error::Argument("there is no list or map to end".into())),
        }
    }

    /// In a map, the next value's key; outside of lists and maps, the name that makes it a keyword argument.
    /// At most 1 MiB.
    pub fn key(&mut self, key: &str) -> Result<&mut Args> {
        let frame = self.innermost();
        if frame.kind == Kind::List {
            return Err(Error::Argument(format!("the key {key:?} is in a list, where no keys belong")));
        }
        frame.check_key_used()?;
        if key.len() > CHUNK {
            return Err(Error::Argument(format!("a key of {} bytes; at most {CHUNK}", key.len())));
        }
        if frame.entries.contains_key(&encoded_key(key)) {
            return Err(Error::Argument(format!("the key {key:?} is given twice")));
        }
        frame.key = Some(key.to_owned());
        Ok(self)
    }

    /// The arguments so far as one call. More can be added afterwards, for another.
    pub fn finish(&self) -> Result<Canonical> {
        match self.open.len() {
            0 => {}
            1 => return Err(Error::Argument("a list or map is not ended".into())),
            count => return Err(Error::Argument(format!("{count} lists and maps are not ended"))),
        }
        self.call.check_key_used()?;
        let mut out = Items::default();
        self.call.encode(&mut out);
        let content = match out.bytes.len() {
            0..=CHUNK => Content::Whole(Cow::Owned(out.bytes)),
            _ => Content::of(&out.bytes).into_owned(),
        };
        Ok(Canonical { content, layouts: out.layouts })
    }
}

/// The arguments of a call as the key sees them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canonical {
    content: Content<'static>,
    layouts: String,
}

impl Canonical {
    /// Arguments as ready bytes: either the canonical encoding of a call, then they are that call's, or
    /// others, which are an identity of their own. More than 1 MiB is hashed, not copied.
    pub fn from_bytes(bytes: &[u8]) -> Canonical {
        Canonical { content: Content::of(bytes).into_owned(), layouts: String::new() }
    }

    /// The bytes, or what stands for them in the key where they are more than 1 MiB.
    pub fn content(&self) -> &Content<'static> {
        &self.content
    }

    /// The bytes, where they are at most 1 MiB.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.content {
            Content::Whole(bytes) => Some(bytes),
            Content::Long { .. } => None,
        }
    }

    /// One letter for each array, in canonical order: `C`, `F` or `S`, as it lies in memory.
    pub fn layouts(&self) -> &str {
        &self.layouts
    }
}

/// An array in a buffer of bytes, every byte of which is known to be inside the buffer.
///
/// ```
/// use npcache_core::{Args, ArrayBytes, Descr};
///
/// // Every second element, from the last to the first.
/// let buffer = [1u8, 2, 3, 4, 5, 6];
/// let descr: Descr = "|u1".parse()?;
/// let array = ArrayBytes::new(&descr, &[3], Some(&[-2]), &buffer, 5)?;
/// let mut args = Args::new();
/// args.add_array_bytes(&array)?;
/// let mut copied = Args::new();
/// copied.add_array(&ndarray::arr1(&[6u8, 4, 2]))?;
/// assert_eq!(args.finish()?.content(), copied.finish()?.content());
/// # Ok::<(), npcache_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct ArrayBytes<'a> {
    descr: &'a Descr,
    shape: &'a [usize],
    layout: char,
    elements: Strided<'a>,
}

impl<'a> ArrayBytes<'a> {
    /// An array of up to 32 dimensions whose first element, the one with index 0 in all of them, begins at
    /// `buffer[offset]`. `strides` are in bytes, of any sign; without them the array is in C order. Fails
    /// where an element would be outside the buffer.
    pub fn new(
        descr: &'a Descr,
        shape: &'a [usize],
        strides: Option<&[isize]>,
        buffer: &'a [u8],
        offset: usize,
    ) -> Result<ArrayBytes<'a>> {
        let itemsize = descr.itemsize();
        let strides = or_c_strides(strides, shape, itemsize);
        let elements = Strided::new(shape, &strides, itemsize, buffer, offset)?;
        Ok(ArrayBytes { descr, shape, layout: layout_letter(shape, &strides, itemsize), elements })
    }

    /// How many bytes such an array reaches before the beginning of its first element, and how many from
    /// there on: what a buffer must hold around the offset.
    pub fn extent(descr: &Descr, shape: &[usize], strides: Option<&[isize]>) -> Result<(usize, usize)> {
        digest::extent(shape, &or_c_strides(strides, shape, descr.itemsize()), descr.itemsize())
    }

    /// How it lies in memory: `C`, `F` or `S`.
    pub fn layout(&self) -> char {
        self.layout
    }

    /// Its element type.
    pub fn descr(&self) -> &Descr {
        self.descr
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        self.shape
    }

    /// Copies its elements to `out` in logical (C) order. `out` has room for exactly them.
    ///
    /// # Panics
    ///
    /// Where `out` has another length.
    pub fn copy_in_c_order(&self, out: &mut [u8]) {
        self.elements.copy_to(out, false);
    }

    /// Copies its elements without gaps, in Fortran order where they lie in it, else in C order.
    pub(crate) fn copy_to(&self, out: &mut [u8]) {
        self.elements.copy_to(out, self.layout == 'F');
    }
}

fn or_c_strides<'s>(strides: Option<&'s [isize]>, shape: &[usize], itemsize: usize) -> Cow<'s, [isize]> {
    strides.map_or_else(|| Cow::Owned(digest::c_strides(shape, itemsize)), Cow::Borrowed)
}

/// The layout letter of an array that fits memory.
fn layout_letter(shape: &[usize], strides: &[isize], itemsize: usize) -> char {
    if itemsize == 0 || shape.contains(&0) {
        return 'C';
    }
    let axes = || shape.iter().zip(strides).filter(|(length, _)| **length > 1);
    if is_dense(axes().rev(), itemsize) {
        'C'
    } else if is_dense(axes(), itemsize) {
        'F'
    } else {
        'S'
    }
}

/// Whether these axes, innermost first, leave no gaps.
fn is_dense<'s>(mut axes: impl Iterator<Item = (&'s usize, &'s isize)>, itemsize: usize) -> bool {
    let mut expected = itemsize;
    axes.all(|(&length, &stride)| {
        let dense = stride == expected as isize;
        expected *= length;
        dense
    })
}

/// An array that was read once and can be an argument many times, without being read again: what is kept is
/// its elements up to 1 MiB, else their digest. It does not follow later changes of the array.
///
/// ```
/// use npcache_core::{Args, ArrayDigest};
///
/// let mesh = ArrayDigest::of(&ndarray::Array3::<f64>::zeros((64, 64, 64)))?;
/// for step in 0..3 {
///     let mut args = Args::new();
///     args.add_digest(&mesh)?.add_int(step)?;
/// }
/// # Ok::<(), npcache_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayDigest {
    /// The encoded argument.
    item: Vec<u8>,
    layout: char,
}

impl ArrayDigest {
    /// Reads an array that is given as bytes.
    pub fn new(array: &ArrayBytes<'_>) -> ArrayDigest {
        ArrayDigest::of_content(array.descr, array.shape, array.layout, &array.elements.content())
    }

    fn of_content(descr: &Descr, shape: &[usize], layout: char, elements: &Content<'_>) -> ArrayDigest {
        let mut item = Vec::new();
        cbor::write_array(&mut item, shape, descr, elements, CHUNK);
        ArrayDigest { item, layout }
    }

    /// Reads an array. One whose elements fill their memory, in whatever order of axes, is read on all
    /// cores; another one element by element.
    pub fn of<A: WritableElement, D: Dimension>(array: &ArrayRef<A, D>) -> Result<ArrayDigest> {
        let descr = element_descr::<A>()?;
        let itemsize = descr.itemsize();
        let shape = array.shape();
        // Strides that count are within memory; those of axes that are never stepped along may be anything.
        let strides: Vec<isize> =
            array.strides().iter().map(|stride| stride.wrapping_mul(itemsize as isize)).collect();
        let (before, _) = digest::extent(shape, &strides, itemsize)?;
        let length = digest::byte_length(shape, itemsize).unwrap_or(0);
        let read = |bytes: &[u8]| {
            ArrayBytes::new(&descr, shape, Some(&strides), bytes, before)
                .map(|array| ArrayDigest::new(&array))
        };
        if length == 0 {
            return read(&[]);
        }
        if let Some(memory) = array.as_slice_memory_order() {
            let mut whole = InOnePiece { length, read, digest: None };
            let written = A::write_slice(memory, &mut whole);
            if let (Ok(()), Some(digest)) = (written, whole.digest) {
                return digest;
            }
        }
        let mut writer = ContentWriter::default();
        for element in array {
            element
                .write(&mut writer)
                .map_err(|fault| Error::Dtype(format!("an element of dtype {}: {fault}", descr.as_str())))?;
        }
        if writer.length() != length as u64 {
            return Err(Error::Dtype(format!(
                "elements of dtype {} were written with {} bytes in place of {length}",
                descr.as_str(),
                writer.length()
            )));
        }
        let layout = layout_letter(shape, &strides, itemsize);
        Ok(ArrayDigest::of_content(&descr, shape, layout, &writer.finish()))
    }
}

pub(crate) fn element_descr<A: WritableElement>() -> Result<Descr> {
    let literal = A::type_descriptor().to_string();
    // A Python literal: a plain type's descr is in quotes.
    literal.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')).unwrap_or(&literal).parse()
}

/// Reads the bytes that are written to it, if it gets all of them at once: then they are the elements in
/// memory, and need no copy.
struct InOnePiece<F> {
    length: usize,
    read: F,
    digest: Option<Result<ArrayDigest>>,
}

impl<F: Fn(&[u8]) -> Result<ArrayDigest>> Write for InOnePiece<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() != self.length || self.digest.is_some() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        self.digest = Some((self.read)(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cbor::Call;
    use crate::key::{Identity, Key};
    use ndarray::{Array, Array1, Array2, Axis, ShapeBuilder, arr0, arr1, s};
    use num_complex::Complex;
    use proptest::prelude::*;
    use proptest::sample::Index;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The encoding of one argument.
    fn encoded(add: impl FnOnce(&mut Args) -> Result<&mut Args>) -> String {
        let mut args = Args::new();
        add(&mut args).unwrap();
        let call = hex(args.finish().unwrap().bytes().unwrap());
        call.strip_prefix("8281").and_then(|call| call.strip_suffix("a0")).unwrap().to_owned()
    }

    fn content<A: WritableElement, D: Dimension>(array: &ArrayRef<A, D>) -> Content<'static> {
        let mut args = Args::new();
        args.add_array(array).unwrap();
        args.finish().unwrap().content
    }

    fn layouts<A: WritableElement, D: Dimension>(array: &ArrayRef<A, D>) -> String {
        let mut args = Args::new();
        args.add_array(array).unwrap();
        args.finish().unwrap().layouts
    }

    #[test]
    fn the_builder_can_go_between_threads() {
        fn check<T: Send + Sync>() {}
        check::<Args>();
        check::<Canonical>();
        check::<ArrayDigest>();
    }

    #[test]
    fn the_call_without_arguments_is_three_bytes() {
        assert_eq!(Args::new().finish().unwrap().bytes().unwrap(), [0x82, 0x80, 0xa0]);
    }

    #[test]
    fn integers_have_one_encoding_whatever_they_came_from() {
        for (value, encoding) in [
            (0, "00"),
            (23, "17"),
            (24, "1818"),
            (1000, "1903e8"),
            (-1, "20"),
            (-1000, "3903e7"),
            (i64::MAX, "1b7fffffffffffffff"),
            (i64::MIN, "3b7fffffffffffffff"),
        ] {
            assert_eq!(encoded(|args| args.add_int(value)), encoding);
            let magnitude = [&[0, 0][..], &value.unsigned_abs().to_be_bytes()].concat();
            assert_eq!(encoded(|args| args.add_bigint(value < 0, &magnitude)), encoding);
            if value >= 0 {
                assert_eq!(encoded(|args| args.add_uint(value as u64)), encoding);
            }
        }
        assert_eq!(encoded(|args| args.add_uint(u64::MAX)), "1bffffffffffffffff");
        for (negative, magnitude, encoding) in [
            (false, &[][..], "00"),
            (true, &[], "00"),
            (true, &[0, 0], "00"),
            (true, &[1], "20"),
            (false, &[1, 0, 0, 0, 0, 0, 0, 0, 0], "c249010000000000000000"),
            (true, &[1, 0, 0, 0, 0, 0, 0, 0, 0], "3bffffffffffffffff"),
            (true, &[1, 0, 0, 0, 0, 0, 0, 0, 1], "c349010000000000000000"),
            (true, &[0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], "c349ffffffffffffffffff"),
        ] {
            assert_eq!(encoded(|args| args.add_bigint(negative, magnitude)), encoding);
        }
    }

    #[test]
    fn values_are_encoded_as_documented() {
        assert_eq!(encoded(Args::add_null), "f6");
        assert_eq!(encoded(|args| args.add_bool(false)), "f4");
        assert_eq!(encoded(|args| args.add_bool(true)), "f5");
        assert_eq!(encoded(|args| args.add_float(1.1)), "fb3ff199999999999a");
        assert_eq!(encoded(|args| args.add_float(1.0)), "fb3ff0000000000000", "floats are never shortened");
        assert_eq!(encoded(|args| args.add_float(-0.0)), "fb8000000000000000");
        let nan = f64::from_bits(0xfff0_0000_0000_0001);
        assert_eq!(encoded(|args| args.add_float(nan)), "fbfff0000000000001");
        assert_eq!(encoded(|args| args.add_float32(100000.0)), "fa47c35000");
        assert_eq!(encoded(|args| args.add_float16_bits(0x3c00)), "f93c00");
        assert_eq!(encoded(|args| args.add_string("水")), "63e6b0b4");
        assert_eq!(encoded(|args| args.add_bytes(&[1, 2, 3, 4])), "4401020304");
        assert_eq!(
            encoded(|args| args.begin_list()?.add_int(1)?.begin_list()?.add_int(2)?.end()?.end()),
            "82018102"
        );
        assert_eq!(
            encoded(|args| args.begin_map()?.key("b")?.begin_list()?.end()?.key("a")?.add_int(1)?.end()),
            "a2616101616280"
        );
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "IETF").unwrap();
        assert_eq!(encoded(|args| args.add_file(file.path())), "da4e5043464449455446");
    }

    #[test]
    fn keys_are_sorted_by_their_encoding() {
        let mut args = Args::new();
        for (index, key) in ["aa", "b", "", "a", "é", &"c".repeat(24)].iter().enumerate() {
            args.key(key).unwrap().add_int(index as i64).unwrap();
        }
        let expected =
            format!("8280a66002616103616201626161 0062c3a9047818{}05", "63".repeat(24)).replace(' ', "");
        assert_eq!(hex(args.finish().unwrap().bytes().unwrap()), expected);
    }

    #[test]
    fn arrays_are_encoded_as_documented() {
        assert_eq!(encoded(|args| args.add_array(&arr1(&[1u8, 2]))), "d828828102d840420102");
        assert_eq!(
            encoded(|args| args.add_array(&arr1(&[true]))),
            "d828828101da4e5043418263".to_owned() + "7c62314101"
        );
        assert_eq!(
            encoded(|args| args.add_array(&arr0(Complex::new(1.0f32, -2.0)))),
            "d8288280da4e50434182633c633848".to_owned() + "0000803f000000c0"
        );
        assert_eq!(encoded(|args| args.add_array(&Array2::<f64>::zeros((0, 3)))), "d82882820003d85640");
        let descr: Descr = ">f8".parse().unwrap();
        let buffer = 1.0f64.to_be_bytes();
        let array = ArrayBytes::new(&descr, &[], None, &buffer, 0).unwrap();
        assert_eq!(encoded(|args| args.add_array_bytes(&array)), "d8288280d852483ff0000000000000");
    }

    #[test]
    fn how_an_array_lies_in_memory_does_not_count() {
        let c = Array::from_shape_fn((5, 7, 3), |(i, j, k)| (i * 100 + j * 10 + k) as f64);
        let mut f = Array::zeros((5, 7, 3).f());
        f.assign(&c);
        let mut backwards = c.clone();
        backwards.invert_axis(Axis(1));
        let backwards_copy = Array::from_shape_vec((5, 7, 3), backwards.iter().copied().collect()).unwrap();
        assert_eq!(content(&f), content(&c));
        assert_eq!(content(&backwards), content(&backwards_copy));
        let wide = Array::from_shape_fn((10, 7, 6), |(i, j, k)| (i / 2 * 100 + j * 10 + k / 2) as f64);
        assert_eq!(content(&wide.slice(s![..;2, .., ..;2])), content(&c));
        assert_eq!([layouts(&c), layouts(&f), layouts(&backwards)], ["C", "F", "S"]);
        assert_ne!(content(&c), content(&c.to_shape((7, 5, 3)).unwrap()), "the shape counts");

        // Longer than 1 MiB: gathered by chunks, or hashed as it is iterated.
        let c = Array::from_shape_fn((600, 500), |(i, j)| (i * 500 + j) as f64);
        let t = Array::from_shape_fn((500, 600), |(i, j)| (j * 500 + i) as f64);
        let wide = Array::from_shape_fn((600, 1000), |(i, j)| (i * 500 + j / 2) as f64);
        assert_eq!(content(&t.t()), content(&c));
        assert_eq!(content(&wide.slice(s![.., ..;2])), content(&c));
    }

    #[test]
    fn layout_letters_are_as_documented() {
        let letter = |shape: &[usize], strides: &[isize]| layout_letter(shape, strides, 8);
        assert_eq!(letter(&[], &[]), 'C');
        assert_eq!(letter(&[3], &[8]), 'C');
        assert_eq!(letter(&[3], &[16]), 'S');
        assert_eq!(letter(&[3], &[-8]), 'S');
        assert_eq!(letter(&[1], &[99]), 'C');
        assert_eq!(letter(&[0, 3], &[1, 1]), 'C');
        assert_eq!(letter(&[2, 3], &[24, 8]), 'C');
        assert_eq!(letter(&[2, 3], &[8, 16]), 'F');
        assert_eq!(letter(&[2, 1, 3], &[8, 5, 16]), 'F');
        assert_eq!(letter(&[1, 3, 1], &[7, 8, 7]), 'C');
        assert_eq!(letter(&[2, 3], &[0, 8]), 'S');
        assert_eq!(letter(&[2, 3, 4], &[8, 64, 16]), 'S');
        let mut args = Args::new();
        let t = Array2::<f64>::zeros((3, 2));
        args.key("z").unwrap().add_array(&t.t()).unwrap();
        args.key("a")
            .unwrap()
            .begin_list()
            .unwrap()
            .add_array(&t.slice(s![..;2, ..]))
            .unwrap()
            .end()
            .unwrap();
        args.add_array(&t).unwrap();
        assert_eq!(args.finish().unwrap().layouts(), "CSF", "positional first, then by name");
    }

    #[test]
    fn a_digest_stands_for_its_array() {
        for array in [Array1::<f32>::ones(10), Array1::ones(CHUNK)] {
            let digest = ArrayDigest::of(&array).unwrap();
            let mut args = Args::new();
            args.add_digest(&digest).unwrap();
            assert_eq!(args.finish().unwrap().content, content(&array));
        }
    }

    #[test]
    fn what_is_longer_than_1_mib_is_a_digest() {
        let long = "x".repeat(CHUNK + 1);
        let root = digest::tree_root(long.as_bytes());
        let digest = format!("821a001000015820{root}");
        assert_eq!(encoded(|args| args.add_bytes(long.as_bytes())), format!("da4e504344{digest}"));
        assert_eq!(encoded(|args| args.add_string(&long)), format!("da4e504354{digest}"));
        let elements = arr1(long.as_bytes());
        assert_eq!(
            encoded(|args| args.add_array(&elements)),
            format!("d82882811a00100001d840da4e504344{digest}")
        );
        assert_eq!(encoded(|args| args.add_bigint(false, long.as_bytes())), format!("c2da4e504344{digest}"));
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &long).unwrap();
        assert_eq!(encoded(|args| args.add_file(file.path())), format!("da4e504346da4e504344{digest}"));

        // Only what is longer: this one is kept, and makes the whole call longer.
        let mut args = Args::new();
        args.add_string(&long[1..]).unwrap();
        let call = [&[0x82, 0x81, 0x7a, 0, 0x10, 0, 0][..], &long.as_bytes()[1..], &[0xa0]].concat();
        assert_eq!(args.finish().unwrap().content, Content::of(&call));
        assert_eq!(args.finish().unwrap(), Canonical::from_bytes(&call));
    }

    #[test]
    fn misuse_is_an_error_that_changes_nothing() {
        let mut args = Args::new();
        let message = |result: Result<&mut Args>| result.err().unwrap().to_string();
        assert_eq!(message(args.end()), "there is no list or map to end");
        args.begin_list().unwrap();
        assert_eq!(message(args.key("a")), "the key \"a\" is in a list, where no keys belong");
        args.begin_map().unwrap();
        for value in [Args::add_null, Args::begin_list, Args::begin_map] {
            assert_eq!(message(value(&mut args)), "a value in a map needs a key before it");
        }
        assert!(args.add_array(&arr1(&[1.0])).is_err() && args.add_file("/nowhere").is_err());
        args.key("a").unwrap();
        assert_eq!(message(args.key("b")), "the key \"a\" has no value");
        assert_eq!(message(args.end()), "the key \"a\" has no value");
        assert!(message(args.add_file("/nowhere")).contains("/nowhere"));
        args.add_int(1).unwrap();
        assert_eq!(message(args.key("a")), "the key \"a\" is given twice");
        assert_eq!(args.finish().unwrap_err().to_string(), "2 lists and maps are not ended");
        args.end().unwrap();
        assert_eq!(args.finish().unwrap_err().to_string(), "a list or map is not ended");
        args.end().unwrap().key("last").unwrap();
        assert_eq!(args.finish().unwrap_err().to_string(), "the key \"last\" has no value");
        args.add_null().unwrap();
        assert_eq!(message(args.key("last")), "the key \"last\" is given twice");
        assert_eq!(message(args.key(&"k".repeat(CHUNK + 1))), "a key of 1048577 bytes; at most 1048576");
        assert_eq!(hex(args.finish().unwrap().bytes().unwrap()), "828181a1616101a1646c617374f6");

        let mut deep = Args::new();
        for _ in 0..64 {
            deep.begin_list().unwrap();
        }
        assert_eq!(message(deep.begin_map()), "lists and maps nest at most 64 levels deep");
        for _ in 0..64 {
            deep.end().unwrap();
        }
        assert!(Call::parse(deep.finish().unwrap().bytes().unwrap()).is_some());
    }

    #[test]
    fn a_finished_builder_goes_on() {
        let mut args = Args::new();
        args.add_int(1).unwrap();
        let one = args.finish().unwrap();
        assert_eq!(args.clone().finish().unwrap(), one);
        args.add_int(2).unwrap();
        assert_eq!(hex(args.finish().unwrap().bytes().unwrap()), "82820102a0");
    }

    /// An argument, as raw bits of which each counts.
    #[derive(Debug, Clone)]
    enum Argument {
        Int(i64),
        Uint(u64),
        Big(bool, Vec<u8>),
        Float(u64),
        Float32(u32),
        Float16(u16),
        Bool(bool),
        Null,
        Text(Vec<u8>),
        Bytes(Vec<u8>),
        /// Elements of two bytes, in two columns, and how they lie in memory.
        Array(Vec<[i16; 2]>, bool),
        List(Vec<Argument>),
        Map(Vec<Argument>),
    }

    fn arguments() -> impl Strategy<Value = Vec<Argument>> {
        let bytes = || prop::collection::vec(any::<u8>(), 0..40);
        let leaf = prop_oneof![
            any::<i64>().prop_map(Argument::Int),
            (-30..30i64).prop_map(Argument::Int),
            any::<u64>().prop_map(Argument::Uint),
            (any::<bool>(), bytes()).prop_map(|(negative, magnitude)| Argument::Big(negative, magnitude)),
            any::<u64>().prop_map(Argument::Float),
            any::<u32>().prop_map(Argument::Float32),
            any::<u16>().prop_map(Argument::Float16),
            any::<bool>().prop_map(Argument::Bool),
            Just(Argument::Null),
            prop::collection::vec(0..128u8, 0..40).prop_map(Argument::Text),
            bytes().prop_map(Argument::Bytes),
            (prop::collection::vec(any::<[i16; 2]>(), 0..8), any::<bool>())
                .prop_map(|(rows, transposed)| Argument::Array(rows, transposed)),
        ];
        let value = leaf.prop_recursive(4, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Argument::List),
                prop::collection::vec(inner, 0..4).prop_map(Argument::Map),
            ]
        });
        prop::collection::vec(value, 0..6)
    }

    impl Argument {
        fn add(&self, args: &mut Args) -> Result<()> {
            match self {
                Argument::Int(value) => args.add_int(*value)?,
                Argument::Uint(value) => args.add_uint(*value)?,
                Argument::Big(negative, magnitude) => args.add_bigint(*negative, magnitude)?,
                Argument::Float(bits) => args.add_float(f64::from_bits(*bits))?,
                Argument::Float32(bits) => args.add_float32(f32::from_bits(*bits))?,
                Argument::Float16(bits) => args.add_float16_bits(*bits)?,
                Argument::Bool(value) => args.add_bool(*value)?,
                Argument::Null => args.add_null()?,
                Argument::Text(ascii) => args.add_string(std::str::from_utf8(ascii).unwrap())?,
                Argument::Bytes(bytes) => args.add_bytes(bytes)?,
                Argument::Array(rows, transposed) => {
                    let mut array = if *transposed {
                        Array2::zeros((rows.len(), 2).f())
                    } else {
                        Array2::zeros((rows.len(), 2))
                    };
                    array.assign(&ndarray::arr2(rows));
                    args.add_array(&array)?
                }
                Argument::List(items) => {
                    args.begin_list()?;
                    items.iter().try_for_each(|item| item.add(args))?;
                    args.end()?
                }
                Argument::Map(values) => {
                    args.begin_map()?;
                    add_named(args, values.iter().enumerate())?;
                    args.end()?
                }
            };
            Ok(())
        }

        /// Changes one bit; false where there is none.
        fn flip(&mut self, bit: &Index) -> bool {
            let within = |length: usize| (length > 0).then(|| bit.index(length));
            match self {
                Argument::Int(value) => *value ^= 1 << bit.index(64),
                Argument::Uint(value) => *value ^= 1 << bit.index(64),
                Argument::Big(negative, magnitude) => match within(8 * magnitude.len()) {
                    Some(bit) => magnitude[bit / 8] ^= 1 << (bit % 8),
                    None => {
                        (*negative, *magnitude) = (false, vec![1]);
                    }
                },
                Argument::Float(bits) => *bits ^= 1 << bit.index(64),
                Argument::Float32(bits) => *bits ^= 1 << bit.index(32),
                Argument::Float16(bits) => *bits ^= 1 << bit.index(16),
                Argument::Bool(value) => *value = !*value,
                Argument::Null => return false,
                Argument::Text(ascii) => match within(7 * ascii.len()) {
                    Some(bit) => ascii[bit / 7] ^= 1 << (bit % 7),
                    None => return false,
                },
                Argument::Bytes(bytes) => match within(8 * bytes.len()) {
                    Some(bit) => bytes[bit / 8] ^= 1 << (bit % 8),
                    None => return false,
                },
                Argument::Array(rows, _) => match within(32 * rows.len()) {
                    Some(bit) => rows[bit / 32][bit / 16 % 2] ^= 1 << (bit % 16),
                    None => return false,
                },
                Argument::List(items) | Argument::Map(items) => match within(items.len()) {
                    Some(item) => return items[item].flip(bit),
                    None => return false,
                },
            }
            true
        }

        /// The same argument in another memory order.
        fn transposed(&self) -> Argument {
            match self {
                Argument::Array(rows, transposed) => Argument::Array(rows.clone(), !transposed),
                Argument::List(items) => Argument::List(items.iter().map(Argument::transposed).collect()),
                Argument::Map(values) => Argument::Map(values.iter().map(Argument::transposed).collect()),
                other => other.clone(),
            }
        }
    }

    fn add_named<'v>(args: &mut Args, values: impl Iterator<Item = (usize, &'v Argument)>) -> Result<()> {
        for (index, value) in values {
            args.key(&"k".repeat(index % 3 + 1).replacen('k', &index.to_string(), 1))?;
            value.add(args)?;
        }
        Ok(())
    }

    fn call(positional: &[Argument], keywords: &[Argument]) -> Canonical {
        let mut args = Args::new();
        positional.iter().try_for_each(|value| value.add(&mut args)).unwrap();
        add_named(&mut args, keywords.iter().enumerate()).unwrap();
        args.finish().unwrap()
    }

    fn key(call: &Canonical) -> Key {
        Key::new(&Identity::new("f", "1", Vec::new(), false).unwrap(), call)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn one_changed_bit_changes_the_key(
            positional in arguments(), keywords in arguments(), which: Index, bit: Index,
        ) {
            let before = key(&call(&positional, &keywords));
            let (mut positional, mut keywords) = (positional, keywords);
            let count = positional.len() + keywords.len();
            if count > 0 && positional.iter_mut().chain(&mut keywords).nth(which.index(count)).unwrap().flip(&bit) {
                prop_assert_ne!(key(&call(&positional, &keywords)), before);
            }
        }

        #[test]
        fn keyword_and_memory_order_never_change_it(positional in arguments(), keywords in arguments()) {
            let mut args = Args::new();
            let reversed: Vec<_> = keywords.iter().map(Argument::transposed).collect();
            add_named(&mut args, reversed.iter().enumerate().rev()).unwrap();
            positional.iter().try_for_each(|value| value.transposed().add(&mut args)).unwrap();
            let again = args.finish().unwrap();
            prop_assert_eq!(&again.content, &call(&positional, &keywords).content);
        }

        #[test]
        fn what_is_written_is_read_again(positional in arguments(), keywords in arguments()) {
            let canonical = call(&positional, &keywords);
            let bytes = canonical.bytes().unwrap();
            let read = Call::parse(bytes).unwrap();
            prop_assert_eq!((read.positional.len(), read.keywords.len()), (positional.len(), keywords.len()));
            let description = read.describe();
            let described = Call::parse_description(&description).unwrap();
            prop_assert_eq!(described.describe(), description.clone());
            prop_assert_eq!(described.to_string(), read.to_string());
            prop_assert!(!read.to_string().contains(char::is_control));
        }
    }
}
