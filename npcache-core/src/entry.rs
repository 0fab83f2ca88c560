//! The bytes of an entry: `.npy` records, one an array, and a footer that says whose result they are.
//!
//! `docs/format.md` draws them. [`Encoded`] lays them out, [`parse`] checks them; where they are kept is
//! [`crate::store`]'s business. Nothing is trusted that its checksum does not cover, and the checksums of all but the
//! data are verified at every open.

use std::ffi::CString;
use std::hash::Hasher;
use std::io::IoSlice;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use smallvec::{SmallVec, smallvec};
use twox_hash::XxHash3_64;

use crate::dtype::{DType, Descr};
use crate::error::Error;
use crate::key::Key;
use crate::npy::{self, Dims, Header};

/// The disk format that this library writes, and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

const MAGIC: &[u8; 8] = b"\x93NPCACHE";

/// Length of the fixed-size end of an entry.
pub(crate) const TAIL: usize = 192;

/// Longer pieces, and all from so many hashes on, are hashed with whatever vector instructions the processor has. That takes
/// half the time; but to ask which these are takes 60 µs, once in a process, where a virtual machine emulates the answer: as
/// long as all else that a first hit takes.
const VECTORS_FROM: usize = 4 << 10;
const VECTORS_AFTER: u32 = 4096;

/// What is written at a time of a large result: measured best of 256 KiB to 4 MiB, with 2 MiB of second-level cache.
const PIECE: usize = 1 << 20;

/// More arrays in one result are refused, as is an entry that claims more.
pub(crate) const MAX_ARRAYS: usize = 4096;

/// The arrays of a result, which mostly are one.
pub(crate) type Arrays = SmallVec<[Array; 1]>;

/// An array of a result: what it is, and where its elements lie in the memory that holds it.
#[derive(Debug, Clone)]
pub struct Array {
    pub(crate) name: Option<CString>,
    pub(crate) header: Header,
    pub(crate) strides: Dims,
    /// Which of the result's blocks of memory.
    pub(crate) block: usize,
    pub(crate) offset: usize,
    pub(crate) len: usize,
}

impl Array {
    /// The name that the function gave it.
    pub fn name(&self) -> Option<&str> {
        self.name.as_ref().map(|name| name.to_str().expect("checked when it was named"))
    }

    /// Its element type.
    pub fn descr(&self) -> &Descr {
        &self.header.descr
    }

    /// Its element type, where C has one for it.
    pub fn dtype(&self) -> Option<DType> {
        self.header.descr.dtype()
    }

    /// Its shape; empty for an array of no dimensions, which has one element.
    pub fn shape(&self) -> &[i64] {
        &self.header.shape
    }

    /// Bytes from an element to the next along each dimension.
    pub fn strides(&self) -> &[i64] {
        &self.strides
    }

    /// Whether its elements lie in Fortran (column-major) order.
    pub fn is_fortran_order(&self) -> bool {
        self.header.fortran_order
    }

    /// Bytes of its elements.
    pub fn nbytes(&self) -> usize {
        self.len
    }

    /// The array of an `.npy` file, given whole, and its elements, which lie at `strides` from each other. What follows
    /// them is not looked at.
    ///
    /// # Errors
    ///
    /// [`Error::Dtype`] where the file is cut off, or begins as `numpy.save` would not begin it.
    pub fn from_npy(bytes: &[u8]) -> Result<(Array, &[u8]), Error> {
        let wrong = || {
            let how = "these bytes are no .npy file as numpy writes it; numpy.save(file, numpy.load(file)) may mend it";
            Error::Dtype(how.to_owned())
        };
        let (header, offset) = npy::read_header(bytes).ok_or_else(wrong)?;
        let len = header.data_len().ok_or_else(wrong)?;
        let data = bytes[offset..].get(..len).ok_or_else(wrong)?;
        let strides = header.strides();
        Ok((Array { name: None, header, strides, block: 0, offset, len }, data))
    }

    /// What an `.npy` file of this array alone has before its elements, as numpy reads it.
    ///
    /// ```
    /// use npcache_core::Array;
    /// # let directory = tempfile::tempdir()?;
    /// # let cache = npcache_core::Cache::open(directory.path())?;
    /// let result = cache.call("ones", "1", b"", |out| out.write(&ndarray::Array2::<f32>::ones((2, 3))))?;
    /// let file = [&result.arrays()[0].npy_header(), result.bytes(0)].concat();
    /// let (array, elements) = Array::from_npy(&file)?;
    /// assert_eq!((array.shape(), elements), (&[2, 3][..], result.bytes(0)));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn npy_header(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(128);
        npy::write_header(&mut header, 0, &self.header);
        header
    }

    /// The name that the function gave it, as C reads it.
    pub fn c_name(&self) -> Option<&std::ffi::CStr> {
        self.name.as_deref()
    }
}

