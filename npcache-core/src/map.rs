//! Memory that holds results: zeroed and aligned for a function to fill, or a file mapped to be read.
//!
//! This is the one place where result memory is raw. It relies on two things that the rest of the crate keeps:
//! a [`Memory`] is written only through `&mut` (so never once it is shared), and a file is mapped only when it
//! is an entry, which npcache never modifies in place once it has a name.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use std::ffi::CStr;
use std::mem::{ManuallyDrop, MaybeUninit};
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::NonNull;

use parking_lot::Mutex;
use rustix::fs::{AtFlags, Mode, OFlags, Statx, StatxFlags, statx};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::error::{Error, Result};
use crate::store::retry;

/// Data starts on a multiple of this, in memory and in files: a cache line, and the widest vector register.
pub(crate) const ALIGNMENT: usize = 64;

/// What the allocator, whose blocks start on a multiple of 16, is asked for besides.
const SPACE_TO_ALIGN: usize = ALIGNMENT - 16;

/// From here on memory comes from the system in pages, so that freeing it gives it back; below, from the
/// allocator, whose smaller blocks are warm. glibc's own limit for the same choice starts at 128 KiB and grows.
const PAGES_FROM: usize = 1 << 20;

/// From here on huge pages are asked for, of 2 MiB on x86-64: filling 2 MiB then takes 0.19 ms in place of 0.65 ms.
const HUGE_PAGES_FROM: usize = 2 << 20;

/// Freed pages are kept, up to so many bytes and blocks, for the results that come: a miss of 1 MiB takes 0.26 ms in place
/// of 0.54 ms, of 100 MiB 50 ms in place of 60 ms. Huge ones the system may take meanwhile; to tell it so of small ones
/// costs a third of what keeping them saves, so of those some 32 MiB stay with the process.
const SPARE_BYTES: usize = 256 << 20;
const SPARE_BLOCKS: usize = 16;

#[derive(Clone, Copy)]
enum Kind {
    /// From the allocator, `skip` bytes before the start.
    Allocated { layout: Layout, skip: usize },
    /// The first of so many bytes of [`Pages`].
    Pages { capacity: usize },
    /// Mapped from an entry.
    File { device: (u32, u32), inode: u64 },
    /// No byte at all; the pointer dangles, aligned.
    Empty,
}

/// A block of memory with one owner.
pub(crate) struct Memory {
    start: NonNull<u8>,
    len: usize,
    kind: Kind,
}

