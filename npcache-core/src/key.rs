//! The key of a call: one SHA-256 over everything that its result depends on (docs/keys.md).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::args::Canonical;
use crate::digest::{Content, Digest};
use crate::error::{Error, Result};

/// A function's name has at most this many bytes.
const MAX_NAME: usize = 4096;

/// What makes a function that function: its name, its version, and what else its results depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    name: String,
    version: String,
    /// Sorted, each once.
    dependencies: Vec<(String, String)>,
    strict_layout: bool,
}

impl Identity {
    /// The identity of a function called `name`, with 1 to 4,096 bytes of which none is NUL. The order of the
    /// dependencies, pairs of a name and a value, does not count, nor do repetitions. With `strict_layout`,
    /// calls whose arrays lie differently in memory have different keys.
    pub fn new(
        name: &str,
        version: &str,
        mut dependencies: Vec<(String, String)>,
        strict_layout: bool,
    ) -> Result<Identity> {
        if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
            return Err(Error::Argument(format!(
                "a function's name has 1 to {MAX_NAME} bytes of which none is NUL; this one has {}{}",
                name.len(),
                if name.contains('\0') { ", with a NUL" } else { "" }
            )));
        }
        dependencies.sort();
        dependencies.dedup();
        Ok(Identity { name: name.into(), version: version.into(), dependencies, strict_layout })
    }

    /// The function's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The function's version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What else its results depend on, sorted.
    pub fn dependencies(&self) -> &[(String, String)] {
        &self.dependencies
    }

    /// Whether calls whose arrays lie differently in memory have different keys.
    pub fn has_strict_layout(&self) -> bool {
        self.strict_layout
    }
}

/// What identifies a call. Its entry is named by the 64 hexadecimal digits that this displays as.
///
/// ```
/// use npcache_core::{Args, Identity, Key};
///
/// let solve = Identity::new("solve", "1", Vec::new(), false)?;
/// let mut args = Args::new();
/// args.add_int(3)?.key("nu")?.add_float(0.5)?;
/// let key = Key::new(&solve, &args.finish()?);
/// assert_eq!(key.to_string().parse::<Key>()?, key);
/// # Ok::<(), npcache_core::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

impl Key {
    /// The key of the function's call with these arguments.
    pub fn new(identity: &Identity, arguments: &Canonical) -> Key {
        let mut hash = Sha256::new_with_prefix("npcache-key-1\n");
        add_text(&mut hash, &identity.name);
        add_text(&mut hash, &identity.version);
        // The layout letters are a dependency like others, of this one call.
        let layout = ("layout", arguments.layouts());
        let pairs = identity.dependencies.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let before = pairs.clone().take_while(|pair| *pair < layout);
        let after = pairs.clone().skip_while(|pair| *pair < layout);
        let layout =
            Some(layout).filter(|layout| identity.strict_layout && after.clone().next() != Some(*layout));
        let count = identity.dependencies.len() + usize::from(layout.is_some());
        hash.update((count as u64).to_le_bytes());
        for (name, value) in before.chain(layout).chain(after) {
            add_text(&mut hash, name);
            add_text(&mut hash, value);
        }
        match arguments.content() {
            Content::Whole(bytes) => {
                hash.update([0]);
                hash.update((bytes.len() as u64).to_le_bytes());
                hash.update(bytes);
            }
            Content::Long { length, root } => {
                hash.update([1]);
                hash.update(length.to_le_bytes());
                hash.update(root.0);
            }
        }
        Key(hash.finalize().into())
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 digits, for the path of every look-up: a tenth of what formatting takes.
    pub(crate) fn hex(&self) -> [u8; 64] {
        // By arithmetic, which the compiler does for sixteen at a time; from a table it would look up each.
        let digit = |n: u8| n + if n < 10 { b'0' } else { b'a' - 10 };
        let mut hex = [0; 64];
        for (pair, byte) in hex.as_chunks_mut().0.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte & 15)];
        }
        hex
    }

    /// The key that [`Key::hex`] gives these digits for.
    pub(crate) fn from_hex(digits: &[u8; 64]) -> Option<Key> {
        // By arithmetic too: what is no digit stands for some number as well, but that number has another digit.
        let number = |digit: u8| digit.wrapping_sub(if digit <= b'9' { b'0' } else { b'a' - 10 });
        let mut key = Key([0; 32]);
        for (byte, [high, low]) in key.0.iter_mut().zip(digits.as_chunks().0) {
            *byte = number(*high) << 4 | number(*low) & 15;
        }
        (key.hex() == *digits).then_some(key)
    }

    /// The first eight bytes, as a number in the order of the digits.
    pub(crate) fn first_word(&self) -> u64 {
        u64::from_be_bytes(self.0[..8].try_into().expect("eight of 32"))
    }
}