/// What makes a file the one that was written, and so its unread data trustworthy: see `docs/format.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Origin {
    pub(crate) inode: u64,
    /// Nanoseconds since 1970, as for `born`.
    pub(crate) mtime: i64,
    /// When the inode was made; 0 where the file system does not tell. Nobody can set it, so a file that took over the
    /// inode number of a removed one is told from it.
    pub(crate) born: i64,
    /// The boot it was written in.
    pub(crate) boot: [u8; 16],
}

/// An entry's bytes around its data.
pub(crate) struct Encoded<'a> {
    /// The npy header and the data of each array.
    records: Vec<(Vec<u8>, &'a [u8])>,
    /// The arrays' names, as the footer has them.
    names: Vec<u8>,
    /// Of the records, together.
    len: u64,
}

impl<'a> Encoded<'a> {
    /// Lays out `arrays` with their data.
    pub(crate) fn new(arrays: impl Iterator<Item = (&'a Array, &'a [u8])>) -> Encoded<'a> {
        let mut len = 0;
        let mut names = Vec::new();
        let records = arrays
            .map(|(array, data)| {
                let mut header = Vec::with_capacity(128);
                npy::write_header(&mut header, len, &array.header);
                len += (header.len() + data.len()) as u64;
                let name = array.name.as_ref().map_or(&b""[..], |name| name.as_bytes());
                names.extend_from_slice(&(name.len() as u16).to_le_bytes());
                names.extend_from_slice(name);
                (header, data)
            })
            .collect();
        Encoded { records, names, len }
    }

    /// Bytes of the records together.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The checksum of the data: reads all of it.
    pub(crate) fn data_hash(&self) -> u64 {
        self.records.iter().fold(0, |hash, (_, data)| chain(hash, data))
    }

    /// Has `write` write the records in pieces, and hashes each right after it, when it was just read; the checksum of the
    /// data. Of 100 MiB that makes 30 ms of 33 ms, where the system call alone takes 27 ms.
    pub(crate) fn hash_and_write<E>(
        &self,
        mut write: impl FnMut(&mut [IoSlice<'_>]) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut hash = 0;
        for (header, data) in &self.records {
            let mut hasher = XxHash3_64::with_seed(hash);
            write(&mut [IoSlice::new(header)])?;
            for piece in data.chunks(PIECE) {
                hasher.write(piece);
                write(&mut [IoSlice::new(piece)])?;
            }
            hash = hasher.finish();
        }
        Ok(hash)
    }

    /// What stands after the records. `origin` is that of the file to be written, `took` what computing them took.
    pub(crate) fn footer(
        &self,
        key: &Key,
        metadata: &[u8],
        origin: &Origin,
        took: Duration,
        data_hash: u64,
    ) -> Vec<u8> {
        let (names, position) = (&self.names, self.len);
        let payload = names.len() + metadata.len() + TAIL;
        let mut footer = Vec::with_capacity(192 + payload);
        let descr = DType::UInt8.into();
        npy::write_header(
            &mut footer,
            position,
            &Header { descr, fortran_order: false, shape: smallvec![payload as i64] },
        );
        let header_len = footer.len();
        let headers = self.records.iter().map(|(header, _)| header).chain([&footer]);
        let headers_hash = headers.fold(0, |hash, header| chain(hash, header));
        footer.extend_from_slice(names);
        footer.extend_from_slice(metadata);

        let mut tail = [0; TAIL];
        let mut put = |at: usize, bytes: &[u8]| tail[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, MAGIC);
        put(8, &FORMAT.to_le_bytes());
        put(12, &(self.records.len() as u32).to_le_bytes());
        put(16, &(position + (header_len + payload) as u64).to_le_bytes());
        put(24, &position.to_le_bytes());
        put(32, &(header_len as u32).to_le_bytes());
        put(36, &(names.len() as u32).to_le_bytes());
        put(40, &(metadata.len() as u64).to_le_bytes());
        put(48, key.as_bytes());
        put(80, &origin.inode.to_le_bytes());
        put(88, &origin.mtime.to_le_bytes());
        put(96, &origin.boot);
        put(136, &origin.born.to_le_bytes());
        put(144, &(took.as_nanos() as u64).to_le_bytes());
        put(112, &headers_hash.to_le_bytes());
        put(120, &data_hash.to_le_bytes());
        put(128, &chain(0, &footer[header_len..]).to_le_bytes());
        let hash = chain(0, &tail[..TAIL - 8]);
        tail[TAIL - 8..].copy_from_slice(&hash.to_le_bytes());
        footer.extend_from_slice(&tail);
        footer
    }

    /// The pieces of the records, in order; room for one more.
    pub(crate) fn pieces(&self) -> Vec<IoSlice<'_>> {
        let mut pieces = Vec::with_capacity(2 * self.records.len() + 1);
        for (header, data) in &self.records {
            pieces.extend([IoSlice::new(header), IoSlice::new(data)]);
        }
        pieces
    }
}

