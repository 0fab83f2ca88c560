//! What is remembered in memory: a bounded table of results, for calls that come again in this process.
//!
//! A hit costs no system call, no SHA-256 and no allocation: the table is asked by the function and the argument bytes
//! themselves, compared in full, up to [`MAX_ARGUMENTS`]; by their key above. The table is `quick_cache`'s: bounded by
//! bytes, and resistant to scans, since what was asked for once does not drive out what was asked for again. Each
//! result carries the generation read before it was looked for, so what a clear, of any process, made old is not found.

use std::hash::{BuildHasher, BuildHasherDefault, Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, OptionsBuilder, Weighter};

use crate::buffer::Buffer;
use crate::digest::cores;
use crate::key::Identity;
use crate::state::{Generation, Slot};

/// Longer arguments are remembered by their key. Comparing 1 KiB takes some 20 ns, hashing it 80 ns.
pub(crate) const MAX_ARGUMENTS: usize = 1024;

/// What a result costs besides its bytes and its arguments: the table's own record of it, and its handles.
const OVERHEAD: u64 = 512;

/// At least so much for each part of the table, so that large results fit into one.
const SHARD: u64 = 256 << 20;

pub(crate) struct Table {
    results: Cache<Remembered, Result, ByBytes, BuildHasherDefault<Hashed>>,
}

/// What identifies a call in memory: as asked for.
pub(crate) struct Asked<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) version: &'a [u8],
    pub(crate) dependencies: &'a [(String, String)],
    /// The layout letters, where they count.
    pub(crate) layouts: Option<&'a str>,
    pub(crate) args: Arguments<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arguments<'a> {
    Bytes(&'a [u8]),
    /// The key, of a call with longer ones.
    Key(&'a [u8; 32]),
}

/// The same, as kept.
struct Remembered {
    hash: u64,
    identity: Arc<Identity>,
    layouts: Option<Box<str>>,
    bytes: Box<[u8]>,
    by_key: bool,
}

#[derive(Clone)]
struct Result {
    buffer: Buffer,
    generation: Generation,
    slot: Slot,
}

impl Table {
    /// A table of up to `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Table {
        let cores = cores();
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity((capacity / 65_536).clamp(64, 16_384) as usize)
            .shards((capacity / SHARD).clamp(1, 4 * cores) as usize)
            .build()
            .expect("all required options are set");
        let results = Cache::with_options(options, ByBytes, Default::default(), Default::default());
        Table { results }
    }

    /// The result of this call, unless `now`, the generation of a slot, is later than what it was found in.
    pub(crate) fn get(&self, asked: &Asked<'_>, now: impl Fn(Slot) -> Generation) -> Option<Buffer> {
        let result = self.results.get(&Query { hash: asked.hash(), asked })?;
        if result.generation.agrees(&now(result.slot)) {
            return Some(result.buffer);
        }
        self.results.remove(&Query { hash: asked.hash(), asked });
        None
    }

    /// Remembers a result that was looked for, or computed, since `generation` was read.
    pub(crate) fn put(
        &self,
        asked: &Asked<'_>,
        identity: &Arc<Identity>,
        buffer: Buffer,
        generation: Generation,
        slot: Slot,
    ) {
        let (bytes, by_key) = match asked.args {
            Arguments::Bytes(bytes) => (bytes, false),
            Arguments::Key(key) => (&key[..], true),
        };
        let remembered = Remembered {
            hash: asked.hash(),
            identity: identity.clone(),
            layouts: asked.layouts.map(Into::into),
            bytes: bytes.into(),
            by_key,
        };
        self.results.insert(remembered, Result { buffer, generation, slot });
    }
}

impl Asked<'_> {
    /// Dependencies and layouts are left to the comparison: they hardly ever differ where all else is equal.
    fn hash(&self) -> u64 {
        let args = match self.args {
            Arguments::Bytes(bytes) => bytes,
            Arguments::Key(key) => key,
        };
        // The lengths keep the three apart.
        let lengths = (self.name.len() as u64) << 32 ^ self.version.len() as u64;
        let mut hasher = foldhash::fast::FixedState::with_seed(lengths).build_hasher();
        hasher.write(self.name);
        hasher.write(self.version);
        hasher.write(args);
        hasher.finish()
    }
}

struct Query<'a, 'b> {
    hash: u64,
    asked: &'b Asked<'a>,
}

impl Hash for Query<'_, '_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hash for Remembered {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Remembered {
    fn arguments(&self) -> Arguments<'_> {
        match <&[u8; 32]>::try_from(&*self.bytes) {
            Ok(key) if self.by_key => Arguments::Key(key),
            _ => Arguments::Bytes(&self.bytes),
        }
    }
}

impl Equivalent<Remembered> for Query<'_, '_> {
    fn equivalent(&self, other: &Remembered) -> bool {
        self.hash == other.hash
            && self.asked.args == other.arguments()
            && self.asked.name == other.identity.name().as_bytes()
            && self.asked.version == other.identity.version().as_bytes()
            && self.asked.dependencies == other.identity.dependencies()
            && self.asked.layouts == other.layouts.as_deref()
    }
}

impl PartialEq for Remembered {
    fn eq(&self, other: &Remembered) -> bool {
        (self.hash, self.by_key, &self.bytes, &self.identity, &self.layouts)
            == (other.hash, other.by_key, &other.bytes, &other.identity, &other.layouts)
    }
}

impl Eq for Remembered {}

#[derive(Clone)]
struct ByBytes;

impl Weighter<Remembered, Result> for ByBytes {
    fn weight(&self, key: &Remembered, result: &Result) -> u64 {
        result.buffer.memory() + key.bytes.len() as u64 + OVERHEAD
    }
}

/// A hash that is one already.
#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed")
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
