//! The numbers in an array of any element type that has them, one by one.

use npcache_core::{Array, Descr};
use serde_json::{Value as Json, json};

/// One element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    Int(i128),
    Float(f64),
    /// As exact as its 32 bits, or fewer.
    Single(f32),
}

impl Number {
    pub fn value(self) -> f64 {
        match self {
            Number::Int(n) => n as f64,
            Number::Float(x) => x,
            Number::Single(x) => x.into(),
        }
    }

    fn json(self) -> Json {
        match self {
            Number::Int(n) => i64::try_from(n).map_or_else(|_| json!(n as u64), |n| json!(n)),
            // As short as the single precision number is written.
            Number::Single(x) => x.to_string().parse::<f64>().map_or(Json::Null, |x| json!(x)),
            Number::Float(x) => json!(x),
        }
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Number::Int(n) => write!(f, "{n}"),
            // `{:?}` has exponents where `{}` would have hundreds of zeros.
            Number::Single(x) => write!(f, "{x:?}"),
            Number::Float(x) => write!(f, "{x:?}"),
        }
    }
}

/// An array's elements as numbers.
pub struct Numbers<'a> {
    bytes: &'a [u8],
    itemsize: usize,
    read: fn(&[u8]) -> Number,
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Of complex elements it is the magnitudes.
    pub complex: bool,
}

impl<'a> Numbers<'a> {
    /// `None` where the elements are no numbers.
    pub fn new(array: &Array, bytes: &'a [u8]) -> Option<Numbers<'a>> {
        let read = reader(array.descr())?;
        let complex = array.descr().as_str().as_bytes()[1] == b'c';
        let sizes = |sizes: &[i64]| sizes.iter().map(|n| *n as usize).collect::<Vec<_>>();
        let (shape, strides) = (sizes(array.shape()), sizes(array.strides()));
        Some(Numbers { bytes, itemsize: array.descr().itemsize(), read, shape, strides, complex })
    }

    pub fn len(&self) -> usize {
        self.bytes.len() / self.itemsize
    }

    /// All of them, as they lie in memory.
    pub fn iter(&self) -> impl Iterator<Item = Number> {
        self.bytes.chunks_exact(self.itemsize).map(self.read)
    }

    /// Rows and columns of the last two dimensions; an array of fewer has one row.
    pub fn extent(&self) -> (usize, usize) {
        match *self.shape {
            [] => (1, 1),
            [n] => (1, n),
            [.., rows, columns] => (rows, columns),
        }
    }

    /// An element of the last two dimensions, the first in all others.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        let offset = match *self.strides {
            [] => 0,
            [step] => column * step,
            [.., down, across] => row * down + column * across,
        };
        (self.read)(&self.bytes[offset..][..self.itemsize]).value()
    }
}

fn reader(descr: &Descr) -> Option<fn(&[u8]) -> Number> {
    macro_rules! read {
        ($kind:ident, $type:ty, $from:ident) => {
            |bytes| Number::$kind(<$type>::$from(bytes.try_into().expect("an element")).into())
        };
    }
    macro_rules! magnitude {
        ($kind:ident, $type:ty, $from:ident) => {
            |bytes| {
                let (re, im) = bytes.split_at(size_of::<$type>());
                let part = |bytes: &[u8]| <$type>::$from(bytes.try_into().expect("a part"));
                Number::$kind(part(re).hypot(part(im)))
            }
        };
    }
    Some(match descr.as_str() {
        "|b1" | "|u1" => |bytes| Number::Int(bytes[0].into()),
        "|i1" => |bytes| Number::Int((bytes[0] as i8).into()),
        "<i2" => read!(Int, i16, from_le_bytes),
        ">i2" => read!(Int, i16, from_be_bytes),
        "<u2" => read!(Int, u16, from_le_bytes),
        ">u2" => read!(Int, u16, from_be_bytes),
        "<i4" => read!(Int, i32, from_le_bytes),
        ">i4" => read!(Int, i32, from_be_bytes),
        "<u4" => read!(Int, u32, from_le_bytes),
        ">u4" => read!(Int, u32, from_be_bytes),
        "<i8" => read!(Int, i64, from_le_bytes),
        ">i8" => read!(Int, i64, from_be_bytes),
        "<u8" => read!(Int, u64, from_le_bytes),
        ">u8" => read!(Int, u64, from_be_bytes),
        "<f2" => |bytes| Number::Single(half(u16::from_le_bytes([bytes[0], bytes[1]]))),
        ">f2" => |bytes| Number::Single(half(u16::from_be_bytes([bytes[0], bytes[1]]))),
        "<f4" => read!(Single, f32, from_le_bytes),
        ">f4" => read!(Single, f32, from_be_bytes),
        "<f8" => read!(Float, f64, from_le_bytes),
        ">f8" => read!(Float, f64, from_be_bytes),
        "<c8" => magnitude!(Single, f32, from_le_bytes),
        ">c8" => magnitude!(Single, f32, from_be_bytes),
        "<c16" => magnitude!(Float, f64, from_le_bytes),
        ">c16" => magnitude!(Float, f64, from_be_bytes),
        _ => return None,
    })
}

