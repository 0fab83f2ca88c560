//! Who computes: of the callers that miss one key at once, one, while the others wait for its result.
//!
//! In a process the callers of a key join a [`Flight`]; the first leads it and is given a [`Seat`], the others wait on
//! it. The leader then takes the key's lock among processes (see [`crate::state`]). However a seat goes, by landing with
//! a result, by an error, by an unwinding panic or exception, the flight ends, and those who waited for a result that
//! did not come try again, one of them as the leader.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use crate::buffer::Buffer;
use crate::fork::epoch;
use crate::key::Key;
use crate::state::{Generation, HeldLock, State};

use sync::{Condvar, Mutex, ThreadId, lock, this_thread};

#[cfg(not(loom))]
mod sync {
    pub(super) use std::sync::{Condvar, Mutex};

    pub(super) use rustix::thread::{Pid as ThreadId, gettid as this_thread};

    pub(super) use crate::state::lock;
}

/// Those of the model checker, whose threads are none of the system's.
#[cfg(loom)]
mod sync {
    pub(super) use loom::sync::{Condvar, Mutex};
    pub(super) use loom::thread::ThreadId;

    pub(super) fn this_thread() -> ThreadId {
        loom::thread::current().id()
    }

    pub(super) fn lock<T>(mutex: &Mutex<T>) -> loom::sync::MutexGuard<'_, T> {
        mutex.lock().expect("no test panics")
    }
}

/// The flights of one directory. A call joins only those of its own generation: one that began before a clear
/// brings a result that must not be found after it.
#[derive(Default)]
pub(crate) struct Flights {
    flying: Mutex<HashMap<(Key, Generation), Arc<Flight>>>,
}

struct Flight {
    /// The thread that began it.
    leader: ThreadId,
    progress: Mutex<Progress>,
    ended: Condvar,
}

enum Progress {
    Flying,
    Landed(Buffer),
    /// Without a result.
    Ended,
}

/// How joining a flight went.
pub(crate) enum Joined {
    /// Nobody computes it: the caller does.
    Leader(Seat),
    /// Another thread computed it.
    Landed(Buffer),
    /// Another thread tried to: look again.
    Ended,
    /// This very thread computes it, further up its stack.
    Own,
    TimedOut,
}

impl Flights {
    /// Joins the flight of a key, or begins it. Waits until `deadline`, and calls `say` when it still does at `long`.
    pub(crate) fn join(
        state: &Arc<State>,
        key: &Key,
        generation: Generation,
        deadline: Option<Instant>,
        long: Option<Instant>,
        say: impl FnOnce(),
    ) -> Joined {
        let me = this_thread();
        let flight = {
            let mut flying = lock(&state.flights.flying);
            match flying.get(&(*key, generation)) {
                Some(flight) => flight.clone(),
                None => {
                    let flight = Arc::new(Flight {
                        leader: me,
                        progress: Mutex::new(Progress::Flying),
                        ended: Condvar::new(),
                    });
                    flying.insert((*key, generation), flight.clone());
                    let epoch = epoch();
                    return Joined::Leader(Seat {
                        state: state.clone(),
                        key: *key,
                        generation,
                        flight,
                        lock: None,
                        epoch,
                    });
                }
            }
        };
        if flight.leader == me {
            return Joined::Own;
        }
        let mut say = Some(say);
        let mut progress = lock(&flight.progress);
        loop {
            match &*progress {
                Progress::Landed(buffer) => return Joined::Landed(buffer.clone()),
                Progress::Ended => return Joined::Ended,
                Progress::Flying => {}
            }
            let now = Instant::now();
            if deadline.is_some_and(|deadline| deadline <= now) {
                return Joined::TimedOut;
            }
            if long.is_some_and(|long| long <= now)
                && let Some(say) = say.take()
            {
                drop(progress);
                say();
                progress = lock(&flight.progress);
                continue;
            }
            let long = long.filter(|_| say.is_some());
            progress = match [deadline, long].into_iter().flatten().min() {
                None => flight.ended.wait(progress).unwrap_or_else(|poisoned| poisoned.into_inner()),
                Some(until) => {
                    flight
                        .ended
                        .wait_timeout(progress, until - now)
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                        .0
                }
            };
        }
    }
}

/// The right, and the duty, to compute a key. Dropping it lets the next one try.
pub(crate) struct Seat {
    state: Arc<State>,
    key: Key,
    generation: Generation,
    flight: Arc<Flight>,
    lock: Option<HeldLock>,
    /// The process that it belongs to.
    epoch: u64,
}

impl Seat {
    /// Adds the lock among processes.
    pub(crate) fn hold(&mut self, lock: HeldLock) {
        self.lock = Some(lock);
    }

    /// Ends the flight with a result, for all who wait.
    pub(crate) fn land(mut self, buffer: Buffer) {
        self.end(Progress::Landed(buffer));
    }

    /// Whether it has the lock among processes.
    pub(crate) fn has_lock(&self) -> bool {
        self.lock.is_some()
    }

