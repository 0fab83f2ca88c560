//! What is in a directory, entry by entry instead of call by call: for tools that list, check, copy and drop.
//!
//! [`Cache::entries`] goes through the directory one shard at a time, so that the first entries come at once and memory
//! stays small however many there are. Others use the directory meanwhile: an entry that was listed may be gone when it is
//! opened. What cannot be read is an item of its own, and the listing goes on.

use std::ffi::{CStr, CString, OsStr};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, FileType, StatxFlags, StatxTimestamp, statx};
use rustix::io::Errno;
use serde_json::Value as Json;

use crate::buffer::{Buffer, Loaded};
use crate::cache::{Cache, MAP_FROM};
use crate::cbor;
use crate::digest::{from_hex, hex};
use crate::entry::{self, Array, Parsed};
use crate::error::{Error, Result};
use crate::evict::{room, size};
use crate::key::{Identity, Key};
use crate::map::{Memory, statx_of};
use crate::policy::{Seen, last_used, seconds_of};
use crate::state::State;
use crate::store::{Directory, entry_name, entry_path, function_directory, function_name, retry};

impl Cache {
    /// The entries of the directory, or of one function, whose keys begin with these hexadecimal digits: by function,
    /// then by key. Nothing is opened but directories, so all that is told of an entry is what its file system knows.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// use npcache_core::Cache;
    /// let cache = Cache::open(directory.path())?;
    /// cache.call("ones", "1", b"", |out| out.write(&ndarray::Array1::<f64>::ones(3)))?;
    /// for entry in cache.entries(None, "") {
    ///     let entry = entry?;
    ///     assert_eq!(entry.metadata()?.name, "ones");
    ///     assert_eq!(entry.load()?.view::<f64>(0)?.sum(), 3.0);
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn entries(
        &self,
        function: Option<&str>,
        digits: &str,
    ) -> impl Iterator<Item = Result<Entry>> + Send + use<> {
        let state = self.state().cloned();
        let digits: Arc<str> = digits.into();
        let functions = match (&state, function) {
            (None, _) => Vec::new(),
            (Some(_), Some(name)) => vec![Ok(CString::new(function_directory(name)).expect("no NUL"))],
            (Some(state), None) => match state.directory.functions() {
                Ok(names) => names.into_iter().map(Ok).collect(),
                Err(e) => vec![Err(Error::io("list", state.directory.path(), e))],
            },
        };
        functions.into_iter().flat_map(move |function| {
            let shards = match (&state, function) {
                (Some(state), Ok(function)) => Shard::all(state, function, &digits),
                (_, Err(e)) => vec![Err(e)],
                (None, Ok(_)) => Vec::new(),
            };
            let digits = digits.clone();
            shards.into_iter().flat_map(move |shard| match shard {
                Ok(shard) => shard.entries(&digits),
                Err(e) => vec![Err(e)],
            })
        })
    }
}

/// One of the up to 256 directories that hold a function's entries.
struct Shard {
    state: Arc<State>,
    function: Arc<CStr>,
    /// Two digits.
    name: CString,
}

impl Shard {
    fn all(state: &Arc<State>, function: CString, digits: &str) -> Vec<Result<Shard>> {
        let names = match state.directory.shards(&function) {
            Ok(names) => names,
            // A file of the user's, a link, or gone.
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Vec::new(),
            Err(e) => {
                return vec![Err(Error::io("list", &below(&state.directory, &function), e))];
            }
        };
        let function: Arc<CStr> = function.into();
        let wanted = |name: &CString| name.to_bytes().iter().zip(digits.bytes()).all(|(a, b)| *a == b);
        let shard = |name| Ok(Shard { state: state.clone(), function: function.clone(), name });
        names.into_iter().filter(wanted).map(shard).collect()
    }

