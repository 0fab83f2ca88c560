//! An entry of another directory, taken in: verified, and published like a result that was computed here.
//!
//! Copying an entry file to its place with any program does as well. What this adds is that nothing gets in which is not
//! whole, that it finds its place by itself, and that it is written as by this machine, in this boot.

use std::ffi::CStr;
use std::sync::Arc;

use crate::args::Canonical;
use crate::bounds::Bounds;
use crate::buffer::Buffer;
use crate::cache::Cache;
use crate::cbor;
use crate::entry::{self, Array, Encoded};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::list::{Entry, Metadata, Recorded};
use crate::options::Mode;
use crate::publish::Publication;
use crate::state::{Generation, Slot, State};
use crate::store::{Made, Published, Refused, entry_path, function_directory};

impl Cache {
    /// Stores the entry whose file holds `bytes`, under its own key: `true` if it was not here yet. An entry of the same
    /// call that is here and whole stays.
    ///
    /// Every checksum is verified, and that the key is the one of the call that the entry describes, where it
    /// describes it in full. Whether its numbers are those that the function gives is a matter of trust.
    ///
    /// # Errors
    ///
    /// [`Error::Dtype`] where the bytes are no whole entry; [`Error::Directory`] where it cannot be stored here;
    /// [`Error::Argument`] where the cache has no directory, or was opened with mode `readonly`.
    ///
    /// ```
    /// # let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    /// use npcache_core::{Cache, Origin};
    /// let ones = |cache: &Cache| cache.call("ones", "1", b"", |out| out.write(&ndarray::Array1::<f64>::ones(3)));
    /// let result = ones(&Cache::open(there.path())?)?;
    ///
    /// let cache = Cache::open(here.path())?;
    /// let (entry, new) = cache.import(&std::fs::read(result.path().unwrap())?)?;
    /// assert!(new && entry.metadata()?.name == "ones");
    /// assert_eq!(ones(&cache)?.origin(), Origin::Disk);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn import(&self, bytes: &[u8]) -> Result<(Entry, bool)> {
        let no_entry = |why: &str| Error::Dtype(format!("no whole entry of npcache: {why}"));
        let key = entry::key(bytes).map_err(no_entry)?;
        let parsed = entry::parse(bytes, &key).map_err(no_entry)?;
        if !parsed.data_is_whole(bytes) {
            return Err(no_entry("its data are not what was written"));
        }
        let json = entry::metadata(bytes).map_err(no_entry)?;
        let metadata = Metadata::parse(json, parsed.arrays.to_vec());
        let metadata = metadata.ok_or_else(|| no_entry("its metadata are not readable"))?;
        if metadata.key().is_some_and(|described| described != key) {
            return Err(no_entry("its key is not the one of the call that it describes"));
        }

        let Some(state) = self.state() else {
            return Err(Error::Argument("a cache without a directory takes no entries in".to_owned()));
        };
        if self.options().mode == Mode::ReadOnly {
            return Err(Error::Argument("a cache opened with mode=readonly takes no entries in".to_owned()));
        }
        let function = function_directory(&metadata.name);
        let find = || self.entries(Some(&metadata.name), &key.to_string()).find_map(|entry| entry.ok());
        let there = find();
        if let Some(entry) = &there
            && entry.verify().is_ok()
        {
            return Ok((entry.clone(), false));
        }
        let slot = Slot::of(&function);
        let generation = state.full_generation(slot);
        let copy = Copied {
            key: &key,
            arrays: parsed.arrays.iter().map(|array| (array, &bytes[array.offset..][..array.len])).collect(),
            metadata: json,
            made: Made { at: parsed.origin.mtime, took: parsed.took },
        };
        let path = entry_path(&function, &key);
        let bounds = self.options().bounds.or(state.bounds());
        let published = copy.publish(state, &path, there.is_some(), slot, generation, &bounds);
        let failed =
            |why: &str| Error::Directory { path: state.directory.path().to_owned(), reason: why.to_owned() };
        let published = published.map_err(|why| failed(&format!("cannot store the entry: {why}")))?;
        let new = matches!(published, Published::Now);
        Ok((find().ok_or_else(|| failed("the entry was dropped as soon as it was stored"))?, new))
    }
}

/// A result of another directory, to be an entry of this one.
pub(crate) struct Copied<'a> {
    pub(crate) key: &'a Key,
    pub(crate) arrays: Vec<(&'a Array, &'a [u8])>,
    pub(crate) metadata: &'a [u8],
    /// When it was computed: that is its age here, too.
    pub(crate) made: Made,
}