/// An entry as it was found.
#[derive(Debug)]
pub(crate) struct Parsed {
    pub(crate) arrays: Arrays,
    pub(crate) origin: Origin,
    /// What computing it took; zero where that is not known.
    pub(crate) took: Duration,
    data_hash: u64,
}

impl Parsed {
    /// Whether the data is what was written; reads all of it.
    pub(crate) fn data_is_whole(&self, bytes: &[u8]) -> bool {
        let hash = self.arrays.iter().fold(0, |hash, array| chain(hash, &bytes[array.offset..][..array.len]));
        hash == self.data_hash
    }
}

/// Checks all of an entry but its data. The error says what is wrong with it.
pub(crate) fn parse(bytes: &[u8], key: &Key) -> Result<Parsed, &'static str> {
    let (tail, footer) = split_footer(bytes)?;
    if tail.get(48) != *key.as_bytes() {
        return Err(OF_ANOTHER_KEY);
    }
    let header_len = u32::from_le_bytes(tail.get(32)) as usize;
    let names_len = u32::from_le_bytes(tail.get(36)) as usize;
    let mut names = footer.get(header_len..).and_then(|rest| rest.get(..names_len)).ok_or(DAMAGED)?;
    let count = u32::from_le_bytes(tail.get(12)) as usize;
    if count > MAX_ARRAYS {
        return Err(DAMAGED);
    }

    let records_len = bytes.len() - footer.len();
    let mut arrays = Arrays::with_capacity(count);
    let mut hash = 0;
    let mut position = 0;
    for _ in 0..count {
        let (header, header_len) = npy::read_header(&bytes[position..records_len]).ok_or(DAMAGED)?;
        hash = chain(hash, &bytes[position..position + header_len]);
        let offset = position + header_len;
        let len = header.data_len().filter(|len| *len <= records_len - offset).ok_or(DAMAGED)?;
        let (name_len, rest) = names.split_first_chunk().ok_or(DAMAGED)?;
        let (name, rest) = rest.split_at_checked(u16::from_le_bytes(*name_len) as usize).ok_or(DAMAGED)?;
        names = rest;
        std::str::from_utf8(name).map_err(|_| DAMAGED)?;
        let name = if name.is_empty() { None } else { Some(CString::new(name).map_err(|_| DAMAGED)?) };
        let strides = header.strides();
        arrays.push(Array { name, header, strides, block: 0, offset, len });
        position = offset + len;
    }
    let expected = u64::from_le_bytes(tail.get(112));
    let footer_header = footer.get(..header_len).ok_or(DAMAGED)?;
    if position != records_len || !names.is_empty() || chain(hash, footer_header) != expected {
        return Err(DAMAGED);
    }
    let origin = Origin {
        inode: u64::from_le_bytes(tail.get(80)),
        mtime: i64::from_le_bytes(tail.get(88)),
        boot: tail.get(96),
        born: i64::from_le_bytes(tail.get(136)),
    };
    let took = Duration::from_nanos(u64::from_le_bytes(tail.get(144)));
    Ok(Parsed { arrays, origin, took, data_hash: u64::from_le_bytes(tail.get(120)) })
}

/// The metadata of an entry: JSON, see `docs/format.md`. Checks the footer alone.
pub(crate) fn metadata(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let (tail, footer) = split_footer(bytes)?;
    let header_len = u32::from_le_bytes(tail.get(32)) as usize;
    let names_len = u32::from_le_bytes(tail.get(36)) as usize;
    let body = &footer[..footer.len() - TAIL];
    body.get(header_len..).and_then(|rest| rest.get(names_len..)).ok_or(DAMAGED)
}

