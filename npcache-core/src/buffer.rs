//! A result: one or several arrays, read-only, shared by whoever asked for it.

use std::ffi::{CStr, CString, OsStr, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use ndarray::{ArrayViewD, IxDyn, ShapeBuilder};
use ndarray_npy::{ViewElement, WritableElement};
use smallvec::{SmallVec, smallvec};

use crate::entry::{self, Array, Arrays, Parsed};
use crate::error::{Error, Result, Unstored};
use crate::map::Memory;
use crate::policy::RECENCY;
use crate::store::now;

/// Where a result came from. The numbers are part of the ABI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
#[non_exhaustive]
pub enum Origin {
    /// This call computed it.
    Computed = 1,
    /// It was in this process's memory.
    Memory = 2,
    /// It was in the directory, or in that of the option `lower`: [`Buffer::path`] tells.
    Disk = 3,
    /// Another thread computed it while this call waited.
    Shared = 4,
}

/// The result of a call. A handle: cloning it is cheap, and the arrays live as long as one handle does, whatever
/// happens to the cache or the file meanwhile.
#[derive(Clone)]
pub struct Buffer(Arc<Handle>);

/// Two counts: of the handles with one origin, so that the memory table can hand out its own without allocating, and of
/// those on one result.
struct Handle {
    contents: Arc<Contents>,
    origin: Origin,
}

struct Contents {
    arrays: Arrays,
    blocks: SmallVec<[Memory; 1]>,
    /// Its entry's file, if it has one.
    path: Option<CString>,
    stored: Result<(), Unstored>,
    /// Of entries that earlier versions wrote, the metadata alone have it.
    compute_seconds: Option<f64>,
    /// When it was computed, in nanoseconds since 1970.
    created: i64,
    /// When its entry was last marked as used, as far as this process knows.
    marked: AtomicI64,
    writable: bool,
}

/// A result that was found in a file, without the file's path yet. Behind a pointer already: it is handed on several times, and
/// moving what is in it took a hit 35 ns.
pub(crate) struct Loaded(Arc<Contents>);

impl Loaded {
    /// What an entry holds, whose file `block` holds whole.
    pub(crate) fn new(parsed: Parsed, block: Memory) -> Loaded {
        Loaded(Arc::new(Contents {
            arrays: parsed.arrays,
            blocks: smallvec![block],
            path: None,
            stored: Ok(()),
            created: parsed.origin.mtime,
            // Not asked of the clock, nor of the system: whoever remembers it does, if it matters.
            marked: AtomicI64::new(parsed.origin.mtime),
            compute_seconds: (!parsed.took.is_zero()).then_some(parsed.took.as_secs_f64()),
            writable: false,
        }))
    }

    /// When it was computed, in nanoseconds since 1970.
    pub(crate) fn created(&self) -> i64 {
        self.0.created
    }

    /// The result, from the file at `path`.
    pub(crate) fn at(mut self, path: CString) -> Buffer {
        Arc::get_mut(&mut self.0).expect("nobody else's").path = Some(path);
        Buffer::of(self.0, Origin::Disk)
    }
}

impl Buffer {
    /// A result that this process computed.
    pub(crate) fn computed(
        arrays: Vec<Array>,
        blocks: Vec<Memory>,
        path: Option<CString>,
        stored: Result<(), Unstored>,
        compute_seconds: f64,
    ) -> Buffer {
        let compute_seconds = Some(compute_seconds);
        let (arrays, blocks, created) = (arrays.into(), blocks.into(), now());
        let marked = AtomicI64::new(created);
        let contents =
            Contents { arrays, blocks, path, stored, compute_seconds, created, marked, writable: false };
        Buffer::of(Arc::new(contents), Origin::Computed)
    }

    fn of(contents: Arc<Contents>, origin: Origin) -> Buffer {
        Buffer(Arc::new(Handle { contents, origin }))
    }

    /// The same result, as another caller gets it.
    pub(crate) fn with_origin(&self, origin: Origin) -> Buffer {
        Buffer(Arc::new(Handle { contents: self.0.contents.clone(), origin }))
    }

    fn contents(&self) -> &Contents {
        &self.0.contents
    }

    /// The bytes of memory, or of a mapped file, that the result keeps.
    pub(crate) fn memory(&self) -> u64 {
        self.contents().blocks.iter().map(|block| block.kept() as u64).sum()
    }

    /// A copy of the result that only its caller has, to write to: changes of it reach neither the cache nor anybody
    /// else. A large stored result is mapped once more, and only the pages that are written to are copied.
    ///
    /// Its elements are those from [`Buffer::bytes`] on; the one who asked for the copy may write to them through a raw
    /// pointer.
    pub fn to_writable(&self) -> Result<Buffer> {
        let contents = self.contents();
        let mapped = contents.path.as_ref().filter(|_| contents.blocks.len() == 1);
        let remapped = mapped.and_then(|path| contents.blocks[0].map_again(path));
        let blocks = match remapped {
            Some(block) => smallvec![block],
            None => contents.blocks.iter().map(Memory::to_owned).collect::<Result<_>>()?,
        };
        let contents = Contents {
            arrays: contents.arrays.clone(),
            blocks,
            path: contents.path.clone(),
            stored: contents.stored,
            compute_seconds: Some(self.compute_seconds()),
            created: contents.created,
            marked: AtomicI64::new(contents.marked.load(Ordering::Relaxed)),
            writable: true,
        };
        Ok(Buffer::of(Arc::new(contents), self.origin()))
    }

    /// Whether it was made by [`Buffer::to_writable`].
    pub fn is_writable(&self) -> bool {
        self.contents().writable
    }

    /// The bytes of the file that it was found in.
    pub(crate) fn file(&self) -> Option<&[u8]> {
        self.contents().blocks.first().map(Memory::as_slice)
    }

    /// How long computing it took, in seconds.
    pub fn compute_seconds(&self) -> f64 {
        self.contents().compute_seconds.unwrap_or_else(|| {
            let metadata =
                self.contents().blocks.first().and_then(|file| entry::metadata(file.as_slice()).ok());
            let metadata = metadata.and_then(|json| serde_json::from_slice::<serde_json::Value>(json).ok());
            metadata.and_then(|metadata| metadata["compute_seconds"].as_f64()).unwrap_or(0.0)
        })
    }

    /// The same in nanoseconds, as far as it is known without reading more; else 0.
    pub(crate) fn compute_ns(&self) -> u64 {
        self.contents().compute_seconds.map_or(0, |seconds| (seconds * 1e9) as u64)
    }

    /// When it was computed, in nanoseconds since 1970.
    pub(crate) fn created(&self) -> i64 {
        self.contents().created
    }

    /// Whether its entry is to be marked as used, by this caller: its last mark is old.
    pub(crate) fn is_to_be_marked(&self, now: i64) -> bool {
        let marked = &self.contents().marked;
        let last = marked.load(Ordering::Relaxed);
        now.abs_diff(last) >= RECENCY as u64
            && marked.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The handle as a pointer, for other languages. [`Buffer::from_raw`] takes it back.
    pub fn into_raw(self) -> *const c_void {
        Arc::into_raw(self.0).cast()
    }

    /// The handle that [`Buffer::into_raw`] made this pointer from.
    ///
    /// # Safety
    ///
    /// The pointer is from `into_raw`, and the handle that it stands for was not taken back yet.
    pub unsafe fn from_raw(raw: *const c_void) -> Buffer {
        // SAFETY: the caller's promise.
        Buffer(unsafe { Arc::from_raw(raw.cast()) })
    }

    /// What its arrays are, in the order in which the function made them.
    pub fn arrays(&self) -> &[Array] {
        &self.contents().arrays
    }

    /// The elements of the `i`th array, in the order in which they lie in memory; aligned to 64 bytes.
    ///
    /// # Panics
    ///
    /// Where there is no `i`th array.
    pub fn bytes(&self, i: usize) -> &[u8] {
        let array = &self.contents().arrays[i];
        &self.contents().blocks[array.block].as_slice()[array.offset..][..array.len]
    }

    /// The `i`th array, of elements of type `A`.
    ///
    /// # Errors
    ///
    /// Where there is no `i`th array, or its elements are of another type: a stored result is never converted.
    ///
    /// ```
    /// # let directory = tempfile::tempdir()?;
    /// # let cache = npcache_core::Cache::open(directory.path())?;
    /// let result = cache.call("ones", "1", b"", |out| out.write(&ndarray::Array2::<f32>::ones((2, 3))))?;
    /// assert_eq!(result.view::<f32>(0)?.shape(), [2, 3]);
    /// assert!(result.view::<f64>(0).unwrap_err().to_string().contains("<f4"));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn view<A: ViewElement + WritableElement>(&self, i: usize) -> Result<ArrayViewD<'_, A>> {
        let array = self.contents().arrays.get(i).ok_or_else(|| {
            Error::Argument(format!("array {i} of a result that has {}", self.contents().arrays.len()))
        })?;
        let descriptor = A::type_descriptor();
        let wanted = descriptor.as_string().map_or("another type", String::as_str);
        if wanted != array.descr().as_str() {
            let message = format!("array {i} has elements of dtype {}, not {wanted}", array.descr().as_str());
            return Err(Error::Dtype(message));
        }
        let count: usize = array.shape().iter().map(|n| *n as usize).product();
        let elements = A::bytes_as_slice(self.bytes(i), &descriptor, count)
            .map_err(|e| Error::Dtype(format!("array {i} of dtype {wanted}: {e}")))?;
        let shape: Vec<usize> = array.shape().iter().map(|n| *n as usize).collect();
        ArrayViewD::from_shape(IxDyn(&shape).set_f(array.is_fortran_order()), elements)
            .map_err(|e| Error::Argument(format!("array {i}: {e}")))
    }

    /// Where this result came from.
    pub fn origin(&self) -> Origin {
        self.0.origin
    }

    /// Whether the cache has it, or why not.
    pub fn stored(&self) -> Result<(), Unstored> {
        self.contents().stored
    }

    /// The file of its entry, an `.npy` that numpy reads. It may be gone by the time that it is opened.
    pub fn path(&self) -> Option<&Path> {
        self.c_path().map(|path| Path::new(OsStr::from_bytes(path.to_bytes())))
    }

    /// The same, as C reads it.
    pub fn c_path(&self) -> Option<&CStr> {
        self.contents().path.as_deref()
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut debug = f.debug_struct("Buffer");
        debug.field("arrays", &self.contents().arrays).field("origin", &self.origin());
        debug.field("stored", &self.contents().stored).field("path", &self.path()).finish()
    }
}