// SAFETY: a Memory is plain bytes with one owner; shared references only read, and writing takes `&mut`.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// `len` zero bytes, aligned to [`ALIGNMENT`].
    pub(crate) fn zeroed(len: usize) -> Result<Memory> {
        if len == 0 {
            return Ok(Memory { start: NonNull::<Aligned>::dangling().cast(), len, kind: Kind::Empty });
        }
        if len >= PAGES_FROM {
            // Huge pages the system zeroes as fast as this would.
            let spare = if len < HUGE_PAGES_FROM { Pages::spare(len) } else { None };
            let Some(spare) = spare else { return Ok(Pages::fresh(len)?.into_memory(len)) };
            let mut memory = spare.into_memory(len);
            memory.as_mut_slice().fill(0);
            return Ok(memory);
        }
        // SAFETY: the layout's size is not zero.
        Memory::allocated(len, |layout| unsafe { alloc_zeroed(layout) })
    }

    /// `len` bytes for one who writes to all of them: what is in them before that is nobody's to read.
    pub(crate) fn to_fill(len: usize) -> Result<Memory> {
        let spare = if len >= PAGES_FROM { Pages::spare(len) } else { None };
        spare.map_or_else(|| Memory::zeroed(len), |spare| Ok(spare.into_memory(len)))
    }

    /// A copy of `bytes`, which are few.
    pub(crate) fn copy_of(bytes: &[u8]) -> Result<Memory> {
        if bytes.is_empty() || bytes.len() >= PAGES_FROM {
            let mut memory = Memory::zeroed(bytes.len())?;
            memory.as_mut_slice().copy_from_slice(bytes);
            return Ok(memory);
        }
        // SAFETY: the layout's size is not zero.
        let memory = Memory::allocated(bytes.len(), |layout| unsafe { alloc(layout) })?;
        // SAFETY: room for all of them, just made.
        unsafe { memory.start.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(memory)
    }

    /// What one read of an open file gives, at most `room` bytes, which are few.
    pub(crate) fn read(file: BorrowedFd<'_>, room: usize) -> rustix::io::Result<Memory> {
        let out_of_memory = |_| rustix::io::Errno::NOMEM;
        // SAFETY: the layout's size is not zero, with room for alignment.
        let mut memory = Memory::allocated(room, |layout| unsafe { alloc(layout) }).map_err(out_of_memory)?;
        let start = memory.start.as_ptr().cast::<MaybeUninit<u8>>();
        // SAFETY: `room` bytes that nobody else has, which may be uninitialised.
        let place = unsafe { std::slice::from_raw_parts_mut(start, room) };
        // Initialised are only those that were read.
        memory.len = retry(|| Ok(rustix::io::read(file, &mut *place)?.0.len()))?;
        Ok(memory)
    }

    /// `len` bytes from the allocator: aligned here, since glibc's aligned allocation takes three times as long.
    fn allocated(len: usize, allocate: impl FnOnce(Layout) -> *mut u8) -> Result<Memory> {
        let layout = Layout::from_size_align(len + SPACE_TO_ALIGN, 16).map_err(|_| Error::Memory(len))?;
        let block = NonNull::new(allocate(layout)).ok_or(Error::Memory(len))?;
        let skip = block.as_ptr().align_offset(ALIGNMENT);
        // SAFETY: a multiple of 16 below ALIGNMENT, for which there is room before the `len` bytes' end.
        let start = unsafe { block.add(skip) };
        Ok(Memory { start, len, kind: Kind::Allocated { layout, skip } })
    }

    /// A whole file, to read: `stat` is its own. The file is not to be shortened while it is mapped.
    pub(crate) fn map(file: BorrowedFd<'_>, stat: &Statx) -> rustix::io::Result<Memory> {
        let len = usize::try_from(stat.stx_size).unwrap_or(0);
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { mmap(std::ptr::null_mut(), len, ProtFlags::READ, MapFlags::SHARED, file, 0) }?;
        let start = NonNull::new(start.cast()).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Memory { start, len, kind: Kind::File { device: device(stat), inode: stat.stx_ino } })
    }

    /// A copy.
    pub(crate) fn to_owned(&self) -> Result<Memory> {
        let mut copy = Memory::to_fill(self.len)?;
        copy.as_mut_slice().copy_from_slice(self.as_slice());
        Ok(copy)
    }

    /// The same file as this mapping of one, mapped privately to be written to; `None` where this is none, or the file
    /// at `path` is another by now.
    pub(crate) fn map_again(&self, path: &CStr) -> Option<Memory> {
        let Kind::File { device, inode } = self.kind else { return None };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::open(path, flags, Mode::empty()).ok()?;
        let stat = statx_of(file.as_fd()).ok()?;
        if (self::device(&stat), stat.stx_ino, stat.stx_size) != (device, inode, self.len as u64) {
            return None;
        }
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice aliases nothing.
        let start = unsafe { mmap(std::ptr::null_mut(), self.len, protection, MapFlags::PRIVATE, &file, 0) };
        Some(Memory { start: NonNull::new(start.ok()?.cast())?, len: self.len, kind: self.kind })
    }

    /// How many bytes it keeps, of which what was read may fill less.
    pub(crate) fn kept(&self) -> usize {
        match self.kind {
            Kind::Allocated { layout, .. } => layout.size() - SPACE_TO_ALIGN,
            Kind::Pages { .. } | Kind::File { .. } | Kind::Empty => self.len,
        }
    }

    /// The bytes.
    pub(crate) fn as_slice(&self) -> &[u8] {
        // SAFETY: `start` is valid for `len` initialised bytes for as long as `self`, and is not written while
        // shared (see the module's text).
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }

    /// The bytes, to fill. Only for memory made by [`Memory::zeroed`].
    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        // SAFETY: as for `as_slice`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        match self.kind {
            // SAFETY: allocated with this very layout, `skip` bytes before.
            Kind::Allocated { layout, skip } => unsafe { dealloc(self.start.as_ptr().sub(skip), layout) },
            Kind::Pages { capacity } => Pages { start: self.start, len: capacity }.keep(),
            Kind::File { .. } => {
                // SAFETY: the whole range was mapped by this value, and no borrow of it is left.
                let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
            }
            Kind::Empty => {}
        }
    }
}

/// Pages from the system, which gets them back when they are dropped.
struct Pages {
    start: NonNull<u8>,
    len: usize,
}

/// Freed ones, the oldest first. Only ever tried to lock: a child of `fork` may inherit it locked.
static SPARES: Mutex<Vec<Pages>> = Mutex::new(Vec::new());

// SAFETY: plain bytes with one owner.
unsafe impl Send for Pages {}

