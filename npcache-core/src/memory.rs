//! What is remembered in memory: a bounded table of results, for calls that come again in this process.
//!
//! A hit costs no system call, no SHA-256 and no allocation: the table is asked by the function and the argument bytes
//! themselves, compared in full, up to [`MAX_ARGUMENTS`]; by their key above. Each result carries the generation read
//! before it was looked for, so what a clear, of any process, made old is not found.
//!
//! Threads that ask for different calls hardly ever write to the same cache line: a hit locks one of very many buckets, to
//! read, and counts one more reference on the result. All else is the business of who adds a result, under one lock: which
//! are dropped when the bytes exceed the capacity. That is S3-FIFO (Yang and others, 2023, "FIFO
//! queues are all you need for cache eviction"): newcomers pass through a short queue and are dropped at its end, unless
//! they were asked for again; those stay, and so does what comes back soon after it was dropped. So what is asked for once
//! does not drive out what is asked for again.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::buffer::Buffer;
use crate::key::Identity;
use crate::state::{Generation, Slot, State, lock};
use crate::statistics::Worth;

/// Longer arguments are remembered by their key. Comparing 1 KiB takes some 20 ns, hashing it 80 ns.
pub(crate) const MAX_ARGUMENTS: usize = 1024;

/// What a result costs besides its bytes and its arguments: its place, its handle, its arrays' shapes, its path.
const OVERHEAD: u64 = 1024;

/// Buckets for each call, up to [`MANY`] in all, so that two threads hardly ever meet at one, nor at its neighbour, which
/// processors fetch with it: two threads reach what private counters do, with eight buckets a call 0.9 of it, and with
/// eight locked parts 0.6. Beyond, a bucket for a call.
const BUCKETS_PER_CALL: usize = 32;
const MANY: usize = 65_536;

/// At most a bucket for so many bytes of capacity.
const BYTES_PER_BUCKET: u64 = 16 << 10;

/// Buckets are made so many at a time, a page of them; the places for parts in groups, so that a cache that is opened for
/// one call does not pay for those of many; and at most so many groups, whatever the capacity.
const PART: usize = 64;
const GROUP: usize = 128;
const MAX_GROUPS: u64 = 128;

/// Of the capacity, the share of newcomers, as its authors found best: a tenth.
const NEW_SHARE: u64 = 10;

pub(crate) struct Table {
    capacity: u64,
    /// Room for as many buckets as there may be; made in order.
    groups: Box<[OnceLock<Box<Group>>]>,
    /// How many buckets are in use: see [`bucket_of`].
    buckets: AtomicUsize,
    /// Locked before any bucket is locked to be written.
    order: Mutex<Order>,
}

type Group = [OnceLock<Box<[Bucket; PART]>>; GROUP];

/// Alone on its cache line.
#[derive(Default)]
#[repr(align(64))]
struct Bucket(RwLock<Vec<Place>>);

/// A call, as kept, and its result.
struct Place {
    hash: u64,
    identity: Arc<Identity>,
    layouts: Option<Box<str>>,
    bytes: Box<[u8]>,
    by_key: bool,
    /// `None` after a clear, until the call is computed again, or the place is dropped.
    result: Option<Remembered>,
    asked_again: AtomicBool,
    /// Whether its turn is in the second queue.
    kept: bool,
}

struct Remembered {
    buffer: Buffer,
    generation: Generation,
    slot: Slot,
    worth: Worth,
    below: Option<Below>,
}

/// The cache below that a result was found in, and its generation before it was looked for there.
pub(crate) type Below = (Arc<State>, Generation);

/// Whose turn it is to be dropped. Every place has one turn, by its hash, in one of the queues: places with one hash take
/// each other's in the same queue, never in the other, which would have bytes and no turns then.
#[derive(Default)]
struct Order {
    new: Queue,
    kept: Queue,
    /// What was dropped from `new` lately, oldest first, and the same to look it up.
    dropped: VecDeque<u64>,
    recently: HashSet<u64, foldhash::fast::FixedState>,
}

