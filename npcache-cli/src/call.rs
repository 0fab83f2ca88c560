//! A call on a command line: `solve 64 0.2 method=rk4`.

use std::error::Error;
use std::path::Path;

use npcache_core::{Args, Array, ArrayBytes, Canonical, from_hex};
use serde_json::{Value as Json, json};

use crate::terminal::printable;

/// How arguments are written, for `--help`.
pub const HOW: &str = "\
Arguments are JSON values, and NAME=VALUE is a keyword argument. 64 is an integer and 64.0 a
floating-point number; what is no JSON is a text: rk4 is \"rk4\", but 64 as a text is '\"64\"'.
True, False and None are taken for true, false and null. Besides:
  npy:FILE      the array in an .npy file         file:FILE     the contents of a file
  bytes:HEX     a byte string                     float:inf     also nan; float32:0.1 in 32 bits
  tuple:[1, 2]  Python's (1, 2)
--hex gives the argument bytes of npcache_call as they are.

Of a function in Python, whose name is module.name, all parameters are written in the order of
its `def`, those left to their defaults too, and as NAME=VALUE only those after `*` and in
`**kwargs`. `npcache ls` shows which they are.";

/// Which call.
#[derive(clap::Args)]
pub struct CallArguments {
    /// The function's name
    pub name: String,
    /// Its arguments, as JSON; see below
    #[arg(value_name = "ARG", allow_negative_numbers = true)]
    args: Vec<String>,
    /// All arguments as ready bytes, in hexadecimal digits
    #[arg(long, value_name = "HEX")]
    hex: Option<String>,
    /// The function's version; by default those that are stored
    #[arg(long, value_name = "TEXT")]
    pub of_version: Option<String>,
    /// What else its results depend on
    #[arg(long, value_name = "NAME=VALUE", requires = "of_version", value_parser = pair)]
    pub dependency: Vec<(String, String)>,
}

impl CallArguments {
    pub fn canonical(&self) -> Result<Canonical, Box<dyn Error>> {
        canonical(&self.args, self.hex.as_deref())
    }
}

pub fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("no NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub fn canonical(texts: &[String], hex: Option<&str>) -> Result<Canonical, Box<dyn Error>> {
    if let Some(hex) = hex {
        if !texts.is_empty() {
            return Err("--hex gives all arguments; there are others beside it".into());
        }
        return Ok(Canonical::from_bytes(&bytes_of(hex)?));
    }
    let mut args = Args::new();
    for text in texts {
        let keyword = text.split_once('=').filter(|(name, _)| is_identifier(name));
        let value = match keyword {
            Some((name, value)) => {
                args.key(name)?;
                value
            }
            None => text,
        };
        add(&mut args, value).map_err(|e| format!("argument `{}`: {e}", printable(text)))?;
    }
    Ok(args.finish()?)
}

fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|c| c.is_alphabetic() || c == '_')
        && characters.all(|c| c.is_alphanumeric() || c == '_')
}

fn add(args: &mut Args, text: &str) -> Result<(), Box<dyn Error>> {
    if let Some(path) = text.strip_prefix("npy:") {
        let npy = std::fs::read(path).map_err(|e| format!("cannot read {path}: {e}"))?;
        with_array_of(&npy, |array| args.add_array_bytes(array).map(drop))?;
    } else if let Some(path) = text.strip_prefix("file:") {
        args.add_file(Path::new(path))?;
    } else if let Some(hex) = text.strip_prefix("bytes:") {
        args.add_bytes(&bytes_of(hex)?)?;
    } else if let Some(number) = text.strip_prefix("float:") {
        args.add_float(number.parse()?)?;
    } else if let Some(number) = text.strip_prefix("float32:") {
        args.add_float32(number.parse()?)?;
    } else if let Some(items) = text.strip_prefix("tuple:") {
        let items = read_json(items)?.filter(Json::is_array).ok_or("tuple: takes a list, as tuple:[1, 2]")?;
        add_json(args, &json!({ "npcache:type": "tuple", "items": items }))?;
    } else if let Ok(number) = text.parse::<i128>() {
        args.add_bigint(number < 0, &number.unsigned_abs().to_be_bytes())?;
    } else {
        match text {
            "True" => args.add_bool(true)?,
            "False" => args.add_bool(false)?,
            "None" => args.add_null()?,
            _ => {
                let json = read_json(text)?.unwrap_or_else(|| Json::String(text.to_owned()));
                add_json(args, &json)?;
                return Ok(());
            }
        };
    }
    Ok(())
}

