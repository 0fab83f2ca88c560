//! SHA-256, and the tree (docs/keys.md) that lets all cores hash one long content.
//!
//! Contents in one piece are hashed where they lie. Strided arrays are gathered in logical order, and files
//! read, one chunk of 1 MiB a thread, so that no content is ever copied whole. Helper threads live only as
//! long as the call, have all signals blocked, and are dispensable: where none can be had, the caller does
//! all the work.

use std::borrow::Cow;
use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};
use crate::npy::MAX_NDIM;

/// The tree's leaves are chunks of this size, and contents up to it are not hashed apart (docs/keys.md).
pub(crate) const CHUNK: usize = 1 << 20;
/// One helper thread for each of these: 4 MiB take a core 2 ms or more, starting a thread some 20 µs.
const BYTES_PER_HELPER: u64 = 4 << 20;

/// A SHA-256, displayed as 64 lowercase hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// Bytes as hexadecimal digits, lowercase.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|n| char::from_digit(n.into(), 16))
        .collect()
}

/// The bytes of hexadecimal digits, two each, in either case; `None` for any other text.
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    rest.is_empty().then_some(())?;
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Bytes as a key sees them: whole up to 1 MiB, by length and tree root beyond.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content<'a> {
    /// The bytes themselves.
    Whole(Cow<'a, [u8]>),
    /// What stands for bytes that are too many.
    Long {
        /// How many they are.
        length: u64,
        /// The root of the tree over them.
        root: Digest,
    },
}

impl<'a> Content<'a> {
    /// These bytes, borrowed where they are at most 1 MiB.
    pub(crate) fn of(bytes: &'a [u8]) -> Content<'a> {
        if bytes.len() <= CHUNK {
            Content::Whole(Cow::Borrowed(bytes))
        } else {
            Content::Long { length: bytes.len() as u64, root: tree_root(bytes) }
        }
    }

    /// The same, borrowing nothing.
    pub(crate) fn into_owned(self) -> Content<'static> {
        match self {
            Content::Whole(bytes) => Content::Whole(Cow::Owned(bytes.into_owned())),
            Content::Long { length, root } => Content::Long { length, root },
        }
    }

    /// How many bytes this stands for.
    pub(crate) fn length(&self) -> u64 {
        match self {
            Content::Whole(bytes) => bytes.len() as u64,
            Content::Long { length, .. } => *length,
        }
    }

    /// The root of the tree over the bytes, computed where only the bytes are here.
    pub(crate) fn root(&self) -> Digest {
        match self {
            Content::Whole(bytes) => tree_root(bytes),
            Content::Long { root, .. } => *root,
        }
    }
}

impl Content<'static> {
    /// What a regular file holds. A file that is seen to change meanwhile is an error.
    pub(crate) fn of_file(path: &Path) -> Result<Content<'static>> {
        let failed = |source: io::Error| Error::io("read the file", path, source);
        // Looked at before it is opened: opening a pipe would wait for its writer.
        if !path.metadata().map_err(failed)?.is_file() {
            return Err(Error::Argument(format!("{} is not a regular file", path.display())));
        }
        let file = File::open(path).map_err(failed)?;
        let before = file.metadata().map_err(failed)?;
        let length = before.len();
        let content = if length <= CHUNK as u64 {
            let mut whole = vec![0; length as usize];
            file.read_exact_at(&mut whole, 0).map(|()| Content::Whole(Cow::Owned(whole)))
        } else {
            root(length, |offset, size, buffer| {
                buffer.resize(size, 0);
                file.read_exact_at(buffer, offset)?;
                Ok(leaf(buffer))
            })
            .map(|root| Content::Long { length, root })
        };
        let after = file.metadata().map_err(failed)?;
        let grew = file.read_at(&mut [0], length).map_err(failed)? > 0;
        match content {
            Err(fault) if fault.kind() != io::ErrorKind::UnexpectedEof => Err(failed(fault)),
            Ok(content)
                if !grew && after.len() == length && after.modified().ok() == before.modified().ok() =>
            {
                Ok(content)
            }
            _ => Err(Error::Argument(format!(
                "{} changed while it was read, or does not have the size that its file system tells",
                path.display()
            ))),
        }
    }
}