    fn entries(&self, digits: &str) -> Vec<Result<Entry>> {
        let path = CString::new([self.function.to_bytes(), b"/", self.name.to_bytes()].concat());
        let path = path.expect("no NUL in names");
        let failed = |e| Error::io("list", &below(&self.state.directory, &path), e);
        let (shard, keys) = match self.state.directory.keys(&path) {
            Ok(found) => found,
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Vec::new(),
            Err(e) => return vec![Err(failed(e))],
        };
        let wanted = |key: &Key| key.hex().iter().zip(digits.bytes()).all(|(a, b)| *a == b);
        let entry = |key: Key| self.entry(&shard, key).transpose();
        keys.into_iter().filter(wanted).filter_map(entry).collect()
    }

    /// `None` where it is gone by now.
    fn entry(&self, shard: &OwnedFd, key: Key) -> Result<Option<Entry>> {
        let path = || below(&self.state.directory, &entry_path(self.function.to_bytes(), &key));
        if key.hex()[..2] != *self.name.to_bytes() {
            let name = [self.function.to_bytes(), self.name.to_bytes(), &key.hex()].join(&b'/');
            let path = self.state.directory.path().join(OsStr::from_bytes(&[&name[..], b".npy"].concat()));
            let reason = "lies in a directory where no call looks for it".to_owned();
            return Err(Error::Damaged { path, reason });
        }
        let name = entry_name(&key);
        let wanted = StatxFlags::BASIC_STATS;
        let stat = match retry(|| statx(shard, &name[..], AtFlags::SYMLINK_NOFOLLOW, wanted)) {
            Err(Errno::NOENT) => return Ok(None),
            Err(e) => return Err(Error::io("examine", &path(), e)),
            Ok(stat) => stat,
        };
        if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
            return Err(Error::Damaged { path: path(), reason: "is no regular file".to_owned() });
        }
        Ok(Some(Entry {
            state: self.state.clone(),
            function: self.function.clone(),
            key,
            bytes: stat.stx_size,
            disk_bytes: stat.stx_blocks * 512,
            created: time(stat.stx_mtime),
            used: time(stat.stx_atime),
        }))
    }
}

fn time(stamp: StatxTimestamp) -> SystemTime {
    // Before 1970 nothing was stored: a clock was wrong.
    UNIX_EPOCH + Duration::new(u64::try_from(stamp.tv_sec).unwrap_or(0), stamp.tv_nsec)
}

fn below(directory: &Directory, path: &CStr) -> PathBuf {
    directory.path().join(OsStr::from_bytes(path.to_bytes()))
}

/// A stored result, as it was listed.
#[derive(Clone)]
pub struct Entry {
    state: Arc<State>,
    function: Arc<CStr>,
    key: Key,
    bytes: u64,
    disk_bytes: u64,
    created: SystemTime,
    used: SystemTime,
}

impl Entry {
    /// The key of its call.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The function's name, as far as its directory tells: a long one is cut and ends in `…`.
    pub fn function(&self) -> String {
        function_name(self.function.to_bytes())
    }

    /// Its file.
    pub fn path(&self) -> PathBuf {
        below(&self.state.directory, &self.below_root())
    }

    fn below_root(&self) -> CString {
        entry_path(self.function.to_bytes(), &self.key)
    }

    /// Length of its file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What its file takes on disk.
    pub fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    /// When it was stored: its file's modification time, which a plain copy does not keep.
    pub fn created(&self) -> SystemTime {
        self.created
    }

    /// When it was last used, to the hour: its file's access time.
    pub fn used(&self) -> SystemTime {
        self.used
    }

    /// What it says of itself. Everything but its data is read and verified.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] where it is not whole; [`Error::Io`] where it is gone, or cannot be read.
    pub fn metadata(&self) -> Result<Metadata> {
        let (memory, parsed) = self.open()?;
        let json = entry::metadata(memory.as_slice()).map_err(|why| self.damaged(why))?;
        Metadata::parse(json, parsed.arrays.into_vec())
            .ok_or_else(|| self.damaged("its metadata are not readable"))
    }

    /// Verifies all of it, data too.
    ///
    /// # Errors
    ///
    /// As for [`Entry::metadata`].
    pub fn verify(&self) -> Result<()> {
        self.metadata()?;
        self.load().map(drop)
    }