#[derive(Default)]
struct Queue {
    turns: VecDeque<u64>,
    bytes: u64,
}

/// What identifies a call in memory: as asked for.
pub(crate) struct Asked<'a> {
    pub(crate) name: &'a [u8],
    pub(crate) version: &'a [u8],
    pub(crate) dependencies: &'a [(String, String)],
    /// The layout letters, where they count.
    pub(crate) layouts: Option<&'a str>,
    pub(crate) args: Arguments<'a>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arguments<'a> {
    Bytes(&'a [u8]),
    /// The key, of a call with longer ones.
    Key(&'a [u8; 32]),
}

impl Table {
    /// A table of up to `capacity` bytes.
    pub(crate) fn new(capacity: u64) -> Table {
        let parts = (capacity / (BYTES_PER_BUCKET * PART as u64)).max(1);
        let groups = parts.div_ceil(GROUP as u64).min(MAX_GROUPS);
        let groups = (0..groups).map(|_| OnceLock::new()).collect();
        Table { capacity, groups, buckets: AtomicUsize::new(1), order: Mutex::default() }
    }

    /// The result of this call and what it counts as, unless `now`, the generation of a slot, is later than what it was
    /// found in.
    pub(crate) fn get(&self, asked: &Asked<'_>, now: impl Fn(Slot) -> Generation) -> Option<(Buffer, Worth)> {
        let hash = asked.hash();
        let mut buckets = self.buckets.load(Ordering::Acquire);
        loop {
            let places = self.bucket(hash, buckets).read();
            if let Some(place) = places.iter().find(|place| place.is(hash, asked)) {
                let found = place.result.as_ref()?;
                if !found.is_of(&now) {
                    break;
                }
                // Written once only, so that those who ask for the same do not take the line from each other.
                if !place.asked_again.load(Ordering::Relaxed) {
                    place.asked_again.store(true, Ordering::Relaxed);
                }
                return Some((found.buffer.clone(), found.worth));
            }
            // It may have moved to another bucket before this one was locked.
            let now_in_use = self.buckets.load(Ordering::Acquire);
            if now_in_use == buckets {
                return None;
            }
            buckets = now_in_use;
        }
        self.drop_old(hash, asked, now);
        None
    }

    /// Forgets the result of this call if it is still one from before a clear.
    #[cold]
    fn drop_old(&self, hash: u64, asked: &Asked<'_>, now: impl Fn(Slot) -> Generation) {
        let mut order = lock(&self.order);
        let mut places = self.bucket(hash, self.buckets.load(Ordering::Relaxed)).write();
        let Some(place) = places.iter_mut().find(|place| place.is(hash, asked)) else { return };
        let old = order.take_old(place, &now);
        // Giving memory back takes its time: not under the locks.
        drop((places, order));
        drop(old);
    }

    /// Forgets every result from before a clear, for the memory that they take.
    pub(crate) fn drop_all_old(&self, now: impl Fn(Slot) -> Generation) {
        let mut old = Vec::new();
        let mut order = lock(&self.order);
        for i in 0..self.buckets.load(Ordering::Relaxed) {
            let mut places = self.nth_bucket(i).write();
            old.extend(places.iter_mut().filter_map(|place| order.take_old(place, &now)));
        }
        // As above.
        drop(order);
        drop(old);
    }

    /// Remembers a result that was looked for, or computed, since `generation` was read.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn put(
        &self,
        asked: &Asked<'_>,
        identity: &Arc<Identity>,
        buffer: Buffer,
        generation: Generation,
        slot: Slot,
        worth: Worth,
        below: Option<Below>,
    ) {
        let hash = asked.hash();
        let (bytes, by_key) = match asked.args {
            Arguments::Bytes(bytes) => (bytes, false),
            Arguments::Key(key) => (&key[..], true),
        };
        let mut new = Place {
            hash,
            identity: identity.clone(),
            layouts: asked.layouts.map(Into::into),
            bytes: bytes.into(),
            by_key,
            result: Some(Remembered { buffer, generation, slot, worth, below }),
            asked_again: AtomicBool::new(false),
            kept: false,
        };
        let fits = new.cost() <= self.capacity;
        if !fits {
            // What is remembered of the call goes all the same: it is older.
            new.result = None;
        }
        let mut out = Vec::new();
        let mut order = lock(&self.order);
        {
            let mut places = self.bucket(hash, self.buckets.load(Ordering::Relaxed)).write();
            match places.iter_mut().find(|place| place.is(hash, asked)) {
                Some(place) => {
                    order.queue(place).bytes -= place.cost();
                    std::mem::swap(&mut place.result, &mut new.result);
                    order.queue(place).bytes += place.cost();
                    out.push(new);
                }
                None if !fits => return,
                None => {
                    new.kept = order.recently.remove(&hash);
                    order.queue(&new).turns.push_back(hash);
                    order.queue(&new).bytes += new.cost();
                    // Most buckets have one at most, and what lies close together is found faster.
                    places.reserve_exact(1);
                    places.push(new);
                }
            }
        }
        self.grow(order.new.turns.len() + order.kept.turns.len());
        while order.new.bytes + order.kept.bytes > self.capacity {
            out.extend(self.drop_next(&mut order));
        }
        // Giving memory back takes its time: not under the lock.
        drop(order);
        drop(out);
    }

    /// Takes out the place whose turn it is; or keeps it, if it was asked for again.
    fn drop_next(&self, order: &mut Order) -> Option<Place> {
        let is_new = order.new.bytes > self.capacity / NEW_SHARE || order.kept.turns.is_empty();
        let queue = if is_new { &mut order.new } else { &mut order.kept };
        let hash = queue.turns.pop_front().expect("what has bytes has turns");
        let mut places = self.bucket(hash, self.buckets.load(Ordering::Relaxed)).write();
        let has_its_turn = |place: &Place| place.hash == hash && place.kept != is_new;
        let i = places.iter().position(has_its_turn).expect("a turn is of a place");
        order.queue(&places[i]).bytes -= places[i].cost();
        if places[i].asked_again.swap(false, Ordering::Relaxed) {
            places[i].kept = true;
            order.kept.bytes += places[i].cost();
            order.kept.turns.push_back(hash);
            return None;
        }
        if is_new && order.recently.insert(hash) {
            order.dropped.push_back(hash);
            while order.dropped.len() > order.new.turns.len() + order.kept.turns.len() {
                let oldest = order.dropped.pop_front().expect("longer than nothing");
                order.recently.remove(&oldest);
            }
        }
        Some(places.swap_remove(i))
    }

    /// Makes as many buckets as `calls` are to have, by splitting one after the other. The caller has locked the order.
    fn grow(&self, calls: usize) {
        let wanted = (BUCKETS_PER_CALL * calls).min(MANY).max(calls).min(PART * GROUP * self.groups.len());
        for new in self.buckets.load(Ordering::Relaxed)..wanted {
            // What is in the new one was in this one: without the highest bit.
            let mut from = self.nth_bucket(new ^ 1 << new.ilog2()).write();
            let mut to = self.nth_bucket(new).write();
            for place in from.extract_if(.., |place| bucket_of(place.hash, new + 1) == new) {
                to.reserve_exact(1);
                to.push(place);
            }
            // Before the locks are released, so that who finds a place gone from the one sees that there is another.
            self.buckets.store(new + 1, Ordering::Release);
        }
    }

    fn bucket(&self, hash: u64, buckets: usize) -> &Bucket {
        self.nth_bucket(bucket_of(hash, buckets))
    }

    fn nth_bucket(&self, i: usize) -> &Bucket {
        let group =
            self.groups[i / PART / GROUP].get_or_init(|| Box::new([const { OnceLock::new() }; GROUP]));
        let make = || Box::new(std::array::from_fn(|_| Bucket::default()));
        &group[i / PART % GROUP].get_or_init(make)[i % PART]
    }
}

/// Which bucket of so many a hash belongs to: by its low bits, of which there is one less where those name a bucket that is
/// not in use yet. So each bucket that is added takes from one other alone (linear hashing; Litwin, 1980).
fn bucket_of(hash: u64, buckets: usize) -> usize {
    let mask = usize::MAX >> (buckets - 1).leading_zeros().min(usize::BITS - 1);
    let i = hash as usize & mask;
    if i < buckets { i } else { i & mask >> 1 }
}

impl Bucket {
    // Nothing panics while it holds one of these, and what it guards stays right if something does.

    fn read(&self) -> RwLockReadGuard<'_, Vec<Place>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Vec<Place>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    /// Takes the result out of a place, if it is from before a clear.
    fn take_old(&mut self, place: &mut Place, now: impl Fn(Slot) -> Generation) -> Option<Remembered> {
        self.queue(place).bytes -= place.cost();
        let old = place.result.take_if(|found| !found.is_of(now));
        self.queue(place).bytes += place.cost();
        old
    }

    /// The queue that this place has its turn in.
    fn queue(&mut self, place: &Place) -> &mut Queue {
        if place.kept { &mut self.kept } else { &mut self.new }
    }
}

impl Place {
    fn is(&self, hash: u64, asked: &Asked<'_>) -> bool {
        self.hash == hash
            && self.arguments() == asked.args
            && self.identity.name().as_bytes() == asked.name
            && self.identity.version().as_bytes() == asked.version
            && self.identity.dependencies() == asked.dependencies
            && self.layouts.as_deref() == asked.layouts
    }

    fn arguments(&self) -> Arguments<'_> {
        match <&[u8; 32]>::try_from(&*self.bytes) {
            Ok(key) if self.by_key => Arguments::Key(key),
            _ => Arguments::Bytes(&self.bytes),
        }
    }

    /// Its bytes, as the capacity counts them.
    fn cost(&self) -> u64 {
        let result = self.result.as_ref().map_or(0, |found| found.buffer.memory());
        result + self.bytes.len() as u64 + OVERHEAD
    }
}