impl Pages {
    /// `len` zero bytes.
    fn fresh(len: usize) -> Result<Pages> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private anonymous mapping aliases nothing.
        let start = unsafe { mmap_anonymous(std::ptr::null_mut(), len, protection, MapFlags::PRIVATE) };
        let start =
            start.ok().and_then(|start| NonNull::new(start.cast::<u8>())).ok_or(Error::Memory(len))?;
        if len >= HUGE_PAGES_FROM {
            // SAFETY: the range was mapped just above. Only advice: a kernel without huge pages refuses it.
            let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxHugepage) };
        }
        Ok(Pages { start, len })
    }

    /// Freed ones, of `len` bytes or not much more, that hold anything.
    fn spare(len: usize) -> Option<Pages> {
        let mut spares = SPARES.try_lock()?;
        let i = spares.iter().rposition(|spare| len <= spare.len && spare.len - len <= len / 4)?;
        Some(spares.remove(i))
    }

    /// Keeps them for the next result, in place of those that were kept longest.
    fn keep(self) {
        let Some(mut spares) = SPARES.try_lock().filter(|_| self.len <= SPARE_BYTES) else { return };
        if self.len >= HUGE_PAGES_FROM {
            // SAFETY: the range is this value's, and nobody relies on what is in it. Only advice.
            let _ = unsafe { madvise(self.start.as_ptr().cast(), self.len, Advice::LinuxFree) };
        }
        spares.push(self);
        let mut bytes = 0;
        let too_many = spares.iter().rev().enumerate().position(|(i, spare)| {
            bytes += spare.len;
            i == SPARE_BLOCKS || bytes > SPARE_BYTES
        });
        let kept = too_many.unwrap_or(spares.len());
        let older = spares.len() - kept;
        let given_back: Vec<Pages> = spares.drain(..older).collect();
        // Giving pages back takes its time: not under the lock.
        drop(spares);
        drop(given_back);
    }

    fn into_memory(self, len: usize) -> Memory {
        let pages = ManuallyDrop::new(self);
        Memory { start: pages.start, len, kind: Kind::Pages { capacity: pages.len } }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the whole range was mapped by `fresh`, and no borrow of it is left.
        let _ = unsafe { munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// What the system says of an open file, with the time of its birth.
pub(crate) fn statx_of(file: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}

#[repr(align(64))]
struct Aligned;

const _: () = assert!(align_of::<Aligned>() == ALIGNMENT);

#[cfg(test)]
mod tests {
    use super::*;

    /// For the tests that see each other's spare pages.
    static ALONE: Mutex<()> = Mutex::new(());

    #[test]
    fn memory_is_zeroed_aligned_and_writable_at_every_size() {
        let _alone = ALONE.lock();
        for len in [0, 1, 63, 4096, PAGES_FROM - 1, PAGES_FROM, HUGE_PAGES_FROM + 1] {
            let mut memory = Memory::zeroed(len).unwrap();
            assert_eq!(memory.as_slice().as_ptr() as usize % ALIGNMENT, 0);
            assert!(memory.as_slice().iter().all(|byte| *byte == 0));
            memory.as_mut_slice().fill(7);
            assert_eq!(
                (memory.as_slice().len(), memory.as_slice().last().copied()),
                (len, (len > 0).then_some(7))
            );
        }
    }

    #[test]
    fn freed_pages_are_used_again_within_bounds_and_zeroed_where_that_is_promised() {
        let _alone = ALONE.lock();
        let first = |memory: &Memory| memory.as_slice().as_ptr() as usize;
        const LEN: usize = HUGE_PAGES_FROM - 5000;
        let mut memory = Memory::to_fill(LEN).unwrap();
        memory.as_mut_slice().fill(7);
        let place = first(&memory);
        drop(memory);
        let memory = Memory::zeroed(LEN - 1000).unwrap();
        assert_eq!((first(&memory), memory.as_slice().len()), (place, LEN - 1000));
        assert!(memory.as_slice().iter().all(|byte| *byte == 0));
        assert_ne!(first(&Memory::to_fill(LEN).unwrap()), place, "it is in use");
        drop(memory);
        assert_ne!(first(&Memory::zeroed(PAGES_FROM).unwrap()), place, "it is much longer than that");

        let many: Vec<Memory> = (0..2 * SPARE_BLOCKS).map(|_| Memory::to_fill(32 << 20).unwrap()).collect();
        drop(many);
        drop(Memory::to_fill(SPARE_BYTES + 1).unwrap());
        let spares = SPARES.lock();
        assert_eq!((spares.len(), spares.iter().map(|spare| spare.len).sum()), (8, SPARE_BYTES));
    }

    #[test]
    fn what_is_read_keeps_the_room_that_it_was_read_into() {
        use std::io::{Seek, Write};
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"ten bytes.").unwrap();
        file.rewind().unwrap();
        let memory = Memory::read(file.as_fd(), 100).unwrap();
        assert_eq!((memory.as_slice(), memory.kept()), (&b"ten bytes."[..], 100));
        assert_eq!(memory.as_slice().as_ptr() as usize % ALIGNMENT, 0);
        assert_eq!(Memory::copy_of(memory.as_slice()).unwrap().kept(), 10);
    }

    #[test]
    fn more_memory_than_there_is_is_an_error() {
        for len in [isize::MAX as usize, usize::MAX] {
            assert!(matches!(Memory::zeroed(len), Err(Error::Memory(asked)) if asked == len));
        }
    }
}