    /// Its arrays, verified.
    ///
    /// # Errors
    ///
    /// As for [`Entry::metadata`].
    pub fn load(&self) -> Result<Buffer> {
        let (memory, parsed) = self.open()?;
        if !parsed.data_is_whole(memory.as_slice()) {
            return Err(self.damaged("its data are not what was written"));
        }
        let path =
            CString::new(self.path().into_os_string().into_encoded_bytes()).expect("a path has no NUL");
        Ok(Loaded::new(parsed, memory).at(path))
    }

    /// Removes it, to make room: who has it in memory goes on using it. `false` where it was gone already.
    pub fn remove(&self) -> Result<bool> {
        let removed = self.state.unlink_entry(&self.below_root(), &self.key);
        removed.map_err(|e| Error::io("remove", &self.path(), e))
    }

    /// What it counts for in `max_bytes`: whole blocks of 4 KiB.
    pub fn room(&self) -> u64 {
        room(self.bytes)
    }

    /// How much is to be said for keeping it, by the directory's policy: what has least goes first when there has to be room.
    /// Only the order counts. Opened only where its file's times were set by a copy.
    ///
    /// # Errors
    ///
    /// As for [`Entry::metadata`].
    pub fn worth(&self) -> Result<f64> {
        let nanoseconds = |time: SystemTime| {
            i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos()).unwrap_or(i64::MAX)
        };
        let (created, bounds) = (nanoseconds(self.created), self.state.bounds());
        let seconds = match seconds_of(created) {
            Some(seconds) => seconds,
            None => self.metadata()?.compute_seconds,
        };
        let now = nanoseconds(SystemTime::now());
        let used = last_used(nanoseconds(self.used), created, now);
        Ok(bounds.policy().worth(&Seen { size: size(self.bytes, &bounds), seconds, used }, now))
    }

    fn open(&self) -> Result<(Memory, Parsed)> {
        let failed = |e: Errno| match e {
            Errno::LOOP | Errno::NXIO | Errno::NODEV => self.damaged("is no regular file"),
            e => Error::io("read", &self.path(), e),
        };
        let file = self.state.directory.open_unnoticed(&self.below_root()).map_err(failed)?;
        let memory = read_or_map(&file).map_err(failed)?;
        let parsed = entry::parse(memory.as_slice(), &self.key).map_err(|why| self.damaged(why))?;
        Ok((memory, parsed))
    }

    fn damaged(&self, why: &str) -> Error {
        Error::Damaged { path: self.path(), reason: why.to_owned() }
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.path().display())
    }
}

/// The whole of an open file: read, or mapped from the length on from which a hit is.
pub(crate) fn read_or_map(file: &OwnedFd) -> rustix::io::Result<Memory> {
    let stat = statx_of(file.as_fd())?;
    if FileType::from_raw_mode(stat.stx_mode.into()) != FileType::RegularFile {
        return Err(Errno::NXIO);
    }
    if stat.stx_size >= MAP_FROM as u64 {
        return Memory::map(file.as_fd(), &stat);
    }
    let mut memory = Memory::zeroed(stat.stx_size as usize).map_err(|_| Errno::NOMEM)?;
    let mut rest = memory.as_mut_slice();
    while !rest.is_empty() {
        match retry(|| rustix::io::read(file, &mut *rest))? {
            0 => break,
            n => rest = &mut rest[n..],
        }
    }
    Ok(memory)
}

/// What an entry says of itself: see `docs/format.md`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Metadata {
    /// The function's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What else its results depend on: names and values, sorted.
    pub dependencies: Vec<(String, String)>,
    /// The layout letters of the argument arrays, where they are part of the key.
    pub layout: String,
    /// The arguments, as far as they were kept.
    pub arguments: Recorded,
    /// When it was computed.
    pub created: SystemTime,
    /// What computing it took, in seconds.
    pub compute_seconds: f64,
    /// Where it was computed.
    pub host: String,
    /// By which version of npcache it was stored.
    pub npcache: String,
    /// What the function recorded of the run.
    pub notes: Vec<(String, String)>,
    /// The arrays: names, element types, shapes.
    pub arrays: Vec<Array>,
}