    fn end(&mut self, progress: Progress) {
        if self.epoch != epoch() {
            // Inherited by a fork: the flight is the parent's, and its mutexes may be locked for ever.
            return;
        }
        // Before another thread can lead: that one shall find the lock free, and see that it was had.
        self.lock = None;
        let mut flying = lock(&self.state.flights.flying);
        if flying.get(&(self.key, self.generation)).is_some_and(|flight| Arc::ptr_eq(flight, &self.flight)) {
            flying.remove(&(self.key, self.generation));
        }
        drop(flying);
        // Who waits for it has a reference, and nobody gets a new one: mostly there is nobody to wake.
        if Arc::strong_count(&self.flight) == 1 {
            return;
        }
        let mut current = lock(&self.flight.progress);
        if matches!(*current, Progress::Flying) {
            *current = progress;
        }
        drop(current);
        self.flight.ended.notify_all();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.end(Progress::Ended);
        if self.epoch != epoch() {
            // Nor is the lock this process's, and the state must not be taken apart here.
            std::mem::forget(self.lock.take());
            std::mem::forget(self.state.clone());
        }
    }
}

#[cfg(all(test, loom))]
mod tests {
    //! In every order in which threads can take the mutexes and wake each other: a deadlock fails the test.

    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

    use super::*;
    use crate::state::{Slot, TryLock};
    use crate::store::Directory;
    use crate::{Canonical, Identity, Options};

    /// What the threads of a test on flights alone share.
    struct Airport {
        state: Arc<State>,
        key: Key,
        generation: Generation,
        computing: AtomicBool,
        failures: AtomicU32,
    }

    impl Airport {
        fn new(path: &std::path::Path, failures: u32) -> Arc<Airport> {
            let directory = Directory::open(path, &Options::new()).unwrap();
            let state = State::of(Arc::new(directory), true, 0);
            let identity = Identity::new("f", "1", Vec::new(), false).unwrap();
            Arc::new(Airport {
                key: Key::new(&identity, &Canonical::from_bytes(b"")),
                generation: state.generation(Slot::ALL),
                state,
                computing: AtomicBool::new(false),
                failures: AtomicU32::new(failures),
            })
        }

        /// Asks until there is a result.
        fn ask(&self) {
            loop {
                match Flights::join(&self.state, &self.key, self.generation, None, None, || ()) {
                    Joined::Leader(seat) => {
                        assert!(!self.computing.swap(true, SeqCst), "two compute at once");
                        let fails = self.failures.load(SeqCst) > 0;
                        if fails {
                            self.failures.fetch_sub(1, SeqCst);
                        }
                        // While it computes, others come, and wait or go on.
                        loom::thread::yield_now();
                        self.computing.store(false, SeqCst);
                        if !fails {
                            return seat.land(Buffer::computed(Vec::new(), Vec::new(), None, Ok(()), 7.0));
                        }
                    }
                    Joined::Landed(buffer) => return assert_eq!(buffer.compute_seconds(), 7.0),
                    Joined::Ended => {}
                    Joined::Own | Joined::TimedOut => unreachable!("each thread asks once, and waits"),
                }
            }
        }
    }

    /// Lets three threads ask for one result, in every order; the first `failures` that compute it fail.
    fn three_ask(failures: u32) {
        let directory = tempfile::tempdir().unwrap();
        loom::model(move || {
            let airport = Airport::new(directory.path(), failures);
            let others = [(); 2].map(|()| {
                let airport = airport.clone();
                loom::thread::spawn(move || airport.ask())
            });
            airport.ask();
            others.into_iter().for_each(|other| other.join().unwrap());
            assert_eq!(airport.failures.load(SeqCst), 0);
            assert!(lock(&airport.state.flights.flying).is_empty());
        });
    }

    #[test]
    fn all_who_ask_get_a_result_that_one_at_a_time_computes() {
        three_ask(0);
    }

    #[test]
    fn where_one_fails_another_computes() {
        three_ask(1);
    }
    /// Looks for a result, and computes it where it finds none.
    fn look_and_compute(airport: &Airport, stored: &Mutex<bool>) {
        let word = airport.state.wake_word();
        if *lock(stored) {
            return;
        }
        let joined = Flights::join(&airport.state, &airport.key, airport.generation, None, None, || ());
        if let Joined::Leader(mut seat) = joined {
            let TryLock::Held(held) = airport.state.try_lock(&airport.key) else {
                panic!("nobody else has it, or no longer")
            };
            seat.hold(held);
            // Where it does not look again, nothing is to be found.
            assert!(airport.state.may_have_unlocked(word) || !*lock(stored), "computed twice");
            *lock(stored) = true;
            seat.land(Buffer::computed(Vec::new(), Vec::new(), None, Ok(()), 7.0));
        }
    }

    #[test]
    fn who_leads_after_another_thread_is_told_to_look_again() {
        let directory = tempfile::tempdir().unwrap();
        loom::model(move || {
            let (airport, stored) = (Airport::new(directory.path(), 0), Arc::new(Mutex::new(false)));
            let others = (airport.clone(), Arc::clone(&stored));
            let other = loom::thread::spawn(move || look_and_compute(&others.0, &others.1));
            look_and_compute(&airport, &stored);
            other.join().unwrap();
        });
    }
}
