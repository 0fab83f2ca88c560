//! The Rust host of `tests/test_hosts.py`, which says what cross-language calls it makes; `tests/hosts/host.py` says what
//! this reads and answers.
//!
//!     host CACHE

use std::error::Error;
use std::io::stdin;

use npcache_core::{Buffer, Cache, DType, Origin, Result};
use serde_json::Value;

#[path = "../tests/notation/mod.rs"]
#[expect(dead_code, reason = "the tests use more of it")]
mod notation;

use notation::{Arrays, canonical, digits, identity, string, vectors};

fn main() -> std::result::Result<(), Box<dyn Error>> {
    let cache = Cache::open(std::env::args_os().nth(1).ok_or("host CACHE")?)?;
    let vectors = vectors();
    for line in stdin().lines() {
        let line = line?;
        let words: Vec<&str> = line.split(' ').collect();
        let answer = describe(&call(&cache, &vectors[words[1].parse::<usize>()?], &words[2..])?)?;
        println!("{} {answer}", words[1]);
    }
    Ok(())
}

/// The result of a golden vector's call: found, or the one that `result` describes.
fn call(cache: &Cache, vector: &Value, result: &[&str]) -> Result<Buffer> {
    let identity = identity(vector)?;
    let mut function = cache.function(identity.name(), identity.version())?;
    for (name, value) in identity.dependencies() {
        function.add_dependency(name, value)?;
    }
    function.set("layout", string(&vector["layout"]))?;
    let strict = vector["layout"] == "strict";
    let arguments = canonical(vector, if strict { Arrays::Added } else { Arrays::OfNdarray })?;
    function.call(&arguments, |out| {
        let [dtype, shape, order, data] = result else { return Err("this was not to be computed".into()) };
        let descr = DType::from_code(dtype.parse()?)?.descr().parse()?;
        let shape: Vec<i64> = numbers(shape).map(str::parse).collect::<std::result::Result<_, _>>()?;
        let place = out.alloc_bytes(None, descr, &shape, *order == "f")?;
        let data = digits(data.trim_matches('-'));
        place.copy_from_slice(&data);
        Ok::<(), Box<dyn Error + Send + Sync>>(())
    })
}

fn numbers(word: &str) -> impl Iterator<Item = &str> {
    word.split(',').filter(|number| *number != "-")
}

fn describe(result: &Buffer) -> std::result::Result<String, Box<dyn Error>> {
    let array = &result.arrays()[0];
    let found = if result.origin() == Origin::Computed { "computed" } else { "found" };
    let dtype = array.dtype().ok_or("the array has a numbered type")? as i32;
    let shape: Vec<String> = array.shape().iter().map(i64::to_string).collect();
    let bytes: String = result.bytes(0).iter().map(|byte| format!("{byte:02x}")).collect();
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let order = if array.is_fortran_order() { 'f' } else { 'c' };
    Ok(format!("{found} {dtype} {} {order} {}", or_dash(shape.join(",")), or_dash(bytes)))
}