impl<'a> Copied<'a> {
    /// Of a result that was found in a file. `None` where that is damaged: a copy gets checksums of its own, which are not
    /// to cover it.
    pub(crate) fn of(found: &'a Buffer, key: &'a Key) -> Option<Copied<'a>> {
        let file = found.file()?;
        let parsed = entry::parse(file, key).ok().filter(|parsed| parsed.data_is_whole(file))?;
        Some(Copied {
            key,
            arrays: found.arrays().iter().enumerate().map(|(i, array)| (array, found.bytes(i))).collect(),
            metadata: entry::metadata(file).ok()?,
            made: Made { at: parsed.origin.mtime, took: parsed.took },
        })
    }

    /// Publishes it as `name`. `generation` was read before it was found.
    pub(crate) fn publish(
        self,
        state: &Arc<State>,
        name: &CStr,
        replace: bool,
        slot: Slot,
        generation: Generation,
        bounds: &Bounds,
    ) -> Result<Published, Refused> {
        let Copied { key, arrays, metadata, made } = self;
        let publication = Publication { name, key, slot, generation, replace, made, bounds, metadata };
        publication.publish(state, &Encoded::new(arrays.into_iter()))
    }
}

impl Metadata {
    /// The key of the call, where enough of its arguments was kept to tell.
    fn key(&self) -> Option<Key> {
        let arguments = match &self.arguments {
            Recorded::Bytes(bytes) => bytes,
            // A description without digests is the canonical encoding itself.
            Recorded::Call(described) => cbor::Call::parse(described).map(|_| described)?,
            Recorded::Length(_) => return None,
        };
        // Which array has which layout is not told by the arguments.
        let identity = self.identity().ok().filter(|identity| !identity.has_strict_layout())?;
        Some(Key::new(&identity, &Canonical::from_bytes(arguments)))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::Array1;

    use super::*;
    use crate::args::Args;
    use crate::buffer::Origin;
    use crate::options::Options;

    #[test]
    fn only_whole_entries_of_the_call_they_describe_are_taken_in() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = Cache::open(there.path()).unwrap();
        let mut args = Args::new();
        args.add_string(&"x".repeat(70)).unwrap().add_int(3).unwrap();
        let solve = |cache: &Cache| cache.function("solve", "1").unwrap();
        let long = args.finish().unwrap();
        let result = solve(&source).call(&long, |out| out.write(&Array1::<f64>::ones(70_000))).unwrap();
        let whole = std::fs::read(result.path().unwrap()).unwrap();

        let cache = Cache::open(here.path()).unwrap();
        let refused = |bytes: &[u8]| cache.import(bytes).unwrap_err().to_string();
        for at in [200, 300_000, whole.len() - 300, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            assert!(refused(&flipped).contains("no whole entry"), "{at}");
        }
        assert!(refused(&whole[1..]).contains("no whole entry") && refused(b"").contains("too short"));

        // A footer with right checksums, for another call than it says.
        let parsed = entry::parse(&whole, &entry::key(&whole).unwrap()).unwrap();
        let arrays = parsed.arrays.iter().map(|array| (array, &whole[array.offset..][..array.len]));
        let encoded = Encoded::new(arrays);
        let mut json: serde_json::Value = serde_json::from_slice(entry::metadata(&whole).unwrap()).unwrap();
        json["arguments"] = serde_json::json!({ "bytes": "00" });
        let json = json.to_string().into_bytes();
        let footer =
            encoded.footer(&Key::from([7; 32]), &json, &parsed.origin, parsed.took, encoded.data_hash());
        let mut forged = encoded.pieces().iter().flat_map(|piece| piece.to_vec()).collect::<Vec<u8>>();
        forged.extend(footer);
        assert!(refused(&forged).contains("not the one of the call"), "{}", refused(&forged));

        let (entry, new) = cache.import(&whole).unwrap();
        assert!(new && !cache.import(&whole).unwrap().1);
        let found = solve(&cache).lookup(&long).unwrap();
        assert_eq!((found.origin(), found.view::<f64>(0).unwrap().sum()), (Origin::Disk, 70_000.0));
        assert_eq!(found.compute_seconds(), result.compute_seconds());

        let reading = Options::new().mode(Mode::ReadOnly).open(here.path()).unwrap();
        assert!(reading.import(&whole).unwrap_err().to_string().contains("readonly"));

        // One that is here but damaged is replaced.
        let path = entry.path();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &whole[..100]).unwrap();
        assert!(cache.import(&whole).unwrap().1 && entry.verify().is_ok());
    }
    #[test]
    fn a_handles_own_bounds_hold_for_what_it_takes_in() {
        let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let source = Cache::open(there.path()).unwrap();
        let cache = Options::new().max_entries(10).open(here.path()).unwrap();
        for n in 0..30 {
            let result = source.call("f", "1", [n], |out| out.write(&Array1::from_elem(4, n))).unwrap();
            assert!(cache.import(&std::fs::read(result.path().unwrap()).unwrap()).unwrap().1);
        }
        assert!((8..=10).contains(&cache.entries(None, "").count()));
    }
}
