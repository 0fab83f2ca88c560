//! The input is a sequence of calls of the argument builder. Beside it goes an encoder of its own, written from
//! `docs/keys.md`: both take and refuse the same calls, and end with the same bytes, which are read again and whose key is
//! that of the bytes. The input itself is read as canonical bytes, too.

use arbitrary::{Arbitrary, Unstructured};
use npcache_core::{Args, ArrayBytes, Call, Canonical, Descr, Identity, Key};

#[derive(Debug, Arbitrary)]
enum Op<'a> {
    Int(i64),
    Uint(u64),
    Big(bool, &'a [u8]),
    Float(u64),
    Float32(u32),
    Float16(u16),
    Bool(bool),
    Null,
    Text(&'a str),
    Bytes(&'a [u8]),
    Array(Array<'a>),
    List,
    Map,
    End,
    Key(&'a str),
    Finish,
    Descr(&'a str),
}

#[derive(Debug, Arbitrary)]
struct Array<'a> {
    element: u8,
    shape: Vec<u8>,
    strides: Option<[i8; 4]>,
    buffer: &'a [u8],
    offset: u8,
}

/// Element types, their sizes, and what stands before the bytes of their elements.
const ELEMENTS: [(&str, usize, &[u8]); 6] = [
    ("|u1", 1, b"\xd8\x40"),
    ("<f8", 8, b"\xd8\x56"),
    (">i2", 2, b"\xd8\x49"),
    ("|S3", 3, b"\xdaNPCA\x82\x63|S3"),
    ("<c8", 8, b"\xdaNPCA\x82\x63<c8"),
    ("[('a', '<f4'), ('b', '|i1')]", 5, b"\xdaNPCA\x82\x78\x1c[('a', '<f4'), ('b', '|i1')]"),
];

/// A list, a map or the call, of encoded values.
#[derive(Default)]
struct Frame {
    list: bool,
    map: bool,
    items: Vec<Vec<u8>>,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    key: Option<Vec<u8>>,
}

impl Frame {
    fn takes_a_value(&self) -> bool {
        !self.map || self.key.is_some()
    }

    fn take(&mut self, value: Vec<u8>) {
        match self.key.take() {
            Some(key) => self.entries.push((key, value)),
            None => self.items.push(value),
        }
    }

    fn list(&self) -> Vec<u8> {
        [head(4, self.items.len() as u64), self.items.concat()].concat()
    }

    fn map(&self) -> Vec<u8> {
        let mut entries: Vec<_> =
            self.entries.iter().map(|(key, value)| [&key[..], value].concat()).collect();
        entries.sort();
        [head(5, entries.len() as u64), entries.concat()].concat()
    }
}

fn head(major: u8, n: u64) -> Vec<u8> {
    let bytes = n.to_be_bytes();
    let (info, bytes) = match n {
        0..24 => (n as u8, &bytes[8..]),
        24..0x100 => (24, &bytes[7..]),
        0x100..0x1_0000 => (25, &bytes[6..]),
        0x1_0000..0x1_0000_0000 => (26, &bytes[4..]),
        _ => (27, &bytes[..]),
    };
    [&[major << 5 | info], bytes].concat()
}

fn tagged(head: &[u8], rest: &[u8]) -> Vec<u8> {
    [head, rest].concat()
}

fn string(major: u8, bytes: &[u8]) -> Vec<u8> {
    tagged(&head(major, bytes.len() as u64), bytes)
}

fn integer(negative: bool, magnitude: &[u8]) -> Vec<u8> {
    let strip = |bytes: &[u8]| bytes.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<u8>>();
    let mut n = strip(magnitude);
    let negative = negative && !n.is_empty();
    if negative {
        // -1 - n, so that n is one less than the magnitude.
        let last = n.iter().rposition(|byte| *byte != 0).expect("stripped");
        n[last] -= 1;
        n[last + 1..].fill(0xff);
        n = strip(&n);
    }
    match n.len() {
        0..=8 => head(negative.into(), n.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))),
        _ => tagged(&[if negative { 0xc3 } else { 0xc2 }], &string(2, &n)),
    }
}

/// The item, or `None` where an element is outside the buffer.
fn array(array: &Array<'_>) -> Option<Vec<u8>> {
    let (_, size, start) = ELEMENTS[usize::from(array.element) % ELEMENTS.len()];
    let (shape, strides) = layout(array, size);
    let mut elements = Vec::new();
    for index in 0..shape.iter().product() {
        let (mut at, mut rest) = (isize::from(array.offset), index);
        for (n, stride) in shape.iter().zip(&strides).rev() {
            at += (rest % n) as isize * stride;
            rest /= n;
        }
        elements.extend_from_slice(array.buffer.get(usize::try_from(at).ok()?..)?.get(..size)?);
    }
    let dims = shape.iter().flat_map(|n| head(0, *n as u64)).collect::<Vec<u8>>();
    let item = [&head(4, shape.len() as u64)[..], &dims, start, &string(2, &elements)].concat();
    Some(tagged(b"\xd8\x28\x82", &item))
}

fn layout(array: &Array<'_>, size: usize) -> (Vec<usize>, Vec<isize>) {
    let shape: Vec<usize> = array.shape.iter().take(4).map(|n| usize::from(*n) % 5).collect();
    let contiguous = |axis: usize| (shape[axis + 1..].iter().product::<usize>() * size) as isize;
    let strides = match array.strides {
        Some(strides) => strides[..shape.len()].iter().map(|stride| isize::from(*stride)).collect(),
        None => (0..shape.len()).map(contiguous).collect(),
    };
    (shape, strides)
}

fn add_array(args: &mut Args, given: &Array<'_>) -> bool {
    let (descr, size, _) = ELEMENTS[usize::from(given.element) % ELEMENTS.len()];
    let (shape, strides) = layout(given, size);
    let descr: Descr = descr.parse().unwrap();
    assert_eq!(descr.itemsize(), size);
    let strides = given.strides.is_some().then_some(&strides[..]);
    ArrayBytes::new(&descr, &shape, strides, given.buffer, given.offset.into())
        .is_ok_and(|array| args.add_array_bytes(&array).is_ok())
}

pub fn run(data: &[u8]) {
    read(data);
    let mut input = Unstructured::new(data);
    let (mut args, mut open) = (Args::new(), vec![Frame::default()]);
    while !input.is_empty() {
        let Ok(op) = Op::arbitrary(&mut input) else { break };
        step(&mut args, &mut open, op);
    }
    finish(&args, &open);
}

fn step(args: &mut Args, open: &mut Vec<Frame>, op: Op<'_>) {
    let depth = open.len() - 1;
    let frame = open.last_mut().expect("the call");
    let (taken, value) = match op {
        Op::Int(n) => (args.add_int(n).is_ok(), Some(integer(n < 0, &n.unsigned_abs().to_be_bytes()))),
        Op::Uint(n) => (args.add_uint(n).is_ok(), Some(integer(false, &n.to_be_bytes()))),
        Op::Big(negative, bytes) => {
            (args.add_bigint(negative, bytes).is_ok(), Some(integer(negative, bytes)))
        }
        Op::Float(bits) => {
            let taken = args.add_float(f64::from_bits(bits)).is_ok();
            (taken, Some(tagged(b"\xfb", &bits.to_be_bytes())))
        }
        Op::Float32(bits) => {
            let taken = args.add_float32(f32::from_bits(bits)).is_ok();
            (taken, Some(tagged(b"\xfa", &bits.to_be_bytes())))
        }
        Op::Float16(bits) => {
            (args.add_float16_bits(bits).is_ok(), Some(tagged(b"\xf9", &bits.to_be_bytes())))
        }
        Op::Bool(value) => (args.add_bool(value).is_ok(), Some(vec![0xf4 + u8::from(value)])),
        Op::Null => (args.add_null().is_ok(), Some(vec![0xf6])),
        Op::Text(text) => (args.add_string(text).is_ok(), Some(string(3, text.as_bytes()))),
        Op::Bytes(bytes) => (args.add_bytes(bytes).is_ok(), Some(string(2, bytes))),
        Op::Array(given) => (add_array(args, &given), array(&given)),
        Op::List | Op::Map => {
            let map = matches!(op, Op::Map);
            let taken = if map { args.begin_map() } else { args.begin_list() }.is_ok();
            assert_eq!(taken, frame.takes_a_value() && depth < 64);
            if taken {
                open.push(Frame { list: !map, map, ..Frame::default() });
            }
            return;
        }
        Op::End => {
            let taken = args.end().is_ok();
            assert_eq!(taken, depth > 0 && frame.key.is_none());
            if taken {
                let ended = open.pop().expect("not the call");
                let value = if ended.map { ended.map() } else { ended.list() };
                open.last_mut().expect("the call").take(value);
            }
            return;
        }
        Op::Key(key) => {
            let taken = args.key(key).is_ok();
            let encoded = string(3, key.as_bytes());
            let known = frame.entries.iter().any(|(other, _)| *other == encoded);
            assert_eq!(taken, !frame.list && frame.key.is_none() && !known);
            if taken {
                frame.key = Some(encoded);
            }
            return;
        }
        Op::Finish => return finish(args, open),
        Op::Descr(text) => {
            if let Ok(descr) = text.parse::<Descr>() {
                assert_eq!(descr.as_str().parse::<Descr>().unwrap(), descr);
            }
            return;
        }
    };
    assert_eq!(taken, frame.takes_a_value() && value.is_some());
    if let Some(value) = value.filter(|_| taken) {
        frame.take(value);
    }
}

fn finish(args: &Args, open: &[Frame]) {
    let finished = args.finish();
    let [call] = open else { return assert!(finished.is_err()) };
    assert_eq!(finished.is_ok(), call.key.is_none());
    let Ok(finished) = finished else { return };
    let bytes = finished.bytes().expect("the input is short");
    assert_eq!(bytes, [&[0x82][..], &call.list(), &call.map()].concat());
    let read = read(bytes).expect("canonical");
    assert_eq!((read.0, read.1), (call.items.len(), call.entries.len()));
    let identity = Identity::new("f", "1", Vec::new(), false).unwrap();
    assert_eq!(Key::new(&identity, &finished), Key::new(&identity, &Canonical::from_bytes(bytes)));
}

/// Reads bytes as a call, and tells how many arguments it has by position and by name; `None` where they are none.
fn read(bytes: &[u8]) -> Option<(usize, usize)> {
    let call = Call::parse(bytes)?;
    assert!(!call.to_string().contains(char::is_control));
    let description = call.describe();
    let described = Call::parse_description(&description).expect("a description");
    assert_eq!((described.describe(), described.to_string()), (description, call.to_string()));
    Some((call.positional.len(), call.keywords.len()))
}