impl Remembered {
    fn is_of(&self, now: impl Fn(Slot) -> Generation) -> bool {
        let is_of_below = |(state, before): &Below| before.agrees(&state.generation(self.slot));
        self.generation.agrees(&now(self.slot)) && self.below.as_ref().is_none_or(is_of_below)
    }
}

impl Asked<'_> {
    /// Dependencies and layouts are left to the comparison: they hardly ever differ where all else is equal.
    fn hash(&self) -> u64 {
        let args = match self.args {
            Arguments::Bytes(bytes) => bytes,
            Arguments::Key(key) => key,
        };
        // The lengths keep the three apart.
        let lengths = (self.name.len() as u64) << 32 ^ self.version.len() as u64;
        let mut hasher = foldhash::fast::FixedState::with_seed(lengths).build_hasher();
        hasher.write(self.name);
        hasher.write(self.version);
        hasher.write(args);
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_that_is_added_takes_from_one_other_alone() {
        for buckets in 1..300 {
            for hash in (0..1000u64).chain([u64::MAX]) {
                let (before, after) = (bucket_of(hash, buckets), bucket_of(hash, buckets + 1));
                let one = buckets ^ 1 << buckets.ilog2();
                assert!(before == after || (before, after) == (one, buckets), "{hash} of {buckets}");
            }
            let used: HashSet<_> = (0..1000u64).map(|hash| bucket_of(hash, buckets)).collect();
            assert_eq!(used.len(), buckets, "every bucket is some hash's");
        }
    }
    #[test]
    fn a_call_is_found_though_its_bucket_is_split_between_choosing_and_locking_it() {
        let table = Table::new(1 << 20);
        let identity = Arc::new(Identity::new("f", "1", Vec::new(), false).unwrap());
        let generation = Generation::default();
        // One whose place moves when there are twice as many buckets.
        const FEW: usize = BUCKETS_PER_CALL;
        let asked_for = |i: &u32| i.to_le_bytes();
        let i = (0..).find(|i| asked(&asked_for(i)).hash() & FEW as u64 != 0).unwrap();
        let args = asked_for(&i);
        let asked = asked(&args);
        let buffer = Buffer::computed(Vec::new(), Vec::new(), None, Ok(()), 0.0);
        table.put(&asked, &identity, buffer, generation, Slot::ALL, Worth { row: 0, ns: 0 }, None);
        assert_eq!(table.buckets.load(Ordering::Relaxed), FEW);
        let before = bucket_of(asked.hash(), FEW);
        let mut from = table.nth_bucket(before).write();
        std::thread::scope(|scope| {
            let found = scope.spawn(|| table.get(&asked, |_| generation).is_some());
            // Long enough to have it wait for the bucket; if it is later still, it finds the new one at once.
            std::thread::sleep(std::time::Duration::from_millis(50));
            table.nth_bucket(before + FEW).write().append(&mut from);
            table.buckets.store(2 * FEW, Ordering::Release);
            drop(from);
            assert!(found.join().unwrap());
        });
    }

    #[test]
    fn a_clear_frees_what_it_made_old_and_nothing_else() {
        let table = Table::new(1 << 20);
        let identity = Arc::new(Identity::new("f", "1", Vec::new(), false).unwrap());
        let (before, after) = (Generation::default(), Generation::default().next());
        let results = [before, after].map(|generation| {
            let memory = crate::map::Memory::zeroed(4096).unwrap();
            let buffer = Buffer::computed(Vec::new(), vec![memory], None, Ok(()), 0.0);
            let args = [u8::from(generation == after)];
            table.put(&asked(&args), &identity, buffer, generation, Slot::ALL, Worth { row: 0, ns: 0 }, None);
            args
        });
        let bytes = || lock(&table.order).new.bytes;
        assert_eq!(bytes(), 2 * (4096 + 1 + OVERHEAD));
        table.drop_all_old(|_| after);
        assert_eq!(bytes(), 4096 + 2 * (1 + OVERHEAD));
        assert_eq!(results.map(|args| table.get(&asked(&args), |_| after).is_some()), [false, true]);
    }

    #[test]
    fn each_place_has_a_turn_in_its_own_queue_also_where_others_have_its_hash() {
        let table = Table::new(64 << 10);
        let identity = Arc::new(Identity::new("f", "1", Vec::new(), true).unwrap());
        let generation = Generation::default();
        let mut random = 1_u64;
        for round in 0..5000 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Some calls are asked for often, and some results are larger than the share of newcomers.
            let args = [(random >> 40) as u8 & (random >> 48) as u8];
            let layouts = if random >> 63 == 0 { "C" } else { "F" };
            let asked = Asked { layouts: Some(layouts), ..asked(&args) };
            if table.get(&asked, |_| generation).is_some() {
                continue;
            }
            let memory = crate::map::Memory::zeroed(usize::from(args[0]) % 7 * 2000 + 1).unwrap();
            let buffer = Buffer::computed(Vec::new(), vec![memory], None, Ok(()), 0.0);
            table.put(&asked, &identity, buffer, generation, Slot::ALL, Worth { row: 0, ns: 0 }, None);

            let order = lock(&table.order);
            let buckets = (0..table.buckets.load(Ordering::Relaxed)).map(|i| table.nth_bucket(i).read());
            let places: Vec<_> = buckets.collect();
            let places = || places.iter().flat_map(|places| places.iter());
            for (queue, kept) in [(&order.new, false), (&order.kept, true)] {
                let own = || places().filter(|place| place.kept == kept);
                let mut hashes: Vec<_> = own().map(|place| place.hash).collect();
                let mut turns: Vec<_> = queue.turns.iter().copied().collect();
                hashes.sort_unstable();
                turns.sort_unstable();
                assert_eq!(turns, hashes, "round {round}, kept: {kept}");
                assert_eq!(queue.bytes, own().map(Place::cost).sum::<u64>(), "round {round}, kept: {kept}");
            }
            assert!(order.new.bytes + order.kept.bytes <= table.capacity);
        }
    }

    fn asked(args: &[u8]) -> Asked<'_> {
        let args = Arguments::Bytes(args);
        Asked { name: b"f", version: b"1", dependencies: &[], layouts: None, args }
    }
}
