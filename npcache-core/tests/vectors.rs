//! The golden vectors of `tests/vectors/keys.json`, which an independent implementation of docs/keys.md made:
//! every call in them, built through [`npcache_core::Args`], has the bytes and the key that they say.

mod notation;

use notation::{Arrays, canonical, digits, identity, number, string, vectors};
use npcache_core::{Content, Key};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What differs from the vector, in words; nothing if nothing does.
fn difference(vector: &Value, arrays: Arrays) -> npcache_core::Result<Option<String>> {
    let arguments = canonical(vector, arrays)?;
    let expected = &vector["canonical"];
    let same_bytes = match (arguments.content(), expected.as_str()) {
        (Content::Whole(bytes), Some(hex)) => **bytes == *digits(hex),
        (Content::Whole(bytes), None) => {
            bytes.len() == number(&expected["length"])
                && Sha256::digest(bytes).as_slice() == digits(string(&expected["sha256"]))
        }
        // Its bytes are gone: the key below is over their tree.
        (Content::Long { length, .. }, _) => *length == number(&expected["length"]) as u64,
    };
    if !same_bytes {
        return Ok(Some(format!("canonical bytes {:02x?} in place of {expected}", arguments.bytes())));
    }
    let layouts = vector.get("layouts").map(string);
    if layouts.is_some_and(|letters| letters != arguments.layouts()) {
        return Ok(Some(format!("layout letters `{}` in place of {layouts:?}", arguments.layouts())));
    }
    let key = Key::new(&identity(vector)?, &arguments).to_string();
    Ok((key != string(&vector["key"])).then(|| format!("key {key} in place of {}", vector["key"])))
}

fn check(arrays: Arrays, wanted: impl Fn(&&Value) -> bool) {
    let vectors = vectors();
    let vectors: Vec<_> = vectors.iter().filter(wanted).collect();
    assert!(vectors.len() >= 150);
    let mut wrong = Vec::new();
    for vector in &vectors {
        let found = difference(vector, arrays).unwrap_or_else(|error| Some(error.to_string()));
        wrong.extend(found.map(|found| format!("{}: {found}", string(&vector["description"]))));
    }
    assert!(wrong.is_empty(), "{} of {} vectors:\n{}", wrong.len(), vectors.len(), wrong.join("\n"));
}

#[test]
fn every_vector_has_its_bytes_and_its_key() {
    check(Arrays::Added, |_| true);
}

#[test]
fn arrays_digested_before_are_the_same_arguments() {
    check(Arrays::DigestedBefore, |_| true);
}

#[test]
fn arrays_of_ndarray_are_the_same_arguments() {
    check(Arrays::OfNdarray, |vector| vector["layout"] == "equal");
}