/// Gives `body` the array of an `.npy` file, given whole.
pub fn with_array_of(
    npy: &[u8],
    body: impl FnOnce(&ArrayBytes<'_>) -> npcache_core::Result<()>,
) -> npcache_core::Result<()> {
    let (array, data) = Array::from_npy(npy)?;
    let shape: Vec<usize> = array.shape().iter().map(|n| *n as usize).collect();
    let strides: Vec<isize> = array.strides().iter().map(|n| *n as isize).collect();
    body(&ArrayBytes::new(array.descr(), &shape, Some(&strides), data, 0)?)
}

/// `None` where it is no JSON.
fn read_json(text: &str) -> Result<Option<Json>, &'static str> {
    let Ok(json) = serde_json::from_str::<Json>(text) else { return Ok(None) };
    // A JSON reader makes a floating-point number of an integer that is too large for it.
    if !json.is_string() && has_large_integer(text) {
        return Err("integers beyond 64 bits can be given alone, to 127 bits, but not in a list or map");
    }
    Ok(Some(json))
}

fn add_json(args: &mut Args, json: &Json) -> npcache_core::Result<()> {
    match json {
        Json::Null => args.add_null()?,
        Json::Bool(value) => args.add_bool(*value)?,
        Json::String(text) => args.add_string(text)?,
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(n), _) => args.add_int(n)?,
            (_, Some(n)) => args.add_uint(n)?,
            _ => args.add_float(number.as_f64().expect("the third kind of number"))?,
        },
        Json::Array(items) => {
            args.begin_list()?;
            items.iter().try_for_each(|item| add_json(args, item))?;
            args.end()?
        }
        Json::Object(entries) => {
            args.begin_map()?;
            for (key, value) in entries {
                args.key(key)?;
                add_json(args, value)?;
            }
            args.end()?
        }
    };
    Ok(())
}

/// Whether JSON has an integer, outside of texts, that fits neither `i64` nor `u64`.
fn has_large_integer(json: &str) -> bool {
    let outside_texts = json.replace("\\\\", "").replace("\\\"", "");
    let pieces = outside_texts.split('"').step_by(2);
    let mut numbers =
        pieces.flat_map(|piece| piece.split(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')));
    numbers.any(|number| {
        let digits = number.strip_prefix('-').unwrap_or(number);
        digits.len() > 18
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && number.parse::<i64>().is_err()
            && number.parse::<u64>().is_err()
    })
}

fn bytes_of(digits: &str) -> Result<Vec<u8>, String> {
    from_hex(digits).ok_or_else(|| format!("`{}` is no even number of hexadecimal digits", printable(digits)))
}

#[cfg(test)]
mod tests {
    use npcache_core::Call;

    use super::*;

    fn shown(texts: &[&str]) -> String {
        let texts: Vec<String> = texts.iter().map(|text| text.to_string()).collect();
        match canonical(&texts, None) {
            Ok(args) => Call::parse(args.bytes().unwrap()).unwrap().to_string(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn arguments_are_what_they_look_like() {
        assert_eq!(shown(&["64", "64.0", "-1", "1e3"]), "(64, 64.0, -1, 1000.0)");
        assert_eq!(
            shown(&["rk4", "\"64\"", "true", "True", "null", "None"]),
            r#"("rk4", "64", true, true, none, none)"#
        );
        assert_eq!(shown(&["b=[1, 2.5, \"x\"]", "a={\"k\": null}"]), r#"(a={"k": none}, b=[1, 2.5, "x"])"#);
        assert_eq!(
            shown(&["18446744073709551615", "-9223372036854775809"]),
            "(18446744073709551615, -9223372036854775809)"
        );
        assert_eq!(
            shown(&["bytes:00ff", "float32:0.1", "float:-inf", "tuple:[1, \"x\"]"]),
            r#"(b"\x00\xff", float32(0.1), -inf, tuple:[1, "x"])"#
        );
        assert_eq!(
            shown(&[
                r#"{"npcache:type": "range", "items": [0, 9, 1]}"#,
                r#"{"npcache:type": "UUID", "value": "é"}"#
            ]),
            r#"(range:[0, 9, 1], UUID:{"value": "é"})"#
        );
        assert_eq!(shown(&[r#"{"npcache:type": 1, "items": []}"#]), r#"({"items": [], "npcache:type": 1})"#);
        assert_eq!(shown(&["a=b=c", "http://x?y=z", "größe=1"]), r#"("http://x?y=z", a="b=c", größe=1)"#);
    }

    #[test]
    fn an_integer_is_never_made_a_float() {
        assert_eq!(
            shown(&["[18446744073709551615, 1e30, \"99999999999999999999\"]"]).matches('.').count(),
            0
        );
        for text in
            ["[18446744073709551616]", "tuple:[18446744073709551616]", "{\"a\\\\\": -9223372036854775809}"]
        {
            assert!(shown(&[text]).contains("beyond 64 bits"), "{}", shown(&[text]));
        }
        assert!(shown(&["1267650600228229401496703205376"]).contains("integer[13 bytes]"));
        for wrong in
            ["bytes:0", "bytes:xy", "float:ten", "npy:/nonexistent", "file:/nonexistent", "tuple:(1, 2)"]
        {
            assert!(shown(&[wrong]).starts_with("argument `"), "{}", shown(&[wrong]));
        }
        assert!(shown(&["a=1", "a=2"]).contains("twice"));
    }
}
