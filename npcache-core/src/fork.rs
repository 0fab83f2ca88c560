//! What a fork must not share.
//!
//! A child of `fork` has the parent's memory as it was at that instant, with one thread: a mutex that another
//! thread held stays locked for ever, a map that it was changing stays half changed. And it has the parent's open
//! files: the locks of an open file description live until the last process lets go of it, so a child that never
//! touches the cache would keep a dead parent's locks. So:
//!
//! - every process counts the forks that made it, [`epoch`], one relaxed load;
//! - what holds a mutex lives in a [`PerProcess`], which a child fills anew and whose old value it never touches;
//! - lock files are a [`LockFile`], whose descriptor the child closes before anything else runs in it.
//!
//! Nothing here blocks. A process made by a bare `clone` system call, which skips the
//! C library's handlers, must not use the cache.

use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU64, Ordering};

static EPOCH: AtomicU64 = AtomicU64::new(0);

/// Which process this is: a child of `fork` has another epoch than its parent.
pub(crate) fn epoch() -> u64 {
    EPOCH.load(Ordering::Relaxed)
}

/// Descriptors to close in a child. Nodes are never freed, only reused, so that the child can walk the list
/// whatever the parent's threads were doing.
static LOCK_FILES: AtomicPtr<Node> = AtomicPtr::new(ptr::null_mut());

struct Node {
    /// The descriptor, or [`FREE`].
    fd: AtomicI32,
    next: *const Node,
}

const FREE: i32 = -1;

/// How many forks of this process began, and how many of them ended: while they differ, one goes on.
static BEGUN: AtomicU64 = AtomicU64::new(0);
static ENDED: AtomicU64 = AtomicU64::new(0);

extern "C" fn before_a_fork() {
    BEGUN.fetch_add(1, Ordering::SeqCst);
}

extern "C" fn after_a_fork() {
    ENDED.fetch_add(1, Ordering::SeqCst);
}

/// Runs in the child, before `fork` returns: only loads, stores and `close`, which are safe after any fork.
extern "C" fn in_the_child() {
    EPOCH.fetch_add(1, Ordering::Relaxed);
    ENDED.store(BEGUN.load(Ordering::SeqCst), Ordering::SeqCst);
    let mut node: *const Node = LOCK_FILES.load(Ordering::Acquire);
    // SAFETY: nodes are leaked boxes, written before they are linked and never unlinked.
    while let Some(this) = unsafe { node.as_ref() } {
        let fd = this.fd.swap(FREE, Ordering::Relaxed);
        if fd != FREE {
            // SAFETY: the list owns the descriptor, and the swap took it out. Nothing else closes it.
            drop(unsafe { OwnedFd::from_raw_fd(fd) });
        }
        node = this.next;
    }
}

/// An open file that a child of `fork` does not inherit.
pub(crate) struct LockFile {
    node: &'static Node,
    fd: i32,
}

impl LockFile {
    /// Opens a file by `open`, and again if a fork came between that and its registration: that child would have kept it.
    pub(crate) fn open<E>(open: impl Fn() -> Result<OwnedFd, E>) -> Result<LockFile, E> {
        static REGISTERED: AtomicBool = AtomicBool::new(false);
        if !REGISTERED.swap(true, Ordering::Relaxed) {
            let status =
                // SAFETY: the handlers are functions of this library, which is never unloaded (`-z nodelete`). It
                // fails only for want of memory, and then forks are not noticed: better to stop here.
                unsafe { libc::pthread_atfork(Some(before_a_fork), Some(after_a_fork), Some(in_the_child)) };
            assert_eq!(status, 0, "pthread_atfork failed");
        }
        loop {
            // Read in this order, equal numbers say that no fork went on in between; one that begins later is seen below.
            let ended = ENDED.load(Ordering::SeqCst);
            let begun = BEGUN.load(Ordering::SeqCst);
            if begun != ended {
                std::thread::yield_now();
                continue;
            }
            let file = LockFile::register(open()?);
            if BEGUN.load(Ordering::SeqCst) == begun {
                return Ok(file);
            }
        }
    }