fn add_text(hash: &mut Sha256, text: &str) {
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
}

impl From<[u8; 32]> for Key {
    fn from(bytes: [u8; 32]) -> Key {
        Key(bytes)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Digest(self.0).fmt(f)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({self})")
    }
}

/// Reads exactly what `Display` writes: 64 lowercase digits.
impl FromStr for Key {
    type Err = Error;

    fn from_str(text: &str) -> Result<Key> {
        let digits = text.as_bytes().try_into().ok();
        digits.and_then(Key::from_hex).ok_or_else(|| {
            Error::Argument(format!(
                "a key is 64 lowercase hexadecimal digits; this text of {} bytes is not",
                text.len()
            ))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Args;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.into(), value.into())
    }

    fn solve() -> Canonical {
        let mut args = Args::new();
        args.add_int(3).unwrap().add_array(&ndarray::arr1(&[1.0, 2.0])).unwrap();
        args.key("nu").unwrap().add_float(0.5).unwrap();
        args.finish().unwrap()
    }

    fn key(version: &str, dependencies: &[(String, String)], strict: bool, arguments: &Canonical) -> Key {
        Key::new(&Identity::new("solve", version, dependencies.to_vec(), strict).unwrap(), arguments)
    }

    #[test]
    fn keys_are_those_of_another_implementation() {
        // From Python's hashlib, by docs/keys.md.
        let empty = Key::new(&Identity::new("f", "", vec![], false).unwrap(), &Args::new().finish().unwrap());
        assert_eq!(empty.to_string(), "2deaf5c4716027ff6ec4817d238a77c2b9c7133badf06fc54c2140425681636a");
        assert_eq!(
            key("1", &[], false, &solve()).to_string(),
            "809b0ce615d1f1643ee7d3a83cfcbfc0c0adcb7ddb4bb85eb7c334573635eada"
        );
        let dependencies = [pair("object:libm.so", "build-id:00ff"), pair("a", "b"), pair("a", "b")];
        assert_eq!(
            key("1", &dependencies, true, &solve()).to_string(),
            "dbafa8aa9f234fd4940d1bd7fa1a4401f3b7e512be2e01c6e522c58f252e007f"
        );
        let long: Vec<u8> = (0..(1 << 20) + 1).map(|i| (i * 7 % 251) as u8).collect();
        assert_eq!(
            key("1", &[], false, &Canonical::from_bytes(&long)).to_string(),
            "30a79dc727437408e4cd5c98659f6fa8552a7a09df36c07b257360deee573eaa"
        );
    }

    #[test]
    fn the_layout_is_a_dependency_like_others() {
        let strict = |dependencies: &[_]| key("1", dependencies, true, &solve());
        let added =
            |dependencies: &[_]| key("1", &[dependencies, &[pair("layout", "C")]].concat(), false, &solve());
        for others in [
            &[][..],
            &[pair("a", "")],
            &[pair("z", "")],
            &[pair("a", ""), pair("layout", "B"), pair("layout", "D"), pair("z", "")],
            &[pair("layout", "C")],
            &[pair("layout", "CC")],
        ] {
            assert_eq!(strict(others), added(others));
            assert_eq!(strict(others) == key("1", others, false, &solve()), others == [pair("layout", "C")]);
        }
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        let keys = [
            key("12", &[], false, &solve()),
            key("1", &[pair("2", "")], false, &solve()),
            key("1", &[pair("", "2")], false, &solve()),
            key("1", &[pair("", ""), pair("2", "")], false, &solve()),
        ];
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key));
        }
    }

    #[test]
    fn ready_bytes_that_are_a_calls_share_its_key() {
        let call = solve();
        let ready = Canonical::from_bytes(call.bytes().unwrap());
        assert_eq!(key("1", &[], false, &ready), key("1", &[], false, &call));
        assert_ne!(key("1", &[], true, &ready), key("1", &[], true, &call), "ready bytes have no letters");
    }

    #[test]
    fn names_that_cannot_be_are_refused() {
        let identity = |name: &str| Identity::new(name, "", vec![], false);
        assert!(identity("").is_err() && identity("a\0").is_err() && identity(&"a".repeat(4097)).is_err());
        assert!(identity(&"a".repeat(4096)).is_ok());
    }

    #[test]
    fn only_what_a_key_displays_is_read_as_one() {
        let text = key("1", &[], false, &solve()).to_string();
        assert_eq!(text.parse::<Key>().unwrap().to_string(), text);
        assert_eq!(Key::from(*text.parse::<Key>().unwrap().as_bytes()).to_string(), text);
        let upper = text.to_uppercase();
        for wrong in
            ["", &text[1..], &text[2..], &format!("{text}0"), &format!("{text}00"), &upper, &"é".repeat(32)]
        {
            assert!(wrong.parse::<Key>().is_err(), "{wrong}");
        }
    }
}