impl Metadata {
    pub(crate) fn parse(json: &[u8], arrays: Vec<Array>) -> Option<Metadata> {
        let json: Json = serde_json::from_slice(json).ok()?;
        let text = |member: &str| json[member].as_str().unwrap_or_default().to_owned();
        let seconds = |member: &str| json[member].as_f64().filter(|s| *s >= 0.0).unwrap_or(0.0);
        let created = Duration::try_from_secs_f64(seconds("created")).unwrap_or_default();
        let dependencies = json["dependencies"].as_array()?.iter();
        let notes = json["notes"].as_object().into_iter().flatten();
        Some(Metadata {
            name: json["name"].as_str()?.to_owned(),
            version: text("version"),
            dependencies: dependencies
                .map(|pair| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned())))
                .collect::<Option<_>>()?,
            layout: text("layout"),
            arguments: Recorded::parse(&json["arguments"])?,
            created: UNIX_EPOCH.checked_add(created)?,
            compute_seconds: seconds("compute_seconds"),
            host: text("host"),
            npcache: text("npcache"),
            notes: notes.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect(),
            arrays,
        })
    }

    /// The function's identity: calls of it with the recorded arguments have this entry's key, if `layout` is empty.
    pub fn identity(&self) -> Result<Identity> {
        Identity::new(&self.name, &self.version, self.dependencies.clone(), !self.layout.is_empty())
    }
}

/// The arguments of a stored call, as far as they were kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// A description of canonical arguments: [`Call::parse_description`](crate::Call::parse_description) reads it.
    Call(Vec<u8>),
    /// Ready bytes.
    Bytes(Vec<u8>),
    /// The length of arguments that were too long to be kept.
    Length(u64),
}

impl Recorded {
    fn parse(json: &Json) -> Option<Recorded> {
        if let Some(hex) = json["cbor"].as_str() {
            return from_hex(hex).map(Recorded::Call);
        }
        match json["bytes"].as_str() {
            Some(hex) => from_hex(hex).map(Recorded::Bytes),
            None => json["length"].as_u64().map(Recorded::Length),
        }
    }
}

