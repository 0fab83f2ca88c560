//! Who computes, told to those who wait: a slot in the state page for every lock of a key that is held.
//!
//! The locks themselves do not tell: the kernel knows no process for a lock of an open file description. So who takes one
//! writes process and host into a slot, and clears it before letting go. The lock is what counts; a slot is for people.
//! One that a killed process left is taken over by the next who computes the same, or by another whose process is
//! not there to be seen. Where all slots that a lock may have are in use, its holder has none.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::fork::PerProcess;
use crate::store::now;

/// At 64 bytes each, 8 KiB of the state page. A machine rarely computes more at once.
pub(crate) const SLOTS: usize = 128;

/// A lock has one of so many slots, from one on that it determines itself.
const PROBES: usize = 8;

/// Bytes of a host's name, of which the first are enough to tell it.
const HOST: usize = 40;

pub(crate) type Slots = [Slot; SLOTS];

/// All zeros while it is free. Its parts are not read at once, so a reader may see those of two holders.
#[repr(C)]
pub(crate) struct Slot {
    /// Which byte of the lock file is held.
    lock: AtomicU64,
    /// Since when: nanoseconds since 1970.
    since: AtomicU64,
    pid: AtomicU32,
    _unused: u32,
    host: [AtomicU64; HOST / 8],
}

/// This process, as it stands in its slots.
pub(crate) struct Myself {
    pid: u32,
    host: [u64; HOST / 8],
}

/// Who holds a lock.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) pid: u32,
    host: String,
    /// Nanoseconds since 1970.
    pub(crate) since: i64,
}

impl Myself {
    pub(crate) fn new() -> Myself {
        let mut host = [0; HOST];
        let len = host_name().len().min(HOST);
        host[..len].copy_from_slice(&host_name().as_bytes()[..len]);
        let (words, _) = host.as_chunks::<8>();
        Myself { pid: std::process::id(), host: std::array::from_fn(|i| u64::from_ne_bytes(words[i])) }
    }
}

/// This machine's name, as it was when this process first asked.
pub(crate) fn host_name() -> &'static str {
    static HOST_NAME: PerProcess<String> = PerProcess::new();
    HOST_NAME.get(|_| true, || rustix::system::uname().nodename().to_string_lossy().into_owned())
}

/// The slots that a lock may have.
fn probe(slots: &Slots, lock: u64) -> impl Iterator<Item = &Slot> {
    (0..PROBES as u64).map(move |i| &slots[((lock + i) % SLOTS as u64) as usize])
}

/// Writes down who has taken `lock`. No system call, but where all of its slots are in use.
pub(crate) fn claim(slots: &Slots, lock: u64, me: &Myself) {
    let take = |slot: &Slot, from: u64| {
        slot.lock.compare_exchange(from, lock, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    };
    // A slot of this very lock is of one who died holding it.
    let free = probe(slots, lock).find(|slot| slot.lock.load(Ordering::Relaxed) == lock || take(slot, 0));
    let slot = free.or_else(|| {
        probe(slots, lock).find(|slot| {
            let other = slot.lock.load(Ordering::Relaxed);
            is_dead(slot.pid.load(Ordering::Relaxed)) && take(slot, other)
        })
    });
    let Some(slot) = slot else { return };
    for (word, mine) in slot.host.iter().zip(me.host) {
        word.store(mine, Ordering::Relaxed);
    }
    slot.since.store(now() as u64, Ordering::Relaxed);
    slot.pid.store(me.pid, Ordering::Release);
}

/// Before `lock` is let go of.
pub(crate) fn release(slots: &Slots, lock: u64, me: &Myself) {
    let mine = |slot: &&Slot| {
        slot.lock.load(Ordering::Relaxed) == lock && slot.pid.load(Ordering::Relaxed) == me.pid
    };
    if let Some(slot) = probe(slots, lock).find(mine) {
        slot.pid.store(0, Ordering::Relaxed);
        // Not where it was taken over meanwhile.
        let _ = slot.lock.compare_exchange(lock, 0, Ordering::Release, Ordering::Relaxed);
    }
}

/// Who holds `lock`, of which is known that somebody does.
pub(crate) fn find(slots: &Slots, lock: u64) -> Option<Holder> {
    let slot = probe(slots, lock).find(|slot| slot.lock.load(Ordering::Relaxed) == lock)?;
    let pid = slot.pid.load(Ordering::Acquire);
    let host: Vec<u8> =
        slot.host.iter().flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
    let host = String::from_utf8_lossy(&host).trim_end_matches('\0').to_owned();
    let since = slot.since.load(Ordering::Relaxed) as i64;
    (pid != 0).then_some(Holder { pid, host, since })
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = now().saturating_sub(self.since).max(0) as f64 / 1e9;
        write!(f, "process {} on {}, which began {seconds:.1} s ago", self.pid, self.host)
    }
}

/// Whether there is no such process. One of another container may not be seen: then its slot is lost to it, no more.
fn is_dead(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn empty() -> Box<Slots> {
        let slot = || Slot {
            lock: AtomicU64::new(0),
            since: AtomicU64::new(0),
            pid: AtomicU32::new(0),
            _unused: 0,
            host: [const { AtomicU64::new(0) }; HOST / 8],
        };
        Box::new(std::array::from_fn(|_| slot()))
    }

    #[test]
    fn a_holder_is_found_until_it_lets_go() {
        let (slots, me) = (empty(), Myself::new());
        assert_eq!(find(&slots, 5000), None);
        claim(&slots, 5000, &me);
        claim(&slots, 5000 + SLOTS as u64, &me);
        let holder = find(&slots, 5000).unwrap();
        assert_eq!(holder.pid, std::process::id());
        assert!(host_name().starts_with(&holder.host) && !holder.host.is_empty());
        assert!(now() - holder.since < 60_000_000_000);
        release(&slots, 5000, &me);
        assert_eq!(find(&slots, 5000), None);
        assert!(find(&slots, 5000 + SLOTS as u64).is_some());
    }

    #[test]
    fn what_the_dead_left_is_taken_over_and_the_living_keep_theirs() {
        let (slots, me) = (empty(), Myself::new());
        let dead = {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            child.wait().unwrap();
            Myself { pid: child.id(), ..Myself::new() }
        };
        // All of one lock's slots, the last of them of one who is dead.
        let lock = |i: usize| 5000 + (i * SLOTS) as u64;
        (0..PROBES).for_each(|i| claim(&slots, lock(i), if i == PROBES - 1 { &dead } else { &me }));
        claim(&slots, lock(PROBES), &me);
        claim(&slots, lock(PROBES + 1), &me);
        assert_eq!(find(&slots, lock(PROBES)).map(|holder| holder.pid), Some(me.pid));
        assert!((0..PROBES - 1).all(|i| find(&slots, lock(i)).is_some()));
        assert_eq!((find(&slots, lock(PROBES - 1)), find(&slots, lock(PROBES + 1))), (None, None));
        // The next who computes the same takes the slot of its predecessor.
        let slots = empty();
        claim(&slots, lock(0), &dead);
        claim(&slots, lock(0), &me);
        assert_eq!(find(&slots, lock(0)).map(|holder| holder.pid), Some(me.pid));
        assert_eq!(slots.iter().filter(|slot| slot.lock.load(Ordering::Relaxed) != 0).count(), 1);
        // What was taken over is not the dead one's to clear.
        release(&slots, lock(0), &dead);
        assert!(find(&slots, lock(0)).is_some());
    }
}
