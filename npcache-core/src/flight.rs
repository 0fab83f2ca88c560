//! Who computes: of the callers that miss one key at once, one, while the others wait for its result.
//!
//! In a process the callers of a key join a [`Flight`]; the first leads it and is given a [`Seat`], the others wait on
//! it. The leader then takes the key's lock among processes (see [`crate::state`]). However a seat goes, by landing with
//! a result, by an error, by an unwinding panic or exception, the flight ends, and those who waited for a result that
//! did not come try again, one of them as the leader.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustix::thread::{Pid, gettid};

use crate::buffer::Buffer;
use crate::fork::epoch;
use crate::key::Key;
use crate::state::{Generation, HeldLock, State, lock};

/// The flights of one directory. A call joins only those of its own generation: one that began before a clear
/// brings a result that must not be found after it.
#[derive(Default)]
pub(crate) struct Flights {
    flying: Mutex<HashMap<(Key, Generation), Arc<Flight>>>,
}

struct Flight {
    /// The thread that began it.
    leader: Pid,
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
        let me = gettid();
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
    pub(crate) fn land(self, buffer: Buffer) {
        self.end(Progress::Landed(buffer));
    }

    fn end(&self, progress: Progress) {
        if self.epoch != epoch() {
            // Inherited by a fork: the flight is the parent's, and its mutexes may be locked for ever.
            return;
        }
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
