//! The golden vectors of `tests/vectors/keys.json` as calls through [`Args`]; `tests/make_vectors.py` documents the
//! notation in which they are written down.

use std::fs;

use ndarray::ArrayD;
use npcache_core::{Args, ArrayBytes, ArrayDigest, Canonical, Descr, Identity};
use serde_json::Value;

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/vectors/keys.json");

pub fn vectors() -> Vec<Value> {
    let text = fs::read_to_string(VECTORS).unwrap();
    let mut file: Value = serde_json::from_str(&text).unwrap();
    match file["vectors"].take() {
        Value::Array(vectors) => vectors,
        other => panic!("`vectors` is {other}"),
    }
}

pub fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

pub fn items(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("not a list: {value}"))
}

pub fn number(value: &Value) -> usize {
    value.as_u64().and_then(|n| n.try_into().ok()).unwrap_or_else(|| panic!("not a size: {value}"))
}

pub fn digits(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "not whole bytes: {text}");
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

pub fn data(value: &Value) -> Vec<u8> {
    if let Some(text) = value.as_str() {
        return digits(text);
    }
    let multiply = u32::try_from(number(&value["multiply"])).unwrap();
    let length = u32::try_from(number(&value["length"])).unwrap();
    (0..length).map(|i| (i.wrapping_mul(multiply) >> 24) as u8).collect()
}

pub fn text(value: &Value) -> String {
    match value.as_str() {
        Some(text) => text.to_owned(),
        None => string(&value["repeat"]).repeat(number(&value["times"])),
    }
}

fn bits(value: &Value) -> u64 {
    u64::from_str_radix(string(value), 16).unwrap()
}

/// By which function the builder is given an array.
#[derive(Clone, Copy)]
pub enum Arrays {
    Added,
    DigestedBefore,
    /// As an array of `ndarray`, in C order, where Rust has its element type.
    OfNdarray,
}

fn add(args: &mut Args, value: &Value, arrays: Arrays) -> npcache_core::Result<()> {
    let object = match value {
        Value::Null => return args.add_null().map(drop),
        Value::Bool(truth) => return args.add_bool(*truth).map(drop),
        other => other.as_object().unwrap_or_else(|| panic!("not a value: {other}")),
    };
    let (kind, inner) = object.iter().next().unwrap();
    match kind.as_str() {
        "int" => match string(inner).parse::<i64>() {
            Ok(n) => args.add_int(n).map(drop),
            Err(_) => args.add_uint(string(inner).parse().unwrap()).map(drop),
        },
        "bigint" => {
            args.add_bigint(inner["negative"].as_bool().unwrap(), &data(&inner["magnitude"])).map(drop)
        }
        "float64" => args.add_float(f64::from_bits(bits(inner))).map(drop),
        "float32" => args.add_float32(f32::from_bits(bits(inner) as u32)).map(drop),
        "float16" => args.add_float16_bits(bits(inner) as u16).map(drop),
        "complex64" | "complex128" => {
            let parts = items(inner).iter().flat_map(|part| digits(string(part)).into_iter().rev());
            let descr: Descr = if kind == "complex64" { "<c8" } else { "<c16" }.parse()?;
            let bytes: Vec<u8> = parts.collect();
            args.add_array_bytes(&ArrayBytes::new(&descr, &[], None, &bytes, 0)?).map(drop)
        }
        "text" => args.add_string(&text(inner)).map(drop),
        "bytes" => args.add_bytes(&data(inner)).map(drop),
        "file" => {
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), data(inner)).unwrap();
            args.add_file(file.path()).map(drop)
        }
        "list" => {
            args.begin_list()?;
            for item in items(inner) {
                add(args, item, arrays)?;
            }
            args.end().map(drop)
        }
        "map" => {
            args.begin_map()?;
            add_named(args, inner, arrays)?;
            args.end().map(drop)
        }
        "nested" => {
            let depth = number(&inner["depth"]);
            for _ in 0..depth {
                if inner["of"] == "list" {
                    args.begin_list()?;
                } else {
                    args.begin_map()?.key("k")?;
                }
            }
            add(args, &inner["value"], arrays)?;
            (0..depth).try_for_each(|_| args.end().map(drop))
        }
        "array" => {
            let descr: Descr = string(&inner["descr"]).parse()?;
            assert_eq!(descr.as_str(), string(&inner["descr"]), "the vectors' descrs are canonical");
            let shape: Vec<usize> = items(&inner["shape"]).iter().map(number).collect();
            let strides: Option<Vec<isize>> = inner["strides"]
                .as_array()
                .map(|strides| strides.iter().map(|stride| stride.as_i64().unwrap() as isize).collect());
            let buffer = data(&inner["buffer"]);
            let offset = number(&inner["offset"]);
            let array = ArrayBytes::new(&descr, &shape, strides.as_deref(), &buffer, offset)?;
            match arrays {
                Arrays::Added => args.add_array_bytes(&array).map(drop),
                Arrays::DigestedBefore => args.add_digest(&ArrayDigest::new(&array)).map(drop),
                Arrays::OfNdarray => add_ndarray(args, &array),
            }
        }
        other => panic!("no such kind of value: {other}"),
    }
}

fn add_ndarray(args: &mut Args, array: &ArrayBytes<'_>) -> npcache_core::Result<()> {
    let mut bytes = vec![0; array.shape().iter().product::<usize>() * array.descr().itemsize()];
    array.copy_in_c_order(&mut bytes);
    macro_rules! add {
        ($T:ty) => {{
            let of_bytes = |bytes: &[u8]| <$T>::from_le_bytes(bytes.try_into().unwrap());
            let elements = bytes.chunks_exact(size_of::<$T>()).map(of_bytes).collect();
            args.add_array(&ArrayD::from_shape_vec(array.shape(), elements).unwrap())
        }};
    }
    match array.descr().as_str() {
        "|i1" => add!(i8),
        "<i2" => add!(i16),
        "<i4" => add!(i32),
        "<i8" => add!(i64),
        "|u1" => add!(u8),
        "<u2" => add!(u16),
        "<u4" => add!(u32),
        "<u8" => add!(u64),
        "<f4" => add!(f32),
        "<f8" => add!(f64),
        _ => args.add_array_bytes(array),
    }
    .map(drop)
}

fn add_named(args: &mut Args, pairs: &Value, arrays: Arrays) -> npcache_core::Result<()> {
    for pair in items(pairs) {
        args.key(&text(&pair[0]))?;
        add(args, &pair[1], arrays)?;
    }
    Ok(())
}

pub fn canonical(vector: &Value, arrays: Arrays) -> npcache_core::Result<Canonical> {
    let arguments = &vector["arguments"];
    if let Some(ready) = arguments.get("ready") {
        return Ok(Canonical::from_bytes(&data(ready)));
    }
    let mut args = Args::new();
    for value in items(&arguments["positional"]) {
        add(&mut args, value, arrays)?;
    }
    add_named(&mut args, &arguments["keyword"], arrays)?;
    args.finish()
}

pub fn identity(vector: &Value) -> npcache_core::Result<Identity> {
    let pair = |pair: &Value| (string(&pair[0]).to_owned(), string(&pair[1]).to_owned());
    let dependencies = items(&vector["dependencies"]).iter().map(pair).collect();
    let strict = vector["layout"] == "strict";
    Identity::new(string(&vector["name"]), string(&vector["version"]), dependencies, strict)
}