/// An IEEE 754 binary16.
fn half(bits: u16) -> f32 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023) / 1024.0);
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-14),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        _ => (1.0 + fraction) * 2f32.powi(exponent - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// What the finite elements of an array come to, and how many are not.
#[derive(Debug)]
pub struct Summary {
    /// `None` where no element is finite.
    pub range: Option<(Number, Number)>,
    pub mean: f64,
    /// Of the population.
    pub deviation: f64,
    pub zeros: u64,
    pub nan: u64,
    pub infinite: u64,
}

impl Summary {
    pub fn of(numbers: &Numbers<'_>) -> Summary {
        let summary = Summary::scaled(numbers, 1.0);
        match summary.range {
            // Differences or their squares are more than there are numbers for.
            Some((low, high)) if !summary.deviation.is_finite() => {
                Summary::scaled(numbers, low.value().abs().max(high.value().abs()))
            }
            _ => summary,
        }
    }

    /// Adds up in units of `scale`.
    fn scaled(numbers: &Numbers<'_>, scale: f64) -> Summary {
        let mut summary = Summary { range: None, mean: 0.0, deviation: 0.0, zeros: 0, nan: 0, infinite: 0 };
        // Welford's recurrence: no sum that could cancel.
        let (mut count, mut squares) = (0.0, 0.0);
        for number in numbers.iter() {
            let value = number.value();
            if !value.is_finite() {
                summary.nan += u64::from(value.is_nan());
                summary.infinite += u64::from(value.is_infinite());
                continue;
            }
            summary.zeros += u64::from(value == 0.0);
            count += 1.0;
            let scaled = value / scale;
            let difference = scaled - summary.mean;
            summary.mean += difference / count;
            squares += difference * (scaled - summary.mean);
            let less = |a: Number, b: Number| match (a, b) {
                (Number::Int(a), Number::Int(b)) => a < b,
                (a, b) => a.value() < b.value(),
            };
            let (low, high) = summary.range.get_or_insert((number, number));
            if less(number, *low) {
                *low = number;
            }
            if less(*high, number) {
                *high = number;
            }
        }
        summary.mean *= scale;
        summary.deviation = if count > 0.0 { (squares / count).sqrt() * scale } else { 0.0 };
        summary
    }

    pub fn json(&self) -> Json {
        json!({
            "min": self.range.map(|(low, _)| low.json()),
            "max": self.range.map(|(_, high)| high.json()),
            "mean": self.range.map(|_| self.mean),
            "std": self.range.map(|_| self.deviation),
            "zeros": self.zeros,
            "nan": self.nan,
            "inf": self.infinite,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_read_as_numpy_reads_them() {
        let known = [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 5.960_464_5e-8),
            (0x3555, 0.333_251_95),
        ];
        for (bits, value) in known {
            assert_eq!(half(bits), value);
        }
        assert!(half(0x7e00).is_nan() && half(0xfc00) == f32::NEG_INFINITY);
        assert!(half(0x8000).is_sign_negative());
    }

    #[test]
    fn integers_keep_every_digit() {
        assert_eq!(Number::Int(i64::MAX.into()).to_string(), "9223372036854775807");
        assert_eq!(Number::Int(u64::MAX.into()).json().to_string(), "18446744073709551615");
        assert_eq!(Number::Single(0.1).json().to_string(), "0.1");
    }
}