    fn register(fd: OwnedFd) -> LockFile {
        let fd = fd.into_raw_fd();
        let mut node: *const Node = LOCK_FILES.load(Ordering::Acquire);
        // SAFETY: as in the handler.
        while let Some(this) = unsafe { node.as_ref() } {
            if this.fd.compare_exchange(FREE, fd, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                return LockFile { node: this, fd };
            }
            node = this.next;
        }
        let new = Box::leak(Box::new(Node { fd: AtomicI32::new(fd), next: ptr::null() }));
        let mut head = LOCK_FILES.load(Ordering::Acquire);
        loop {
            new.next = head;
            match LOCK_FILES.compare_exchange(head, &raw mut *new, Ordering::Release, Ordering::Acquire) {
                Ok(_) => return LockFile { node: new, fd },
                Err(now) => head = now,
            }
        }
    }

    /// The descriptor. In a child of the process that opened it this is a stale number, so a LockFile belongs
    /// into a [`PerProcess`].
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: open for as long as `self`, in the process that made it, and reached in no other.
        unsafe { BorrowedFd::borrow_raw(self.fd) }
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        // In a child the handler has closed it, and the node may serve another file already.
        if self.node.fd.compare_exchange(self.fd, FREE, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            // SAFETY: the exchange took the descriptor out of the list, which owned it.
            drop(unsafe { OwnedFd::from_raw_fd(self.fd) });
        }
    }
}

// SAFETY: a node is reached through atomics only, and `next` never changes once the node is linked.
unsafe impl Sync for Node {}
// SAFETY: as above.
unsafe impl Send for Node {}

/// A value of this process. After a fork the child makes its own; the parent's is leaked there, since its parts
/// may be locked, or half changed.
pub(crate) struct PerProcess<T> {
    newest: AtomicPtr<Slot<T>>,
}

struct Slot<T> {
    epoch: u64,
    value: T,
    older: *mut Slot<T>,
}

impl<T> PerProcess<T> {
    pub(crate) const fn new() -> PerProcess<T> {
        PerProcess { newest: AtomicPtr::new(ptr::null_mut()) }
    }

    /// This process's value, if it is `current`; else a new one. Values stay until the whole is dropped, so that
    /// references to them hold.
    pub(crate) fn get(&self, current: impl Fn(&T) -> bool, make: impl Fn() -> T) -> &T {
        let mut head = self.newest.load(Ordering::Acquire);
        loop {
            // SAFETY: slots are boxes that live until `self` is dropped, and are not written once linked.
            let newest = unsafe { head.as_ref() };
            if let Some(slot) = newest.filter(|slot| slot.epoch == epoch() && current(&slot.value)) {
                return &slot.value;
            }
            let new = Box::into_raw(Box::new(Slot { epoch: epoch(), value: make(), older: head }));
            match self.newest.compare_exchange(head, new, Ordering::AcqRel, Ordering::Acquire) {
                // SAFETY: just linked; lives until `self` is dropped.
                Ok(_) => return unsafe { &(*new).value },
                Err(now) => {
                    // SAFETY: not linked, so still this function's own.
                    drop(unsafe { Box::from_raw(new) });
                    head = now;
                }
            }
        }
    }
}

impl<T> Drop for PerProcess<T> {
    fn drop(&mut self) {
        let mut slot = *self.newest.get_mut();
        while !slot.is_null() {
            // SAFETY: each slot is a box linked once; `&mut self` says that no reference is left.
            let this = unsafe { Box::from_raw(slot) };
            slot = this.older;
            if this.epoch != epoch() {
                std::mem::forget(this);
            }
        }
    }
}

// SAFETY: the slots are boxes of T behind an atomic pointer; sharing the whole shares T.
unsafe impl<T: Send + Sync> Sync for PerProcess<T> {}
// SAFETY: as above.
unsafe impl<T: Send + Sync> Send for PerProcess<T> {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn a_value_is_made_once_and_again_when_it_is_no_longer_current() {
        let cell = PerProcess::<(u32, AtomicBool)>::new();
        let made = AtomicI32::new(0);
        let make = || (made.fetch_add(1, Ordering::Relaxed) as u32, AtomicBool::new(true));
        let current = |value: &(u32, AtomicBool)| value.1.load(Ordering::Relaxed);
        let first = cell.get(current, make);
        assert!(ptr::eq(first, cell.get(current, make)));
        first.1.store(false, Ordering::Relaxed);
        assert_eq!((first.0, cell.get(current, make).0, cell.get(current, make).0), (0, 1, 1));
    }

    #[test]
    fn every_value_is_dropped_once() {
        let value = Arc::new(());
        let cell = PerProcess::<Arc<()>>::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| cell.get(|_| true, || value.clone()));
            }
        });
        cell.get(|_| false, || value.clone());
        assert_eq!(Arc::strong_count(&value), 3);
        drop(cell);
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