/// The root of the tree over `bytes`, hashed where they lie, on all cores from 4 MiB on. Of no bytes, it is
/// that of one empty chunk.
pub fn tree_root(bytes: &[u8]) -> Digest {
    let Ok(root) = root(bytes.len() as u64, |offset, size, _| {
        Ok::<_, Infallible>(leaf(&bytes[offset as usize..offset as usize + size]))
    });
    root
}

fn leaf(chunk: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update([0]).chain_update(chunk).finalize().into()
}

/// Joins the leaves, level by level.
fn join(mut level: Vec<[u8; 32]>) -> Digest {
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => {
                    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
                }
                _ => pair[0],
            })
            .collect();
    }
    Digest(level.pop().unwrap_or_else(|| leaf(&[])))
}

/// The root over `length` bytes, whose leaves `leaf_of(offset, size, scratch)` computes on any thread;
/// `scratch` is the thread's own and starts out empty. The first failure ends the work and is returned.
fn root<E: Send>(
    length: u64,
    leaf_of: impl Fn(u64, usize, &mut Vec<u8>) -> Result<[u8; 32], E> + Sync,
) -> Result<Digest, E> {
    let mut leaves = vec![[0; 32]; length.div_ceil(CHUNK as u64) as usize];
    let work = Mutex::new(leaves.iter_mut().zip((0..length).step_by(CHUNK)));
    let failure = Mutex::new(None);
    let share = || {
        let mut scratch = Vec::new();
        loop {
            let Some((slot, offset)) = work.lock().next() else { return };
            match leaf_of(offset, (length - offset).min(CHUNK as u64) as usize, &mut scratch) {
                Ok(hash) => *slot = hash,
                Err(fault) => {
                    work.lock().by_ref().for_each(drop);
                    *failure.lock() = Some(fault);
                }
            }
        }
    };
    let helpers = match length / BYTES_PER_HELPER {
        0 => 0,
        most => most.min(cores().saturating_sub(1)),
    };
    std::thread::scope(|scope| {
        if helpers > 0 {
            let _blocked = SignalsBlocked::new();
            for _ in 0..helpers {
                // Without a thread more (a limit reached, say) those that run do the work.
                if std::thread::Builder::new().name("npcache-hash".into()).spawn_scoped(scope, share).is_err()
                {
                    break;
                }
            }
        }
        share();
    });
    match failure.into_inner() {
        Some(fault) => Err(fault),
        None => Ok(join(leaves)),
    }
}

/// How many cores this process may run on. One system call, where the standard library's reads a dozen files.
pub(crate) fn cores() -> u64 {
    rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count().into())
}

/// Blocks all signals in this thread, and so in the threads it starts, until dropped. The host's handlers
/// then never run on a helper.
struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    fn new() -> SignalsBlocked {
        // SAFETY: `sigset_t` is plain integers, for which zeros are valid; both sets are ours and live
        // through the calls, which do nothing but fill the one and exchange this thread's mask.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            let mut before = all;
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            SignalsBlocked { before }
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask that this thread had, and a null old mask is allowed.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut());
        }
    }
}

/// The content of bytes that are written bit by bit, on the writer's thread.
#[derive(Default)]
pub(crate) struct ContentWriter {
    leaves: Vec<[u8; 32]>,
    /// The chunk that is being filled; hashed when a byte more arrives.
    chunk: Vec<u8>,
}

impl ContentWriter {
    /// How many bytes were written.
    pub(crate) fn length(&self) -> u64 {
        (self.leaves.len() * CHUNK + self.chunk.len()) as u64
    }

    pub(crate) fn finish(mut self) -> Content<'static> {
        let length = self.length();
        if self.leaves.is_empty() {
            return Content::Whole(Cow::Owned(self.chunk));
        }
        self.leaves.push(leaf(&self.chunk));
        Content::Long { length, root: join(self.leaves) }
    }
}

impl io::Write for ContentWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.leaves.push(leaf(&self.chunk));
            self.chunk.clear();
        }
        let size = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..size]);
        Ok(size)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The elements of a strided array, in logical (C) order, as one content.