/// In parentheses, as `(64, nu=0.2)` or `(16 bytes: 4000…)`.
impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Recorded::Call(described) => match cbor::Call::parse_description(described) {
                Some(call) => call.fmt(f),
                None => f.write_str("(arguments of a later format)"),
            },
            Recorded::Bytes(bytes) if bytes.is_empty() => f.write_str("()"),
            Recorded::Bytes(bytes) => {
                let (shown, more) = bytes.split_at(bytes.len().min(16));
                let rest = if more.is_empty() { "" } else { "…" };
                write!(f, "({} bytes: {}{rest})", bytes.len(), hex(shown))
            }
            Recorded::Length(length) => write!(f, "({length} bytes)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use ndarray::Array1;

    use super::*;
    use crate::store::function_directory;

    fn store(cache: &Cache, name: &str, i: u8) -> PathBuf {
        let result = cache.call(name, "1", [i], |out| out.write(&Array1::from_elem(4, f64::from(i))));
        result.unwrap().path().unwrap().to_owned()
    }

    fn listed(cache: &Cache, function: Option<&str>, digits: &str) -> Vec<Entry> {
        cache.entries(function, digits).map(|entry| entry.unwrap()).collect()
    }

    #[test]
    fn entries_come_by_function_and_key_with_what_they_say_of_themselves() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        (0..40).for_each(|i| drop(store(&cache, ["one", "two/three"][i as usize % 2], i)));
        let all = listed(&cache, None, "");
        let order: Vec<_> =
            all.iter().map(|entry| (entry.function() == "one", entry.key().to_string())).collect();
        assert_eq!(all.len(), 40);
        assert!(order.is_sorted_by(|(a, x), (b, y)| a > b || a == b && x < y));
        let two = listed(&cache, Some("two/three"), "");
        assert_eq!((two.len(), two[0].function().as_str()), (20, "two/three"));
        let metadata = two[0].metadata().unwrap();
        assert_eq!((metadata.name.as_str(), metadata.arrays[0].shape()), ("two/three", &[4i64][..]));
        let Recorded::Bytes(args) = &metadata.arguments else { panic!("{:?}", metadata.arguments) };
        assert_eq!(two[0].load().unwrap().view::<f64>(0).unwrap()[0], f64::from(args[0]));
        for entry in &all {
            let digits = entry.key().to_string();
            assert_eq!(listed(&cache, None, &digits)[0].path(), entry.path());
            assert!(listed(&cache, None, &digits[..1]).iter().any(|other| other.key() == entry.key()));
            assert!(
                listed(&cache, None, &digits[..3])
                    .iter()
                    .all(|other| other.key().hex()[..3] == entry.key().hex()[..3])
            );
        }
        let counted = || cache.state().unwrap().tally().total();
        assert_eq!(counted(), (40 * 4096, 40));
        assert_eq!((two[3].remove().unwrap(), two[3].remove().unwrap()), (true, false));
        assert_eq!(counted(), (39 * 4096, 39), "what is gone is not counted, once");
        assert_eq!(listed(&cache, None, "").len(), 39);
        assert!(
            matches!(two[3].metadata(), Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn what_is_no_entry_is_told_and_the_rest_listed_and_no_link_followed() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(directory.path()).unwrap();
        let paths: Vec<_> = (0..4).map(|i| store(&cache, "f", i)).collect();
        // A link for an entry, a link for a shard, a file in a wrong shard, a flipped byte.
        let outside = tempfile::tempdir().unwrap();
        let kept = outside.path().join(paths[0].file_name().unwrap());
        std::fs::rename(&paths[0], &kept).unwrap();
        symlink(&kept, &paths[0]).unwrap();
        let shard = paths[1].parent().unwrap();
        std::fs::rename(shard, outside.path().join("shard")).unwrap();
        symlink(outside.path().join("shard"), shard).unwrap();
        std::fs::hard_link(&paths[2], paths[3].parent().unwrap().join(paths[2].file_name().unwrap()))
            .unwrap();
        let mut bytes = std::fs::read(&paths[3]).unwrap();
        bytes[130] ^= 1;
        std::fs::remove_file(&paths[3]).unwrap();
        std::fs::write(&paths[3], bytes).unwrap();

        let (found, bad): (Vec<_>, Vec<_>) = cache.entries(None, "").partition(|entry| entry.is_ok());
        let found: Vec<_> = found.into_iter().map(|entry| entry.unwrap()).collect();
        assert_eq!((found.len(), bad.len()), (2, 2), "{found:?} {bad:?}");
        for e in bad.into_iter().map(|entry| entry.unwrap_err()) {
            assert!(matches!(e, Error::Damaged { .. }), "{e}");
        }
        for entry in &found {
            let damaged = entry.path() == paths[3];
            assert_eq!(matches!(entry.verify(), Err(Error::Damaged { .. })), damaged);
            assert!(entry.metadata().is_ok(), "the data alone are damaged");
        }
        // Nothing is removed through a link either.
        let behind = Entry {
            key: paths[1].file_stem().unwrap().to_str().unwrap().parse().unwrap(),
            ..found[0].clone()
        };
        assert!(behind.remove().is_err() && outside.path().join("shard").read_dir().unwrap().count() == 1);
    }

    #[test]
    fn a_functions_name_is_read_back_from_its_directorys() {
        for name in ["solve", "a/b c", "größe", ".hidden", "CACHEDIR.TAG", "100%", "%zz"] {
            assert_eq!(function_name(function_directory(name).as_bytes()), name);
        }
        let long = "x".repeat(300);
        assert_eq!(function_name(function_directory(&long).as_bytes()), "x".repeat(167) + "…");
        assert_eq!(function_name(b"50%"), "50%");
    }

    #[test]
    fn a_directory_is_looked_at_without_changing_it() {
        let directory = tempfile::tempdir().unwrap();
        let cache = crate::Options::new().mode(crate::Mode::ReadOnly).open_as_set(directory.path()).unwrap();
        assert_eq!(listed(&cache, None, "").len(), 0);
        assert_eq!(directory.path().read_dir().unwrap().count(), 0);
    }
}