/// Whose result an entry is, as it says itself. Checks the footer alone.
pub(crate) fn key(bytes: &[u8]) -> Result<Key, &'static str> {
    let (tail, _) = split_footer(bytes)?;
    Ok(Key::from(tail.get::<32>(48)))
}

/// What computing an entry took, by the last bytes of its file of `len`; `None` where these are no entry's.
pub(crate) fn time_of_tail(tail: &[u8; TAIL], len: u64) -> Option<Duration> {
    let tail = whole_tail(tail, len).ok()?;
    Some(Duration::from_nanos(u64::from_le_bytes(tail.get(144))))
}

pub(crate) const DAMAGED: &str = "it is damaged";
pub(crate) const UNTRUSTED: &str = "it may be another user's making, which trust=owner excludes";
const OF_ANOTHER_KEY: &str = "it belongs to another key";

/// The tail, and the whole footer record, both with their checksums verified.
fn split_footer(bytes: &[u8]) -> Result<(Tail<'_>, &[u8]), &'static str> {
    let tail = whole_tail(bytes.last_chunk().ok_or("it is too short")?, bytes.len() as u64)?;
    let footer_at = u64::from_le_bytes(tail.get(24));
    let header_len = u32::from_le_bytes(tail.get(32));
    let footer = &bytes[footer_at as usize..];
    let body = &footer[header_len as usize..footer.len() - TAIL];
    if chain(0, body) != u64::from_le_bytes(tail.get(128)) {
        return Err(DAMAGED);
    }
    Ok((tail, footer))
}

/// Checks the end of a file of `len` bytes, before the rest is read: whether it is the end of a whole entry of this key.
pub(crate) fn check_tail(tail: &[u8; TAIL], len: u64, key: &Key) -> Result<(), &'static str> {
    let belongs = whole_tail(tail, len)?.get(48) == *key.as_bytes();
    if belongs { Ok(()) } else { Err(OF_ANOTHER_KEY) }
}

fn whole_tail(bytes: &[u8; TAIL], len: u64) -> Result<Tail<'_>, &'static str> {
    let tail = Tail(bytes);
    if tail.get(0) != *MAGIC {
        return Err("it does not end as an entry does");
    }
    if u32::from_le_bytes(tail.get(8)) != FORMAT {
        return Err("it is of another format");
    }
    if chain(0, &tail.0[..TAIL - 8]) != u64::from_le_bytes(tail.get(TAIL - 8)) {
        return Err(DAMAGED);
    }
    let (file_len, footer_at) = (u64::from_le_bytes(tail.get(16)), u64::from_le_bytes(tail.get(24)));
    let metadata_len = u64::from_le_bytes(tail.get(40));
    let (header_len, names_len) = (u32::from_le_bytes(tail.get(32)), u32::from_le_bytes(tail.get(36)));
    let footer_len = (TAIL as u64 + header_len as u64 + names_len as u64).checked_add(metadata_len);
    if file_len != len || footer_len.and_then(|len| file_len.checked_sub(len)) != Some(footer_at) {
        return Err("its length is not what was written");
    }
    Ok(tail)
}

struct Tail<'a>(&'a [u8; TAIL]);

impl Tail<'_> {
    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0[at..at + N].try_into().expect("constant offsets within the tail")
    }
}

/// XXH3-64 of several pieces: each is hashed with the hash before it as the seed.
fn chain(hash: u64, piece: &[u8]) -> u64 {
    static HASHED: AtomicU32 = AtomicU32::new(0);
    let hashed = HASHED.load(Ordering::Relaxed);
    if piece.len() < VECTORS_FROM && hashed < VECTORS_AFTER {
        // Threads that count at once lose some, which only makes it later.
        HASHED.store(hashed + 1, Ordering::Relaxed);
        return xxhash_rust::xxh3::xxh3_64_with_seed(piece, hash);
    }
    XxHash3_64::oneshot_with_seed(hash, piece)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_has_one_hash_whoever_computes_it() {
        let bytes: Vec<u8> = (0..2 * VECTORS_FROM).map(|i| (i * 7 % 251) as u8).collect();
        for len in (0..520).chain(VECTORS_FROM - 2..VECTORS_FROM + 2) {
            for seed in [0, 1, u64::MAX] {
                assert_eq!(
                    chain(seed, &bytes[..len]),
                    XxHash3_64::oneshot_with_seed(seed, &bytes[..len]),
                    "{len}"
                );
            }
        }
    }
}