#[derive(Debug, Clone)]
pub(crate) struct Strided<'a> {
    buffer: &'a [u8],
    /// The first element's place in the buffer.
    offset: isize,
    /// What is copied at a time: the element where it has 1, 2, 4, 8 or 16 bytes, else one byte.
    unit: usize,
    /// Outermost first, without those of length 1, and no two that are one in memory. The innermost counts
    /// units.
    axes: Vec<Axis>,
    /// Of all elements, in bytes.
    length: usize,
}

#[derive(Debug, Clone, Copy)]
struct Axis {
    length: usize,
    /// In bytes.
    stride: isize,
}

/// The bytes of an array's elements; `None` where no memory could hold them.
pub(crate) fn byte_length(shape: &[usize], itemsize: usize) -> Option<usize> {
    if shape.contains(&0) || itemsize == 0 {
        return Some(0);
    }
    let length = shape.iter().try_fold(itemsize, |product, &length| product.checked_mul(length))?;
    isize::try_from(length).ok().map(|_| length)
}

/// The strides of C order, in bytes. The array must pass [`byte_length`].
pub(crate) fn c_strides(shape: &[usize], itemsize: usize) -> Vec<isize> {
    let mut strides = vec![0; shape.len()];
    let mut stride = itemsize;
    for (slot, &length) in strides.iter_mut().zip(shape).rev() {
        *slot = stride as isize;
        stride = stride.saturating_mul(length); // beyond only where an outer dimension is 0
    }
    strides
}

/// How many bytes an array reaches before its first element's first byte, and how many from there on. Both
/// are 0 where it has no bytes.
pub(crate) fn extent(shape: &[usize], strides: &[isize], itemsize: usize) -> Result<(usize, usize)> {
    if shape.len() > MAX_NDIM {
        return Err(Error::Argument(format!(
            "an array of {} dimensions; at most {MAX_NDIM} are supported",
            shape.len()
        )));
    }
    if shape.len() != strides.len() {
        return Err(Error::Argument(format!(
            "an array has {} dimensions but {} strides",
            shape.len(),
            strides.len()
        )));
    }
    let too_large =
        || Error::Argument(format!("an array of shape {shape:?} and strides {strides:?} fits no memory"));
    if byte_length(shape, itemsize).ok_or_else(too_large)? == 0 {
        return Ok((0, 0));
    }
    let (mut before, mut after) = (0isize, isize::try_from(itemsize).map_err(|_| too_large())?);
    for (&length, &stride) in shape.iter().zip(strides) {
        let reach = isize::try_from(length - 1).ok().and_then(|steps| steps.checked_mul(stride));
        let reach = reach.ok_or_else(too_large)?;
        let side = if reach < 0 { &mut before } else { &mut after };
        *side = side.checked_add(reach).ok_or_else(too_large)?;
    }
    Ok((before.unsigned_abs(), after as usize))
}

impl<'a> Strided<'a> {
    /// The elements of the array whose first element begins at `buffer[offset]`. Fails unless every byte of
    /// every element is inside the buffer.
    pub(crate) fn new(
        shape: &[usize],
        strides: &[isize],
        itemsize: usize,
        buffer: &'a [u8],
        offset: usize,
    ) -> Result<Strided<'a>> {
        let (before, after) = extent(shape, strides, itemsize)?;
        let length = byte_length(shape, itemsize).unwrap_or(0);
        if length == 0 {
            return Ok(Strided { buffer: &[], offset: 0, unit: 1, axes: Vec::new(), length });
        }
        let end = offset.checked_add(after).filter(|&end| before <= offset && end <= buffer.len());
        if end.is_none() {
            return Err(Error::Argument(format!(
                "an array of shape {shape:?} and strides {strides:?} whose first element is at byte {offset} \
                 reaches from {before} bytes before there to {after} after, outside its buffer of {} bytes",
                buffer.len()
            )));
        }
        let unit = if matches!(itemsize, 1 | 2 | 4 | 8 | 16) { itemsize } else { 1 };
        let mut axes: Vec<Axis> = Vec::with_capacity(shape.len() + 1);
        let bytes_of_item = [(itemsize / unit, unit as isize)];
        for (length, stride) in shape.iter().copied().zip(strides.iter().copied()).chain(bytes_of_item) {
            match axes.last_mut() {
                _ if length == 1 => {}
                Some(outer) if Some(outer.stride) == stride.checked_mul(length as isize) => {
                    *outer = Axis { length: outer.length * length, stride };
                }
                _ => axes.push(Axis { length, stride }),
            }
        }
        Ok(Strided { buffer, offset: offset as isize, unit, axes, length })
    }

    /// The elements where they lie, if that is in one piece and in order.
    fn in_place(&self) -> Option<&'a [u8]> {
        let start = self.offset as usize;
        match self.axes.as_slice() {
            [] => Some(&self.buffer[start..start + self.length]),
            [axis] if axis.stride == self.unit as isize => Some(&self.buffer[start..start + self.length]),
            _ => None,
        }
    }

    /// Copies the elements to `out`, which has room for exactly them: in logical order, or, for an array without gaps
    /// whose own order is to be kept, as they lie in memory.
    pub(crate) fn copy_to(&self, out: &mut [u8], as_they_lie: bool) {
        let start = self.offset as usize;
        match self.in_place() {
            None if as_they_lie => out.copy_from_slice(&self.buffer[start..start + self.length]),
            None => self.gather(0, out),
            Some(bytes) => out.copy_from_slice(bytes),
        }
    }

    /// The elements: borrowed where they lie in order, gathered where not, hashed where longer than 1 MiB.
    pub(crate) fn content(&self) -> Content<'a> {
        if let Some(bytes) = self.in_place() {
            return Content::of(bytes);
        }
        if self.length <= CHUNK {
            let mut whole = vec![0; self.length];
            self.gather(0, &mut whole);
            return Content::Whole(Cow::Owned(whole));
        }
        let Ok(root) = root(self.length as u64, |offset, size, chunk| {
            chunk.resize(size, 0);
            self.gather(offset as usize, chunk);
            Ok::<_, Infallible>(leaf(chunk))
        });
        Content::Long { length: self.length as u64, root }
    }

    /// Fills `out`, which is not empty, with the bytes from `start` on. `start` and the length of `out` are
    /// multiples of the unit.
    fn gather(&self, start: usize, out: &mut [u8]) {
        match self.unit {
            16 => self.gather_units::<16>(&self.axes, self.offset, start / 16, out),
            8 => self.gather_units::<8>(&self.axes, self.offset, start / 8, out),
            4 => self.gather_units::<4>(&self.axes, self.offset, start / 4, out),
            2 => self.gather_units::<2>(&self.axes, self.offset, start / 2, out),
            _ => self.gather_units::<1>(&self.axes, self.offset, start, out),
        }
    }

    /// Fills `out` from unit `start` on of the array that `axes` span from `base`: the rest of an outermost
    /// step, then whole steps, then the beginning of one more.
    fn gather_units<const N: usize>(&self, axes: &[Axis], base: isize, start: usize, mut out: &mut [u8]) {
        let Some((outer, inner)) = axes.split_first() else {
            return self.gather_box::<N>(&[], base, out);
        };
        let step: usize = inner.iter().map(|axis| axis.length).product();
        let mut at = base + (start / step) as isize * outer.stride;
        let into = start % step;
        if into > 0 {
            let size = out.len().min((step - into) * N);
            let (head, rest) = out.split_at_mut(size);
            self.gather_units::<N>(inner, at, into, head);
            (at, out) = (at + outer.stride, rest);
        }
        let steps = out.len() / (step * N);
        if steps > 0 {
            let (whole, rest) = out.split_at_mut(steps * step * N);
            let mut axes = Vec::with_capacity(inner.len() + 1);
            axes.push(Axis { length: steps, stride: outer.stride });
            axes.extend_from_slice(inner);
            self.gather_box::<N>(&axes, at, whole);
            (at, out) = (at + steps as isize * outer.stride, rest);
        }
        if !out.is_empty() {
            self.gather_units::<N>(inner, at, 0, out);
        }
    }

    /// Fills `out` with all units that `axes` span from `base`, reading memory in its own order as far as
    /// that goes: the loops run by stride, not by axis.
    fn gather_box<const N: usize>(&self, axes: &[Axis], base: isize, out: &mut [u8]) {
        let mut loops = Vec::with_capacity(axes.len());
        let mut to = N;
        for axis in axes.iter().rev().filter(|axis| axis.length > 1) {
            loops.push(Loop { length: axis.length, from: axis.stride, to });
            to *= axis.length;
        }
        if loops.is_empty() {
            loops.push(Loop { length: 1, from: N as isize, to: N });
        }
        let row = loops.remove(0); // the one that writes in order
        // A stride of 0 reads the same again and is no use as the innermost loop.
        let width = |l: &Loop| if l.from == 0 { usize::MAX } else { l.from.unsigned_abs() };
        loops.sort_by_key(|l| std::cmp::Reverse(width(l)));
        let column = loops.pop_if(|narrowest| width(narrowest) < width(&row));

        let mut index = [0; MAX_NDIM + 1];
        let (mut from, mut to) = (base, 0);
        loop {
            match column {
                None => self.copy_row::<N>(row, from, &mut out[to..]),
                Some(column) => self.copy_tiles::<N>(row, column, from, &mut out[to..]),
            }
            let mut level = loops.len();
            loop {
                if level == 0 {
                    return;
                }
                level -= 1;
                let Loop { length, from: step_from, to: step_to } = loops[level];
                if index[level] + 1 < length {
                    index[level] += 1;
                    (from, to) = (from + step_from, to + step_to);
                    break;
                }
                (from, to) = (from - step_from * index[level] as isize, to - step_to * index[level]);
                index[level] = 0;
            }
        }
    }

    fn copy_row<const N: usize>(&self, row: Loop, from: isize, out: &mut [u8]) {
        let out = &mut out[..row.length * N];
        if row.from == N as isize {
            out.copy_from_slice(&self.buffer[from as usize..][..row.length * N]);
        } else {
            self.copy_units::<N>(row, from, out);
        }
    }

    /// Copies where `column` reads memory in order and `row` writes it in order: a few columns at a time,
    /// so that each cache line is read once and written once.
    fn copy_tiles<const N: usize>(&self, row: Loop, column: Loop, from: isize, out: &mut [u8]) {
        let columns = (64 / N).max(8);
        for start in (0..row.length).step_by(columns) {
            let tile = Loop { length: columns.min(row.length - start), ..row };
            for line in 0..column.length {
                let to = line * column.to + start * N;
                let from = from + line as isize * column.from + start as isize * row.from;
                self.copy_units::<N>(tile, from, &mut out[to..to + tile.length * N]);
            }
        }
    }

    #[inline(always)]
    fn copy_units<const N: usize>(&self, row: Loop, mut from: isize, out: &mut [u8]) {
        for unit in out.as_chunks_mut::<N>().0 {
            unit.copy_from_slice(&self.buffer[from as usize..][..N]);
            from += row.from;
        }
    }
}

/// An axis as copying sees it: what one step adds to the places read and written, in bytes.
#[derive(Clone, Copy)]
struct Loop {
    length: usize,
    from: isize,
    to: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn bytes(length: usize) -> Vec<u8> {
        (0..length).map(|i| (i * 7 % 251) as u8).collect()
    }

    /// The tree by its definition.
    fn plain_root(bytes: &[u8]) -> Digest {
        join(bytes.chunks(CHUNK).map(leaf).collect())
    }

    #[test]
    fn roots_are_those_of_another_implementation() {
        // From Python's hashlib, by docs/keys.md.
        for (length, root) in [
            (CHUNK + 1, "9d749b6a0137b2e34c1cc7e1af79fb812b4766a4708455d29c862f86e196e4c9"),
            (5 * CHUNK + 7, "9ffa7178499d39bb30af809e01cd721d91ac7b66ce29c7fb7736a95801604634"),
        ] {
            assert_eq!(tree_root(&bytes(length)).to_string(), root);
        }
        assert_eq!(
            Digest(leaf(&[])).to_string(),
            "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
        );
        assert_eq!(tree_root(&[]).0, leaf(&[]));
    }

    #[test]
    fn every_way_to_a_content_leads_to_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("contents");
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 9 * CHUNK + 3] {
            let bytes = bytes(length);
            let content = Content::of(&bytes);
            assert_eq!(matches!(content, Content::Whole(_)), length <= CHUNK);
            assert_eq!((content.length(), content.root()), (length as u64, plain_root(&bytes)));
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(Content::of_file(&path).unwrap(), content);
            for piece in [1000, 3 * CHUNK] {
                let mut writer = ContentWriter::default();
                bytes.chunks(piece).for_each(|piece| writer.write_all(piece).unwrap());
                assert_eq!(writer.length(), length as u64);
                assert_eq!(writer.finish(), content);
            }
        }
    }

    #[test]
    fn what_is_no_steady_regular_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        for (path, expected) in [
            (pipe.as_path(), "pipe is not a regular file"),
            (directory.path(), "is not a regular file"),
            (&directory.path().join("nothing"), "nothing: No such file"),
            (Path::new("/proc/self/status"), "/proc/self/status changed while it was read, or does not"),
        ] {
            let message = Content::of_file(path).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn the_first_failure_ends_the_work() {
        let done = std::sync::atomic::AtomicUsize::new(0);
        let result = root(1000 * CHUNK as u64, |offset, _, _| {
            done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            if offset >= 10 * CHUNK as u64 { Err(offset) } else { Ok([0; 32]) }
        });
        assert!(result.unwrap_err() >= 10 * CHUNK as u64);
        assert!(done.into_inner() < 500);
    }

    /// The calling thread's blocked signals, as the kernel has them.
    fn blocked_signals() -> u64 {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        u64::from_str_radix(mask.trim(), 16).unwrap()
    }

    #[test]
    fn helpers_take_no_signals_and_the_caller_keeps_its_mask() {
        let before = blocked_signals();
        let masks = Mutex::new(Vec::new());
        let caller = std::thread::current().id();
        let helpers = (cores() - 1).min(4);
        // Nobody finishes before every helper has taken a leaf.
        let met = std::sync::Barrier::new(1 + helpers as usize);
        let first = Mutex::new(std::collections::HashSet::new());
        let Ok(_) = root(helpers * BYTES_PER_HELPER, |_, _, _| {
            if first.lock().insert(std::thread::current().id()) {
                met.wait();
                if std::thread::current().id() != caller {
                    masks.lock().push(blocked_signals());
                }
            }
            Ok::<_, Infallible>([0; 32])
        });
        let masks = masks.into_inner();
        assert_eq!(masks.len() as u64, helpers);
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGALRM, libc::SIGUSR1, libc::SIGPROF, libc::SIGTERM]
        {
            assert!(masks.iter().all(|mask| mask >> (signal - 1) & 1 == 1), "{signal}");
        }
        assert_eq!(blocked_signals(), before);
    }

    /// An array somewhere in a buffer: its axes in any order in memory, with gaps, backwards, or of stride 0.
    #[derive(Debug)]
    struct Case {
        shape: Vec<usize>,
        strides: Vec<isize>,
        itemsize: usize,
        buffer: Vec<u8>,
        offset: usize,
    }

    impl Case {
        fn strided(&self) -> Strided<'_> {
            Strided::new(&self.shape, &self.strides, self.itemsize, &self.buffer, self.offset).unwrap()
        }

        /// The elements, one index after the other.
        fn copied(&self) -> Vec<u8> {
            let count = byte_length(&self.shape, self.itemsize).unwrap() / self.itemsize.max(1);
            let mut copied = Vec::new();
            for mut position in 0..count {
                let mut at = self.offset as isize;
                for (length, stride) in self.shape.iter().zip(&self.strides).rev() {
                    at += (position % length) as isize * stride;
                    position /= length;
                }
                copied.extend_from_slice(&self.buffer[at as usize..at as usize + self.itemsize]);
            }
            copied
        }
    }

    fn cases(longest: usize) -> impl Strategy<Value = Case> {
        let axis = (0..=longest, any::<u32>(), 0..6usize, any::<bool>());
        let itemsize = prop::sample::select(vec![0usize, 1, 2, 3, 4, 8, 12, 16, 24]);
        (prop::collection::vec(axis, 0..5), itemsize, 0..20usize).prop_map(|(axes, itemsize, margin)| {
            let shape: Vec<usize> = axes.iter().map(|axis| axis.0).collect();
            let mut order: Vec<usize> = (0..axes.len()).collect();
            order.sort_by_key(|&axis| axes[axis].1);
            let mut strides = vec![0isize; axes.len()];
            let mut stride = itemsize as isize;
            for axis in order {
                let (length, _, gap, backwards) = axes[axis];
                let step = match gap {
                    0 => 0,
                    1 => stride + 5,
                    2 => 2 * stride,
                    _ => stride,
                };
                strides[axis] = if backwards && gap != 3 { -step } else { step };
                stride = step.max(stride) * length.max(1) as isize;
            }
            let (before, after) = extent(&shape, &strides, itemsize).unwrap();
            let mut state = 1u32;
            let buffer = std::iter::repeat_with(|| {
                state = state.wrapping_mul(1664525).wrapping_add(1013904223);
                (state >> 24) as u8
            });
            let buffer = buffer.take(before + after + 2 * margin).collect();
            Case { shape, strides, itemsize, buffer, offset: before + margin }
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn elements_are_gathered_in_logical_order_however_they_lie(case in cases(7)) {
            let copied = case.copied();
            prop_assert_eq!(case.strided().content(), Content::of(&copied));
        }

        #[test]
        fn any_part_can_be_gathered(case in cases(7), from in 0.0..1.0, to in 0.0..1.0) {
            let (strided, copied) = (case.strided(), case.copied());
            let place = |share: f64| (copied.len() as f64 * share) as usize / strided.unit * strided.unit;
            let part = place(f64::min(from, to))..place(f64::max(from, to));
            if !part.is_empty() {
                let mut gathered = vec![0; part.len()];
                strided.gather(part.start, &mut gathered);
                prop_assert_eq!(&gathered, &copied[part]);
            }
        }

        #[test]
        fn an_array_that_leaves_its_buffer_is_refused(case in cases(5), cut in 1..40usize) {
            let bounds = |buffer, offset| Strided::new(&case.shape, &case.strides, case.itemsize, buffer, offset);
            let (before, after) = extent(&case.shape, &case.strides, case.itemsize).unwrap();
            if after > 0 {
                let end = case.offset + after;
                prop_assert!(bounds(&case.buffer[..end], case.offset).is_ok());
                prop_assert!(bounds(&case.buffer[..end.saturating_sub(cut)], case.offset).is_err());
                prop_assert!(bounds(&case.buffer[case.offset - before..], before).is_ok());
                if before > 0 {
                    prop_assert!(bounds(&case.buffer, before.saturating_sub(cut)).is_err());
                }
            }
        }
    }

    #[test]
    fn long_arrays_are_gathered_chunk_by_chunk() {
        for (shape, strides, itemsize) in [
            (vec![300, 500], vec![8, 2400], 8),
            (vec![300, 500], vec![-4000, -8], 8),
            (vec![70, 60, 50], vec![8, 560, 33600], 8),
            (vec![5, 70, 2, 300], vec![-16, 48000, 80, 160], 16),
            (vec![900, 601], vec![3, 2700], 3),
            (vec![1500, 800], vec![0, 1], 1),
            (vec![100_000, 3], vec![4, 400_000], 4),
        ] {
            let (before, after) = extent(&shape, &strides, itemsize).unwrap();
            let case = Case { shape, strides, itemsize, buffer: bytes(before + after), offset: before };
            assert!(case.strided().length > CHUNK && case.strided().in_place().is_none());
            assert_eq!(case.strided().content(), Content::of(&case.copied()));
        }
    }

    #[test]
    fn arrays_that_fit_no_memory_are_refused() {
        let refused = |shape: &[usize], strides: &[isize], itemsize| {
            Strided::new(shape, strides, itemsize, &[0; 64], 8).unwrap_err().to_string()
        };
        let half = 1 << (usize::BITS / 2);
        assert!(refused(&[half, half], &[0, 0], 1).contains("fits no memory"));
        assert!(refused(&[half, half / 2], &[0, 0], 1).contains("fits no memory"));
        assert!(refused(&[3], &[isize::MAX], 8).contains("fits no memory"));
        assert!(refused(&[2, 2], &[isize::MAX, 1], 8).contains("fits no memory"));
        assert!(refused(&[2, 2], &[isize::MIN, 1], 8).contains("outside its buffer of 64 bytes"));
        assert!(refused(&[2], &[8, 8], 8).contains("1 dimensions but 2 strides"));
        assert!(refused(&[1; 33], &[8; 33], 8).contains("33 dimensions"));
        // Without elements there is nothing to reach.
        assert_eq!(extent(&[usize::MAX, usize::MAX, 0], &[isize::MAX; 3], 8).unwrap(), (0, 0));
    }
}
