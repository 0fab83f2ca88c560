//! What is worth keeping: which of some entries are to go first.
//!
//! All that is known of an entry is what one `stat` tells: its length, when it was used last (the access time, which hits
//! set at most once an hour), when it was made (the modification time, which its writer chose), and what computing it
//! took, which the writer has put into that time's last digits ([`stamp`]). Nothing here touches a disk, so that the
//! simulation in `benches` can replay years with the code that decides.

use std::collections::VecDeque;

/// What goes first when something has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// What is quickest to compute again for the room that it takes, and was not used for long.
    #[default]
    Cost,
    /// What was not used for the longest time.
    Lru,
    /// Nothing: what no longer fits is not stored.
    None,
}

/// Entries are looked at in groups of so many.
pub const WINDOW: usize = 64;

/// One goes for so many that are looked at. Each look is a system call. With three, nothing in `benches/RESULTS.md`,
/// "Traces", loses more than half a point to four; with two, scans lose 0.9.
pub const ONE_IN: usize = 3;

/// So many are remembered as the next to go.
pub const REMEMBERED: usize = 256;

/// So many of the last that were made are not among them: a computation may ask for what it made just now, once more.
pub const FRESH: usize = 8;

/// What is noted of their worth is taken for right for so many nanoseconds, in which none changes by more than 6 %.
const RANKED_FOR: i64 = RECENCY / 16;

/// An entry is marked as used at most once in so many nanoseconds; within them, nothing is known of its age.
pub const RECENCY: i64 = 3600 * 1_000_000_000;

/// An entry, as a look at its file shows it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Seen {
    /// What it counts for: bytes, or 1 where only the number of entries is bounded.
    pub size: u64,
    /// Seconds that computing it took; 0 where that is not known.
    pub seconds: f64,
    /// When it was last used, in nanoseconds since 1970.
    pub used: i64,
}

impl Policy {
    /// How much is to be said for keeping an entry at the time `now`. Only the order counts.
    ///
    /// `Cost` is seconds saved for each byte, if the entry is asked for as often as once in the time for which it was not:
    /// the estimate of Blankstein, Sen and Freedman, "Hyperbolic Caching" (2017), which needs no clock of the cache's
    /// own to age by, as GreedyDual-Size does, and so nothing that processes would have to agree on.
    pub fn worth(self, entry: &Seen, now: i64) -> f64 {
        match self {
            Policy::Cost => {
                let idle = now.saturating_sub(entry.used).max(0);
                // What took no time that was noted took less than the unit of the notes.
                let seconds = entry.seconds.max(SHORTEST);
                seconds / (entry.size.max(1) as f64 * (idle as f64 + RECENCY as f64))
            }
            Policy::Lru | Policy::None => entry.used as f64,
        }
    }
}

/// When an entry was last used, of the times at which its file was accessed and made, all in nanoseconds since 1970. One that
/// is yet to come was noted by a clock that was wrong: such entries go before all others, in their order.
pub fn last_used(accessed: i64, modified: i64, now: i64) -> i64 {
    let known =
        |time: i64| if time > now.saturating_add(RECENCY) { time.saturating_sub(i64::MAX) } else { time };
    known(accessed).max(known(modified))
}

/// What goes next: of the entries that were looked at, or made here, those least worth keeping.
///
/// A window alone may have few that should go, or too many. Remembered from one to the next, those that go are chosen from
/// several times as many, for the same looks. What was made here needs no look at all, and is most of what comes.
pub struct Candidates<T> {
    /// By what is to be said for keeping each: the first to go is the last, and what is added mostly belongs at the other end.
    sorted: VecDeque<Candidate<T>>,
    /// When that was said.
    ranked: i64,
    /// The last that were made, the newest at the back.
    fresh: VecDeque<(T, Seen)>,
    /// How many may go before others are to be looked at.
    due: usize,
}

struct Candidate<T> {
    worth: f64,
    id: T,
    seen: Seen,
}

impl<T> Candidates<T> {
    /// None.
    pub fn new() -> Candidates<T> {
        Candidates { sorted: VecDeque::new(), ranked: 0, fresh: VecDeque::new(), due: 0 }
    }

    /// Whether one in [`ONE_IN`] of those that were looked at last has gone.
    pub fn are_used_up(&self) -> bool {
        self.due == 0 || self.sorted.is_empty()
    }

    /// Forgets those that are about to be looked at again, so that none is there twice.
    pub fn forget(&mut self, is_one: impl Fn(&T) -> bool) {
        self.sorted.retain(|known| !is_one(&known.id));
        self.fresh.retain(|(id, _)| !is_one(id));
    }

    /// Adds a window of entries.
    pub fn add_window(&mut self, window: impl IntoIterator<Item = (T, Seen)>, policy: Policy, now: i64) {
        let before = self.sorted.len();
        self.sorted.extend(window.into_iter().map(|(id, seen)| Candidate { worth: 0.0, id, seen }));
        self.due = (self.sorted.len() - before).div_ceil(ONE_IN);
        self.rank(policy, now);
        self.sorted.drain(..self.sorted.len().saturating_sub(REMEMBERED));
    }

    fn rank(&mut self, policy: Policy, now: i64) {
        for candidate in &mut self.sorted {
            candidate.worth = policy.worth(&candidate.seen, now);
        }
        // Stable, since that is quick where most are in order already.
        self.sorted.make_contiguous().sort_by(|a, b| b.worth.total_cmp(&a.worth));
        self.ranked = now;
    }

    /// Adds an entry that was made just now.
    pub fn add_made(&mut self, id: T, seen: Seen, policy: Policy, now: i64) {
        self.fresh.push_back((id, seen));
        if self.fresh.len() > FRESH
            && let Some((id, seen)) = self.fresh.pop_front()
        {
            self.add(id, seen, policy, now);
        }
    }

    /// Adds one of which more is known now.
    pub fn add(&mut self, id: T, seen: Seen, policy: Policy, now: i64) {
        let worth = policy.worth(&seen, now);
        let place = self.sorted.partition_point(|other| other.worth > worth);
        if self.sorted.len() < REMEMBERED {
            self.sorted.insert(place, Candidate { worth, id, seen });
        } else if place > 0 {
            // For the one most worth keeping.
            self.sorted.pop_front();
            self.sorted.insert(place - 1, Candidate { worth, id, seen });
        }
    }

    /// Takes the next to go, with what was known of it; `None` where others are to be looked at first.
    pub fn next_to_go(&mut self, policy: Policy, now: i64) -> Option<(T, Seen)> {
        if self.are_used_up() {
            return None;
        }
        // Also where a clock was set back.
        if now.abs_diff(self.ranked) > RANKED_FOR as u64 {
            self.rank(policy, now);
        }
        self.due -= 1;
        self.sorted.pop_back().map(|candidate| (candidate.id, candidate.seen))
    }

    /// The one that was taken last may not go: another goes in its place.
    pub fn pass_over(&mut self) {
        self.due += 1;
    }
}

/// The least and the longest time that a stamp can tell, in seconds: 1 µs and 11.6 days.
const SHORTEST: f64 = 1e-6;
const LONGEST: f64 = 1e6;

/// The time of modification for an entry that is made at `now` (nanoseconds since 1970) and took `seconds` to compute: the
/// same time to 65 µs, with the logarithm of `seconds` and a check in the last 16 bits. Steps are of 11 %.
pub fn stamp(now: i64, seconds: f64) -> i64 {
    let code = if seconds > 0.0 {
        let part = (seconds / SHORTEST).ln() / (LONGEST / SHORTEST).ln();
        1 + (part.clamp(0.0, 1.0) * 254.0).round() as i64
    } else {
        0
    };
    let stamped = now & !0xffff | code << 8;
    stamped | i64::from(check(stamped))
}

/// What computing took, in seconds, from the time of modification; 0 where the writer did not know. `None`: it is no stamp,
/// but a time as others set it.
pub fn seconds_of(mtime: i64) -> Option<f64> {
    let code = mtime >> 8 & 0xff;
    if mtime & 0xff != i64::from(check(mtime)) {
        return None;
    }
    Some(if code == 0 { 0.0 } else { SHORTEST * (LONGEST / SHORTEST).powf((code - 1) as f64 / 254.0) })
}

/// A byte that other times have by chance alone: the highest of a multiplicative hash of the bits above it.
fn check(mtime: i64) -> u8 {
    ((mtime >> 8) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000_123_456_789;

    #[test]
    fn a_stamp_tells_the_seconds_to_six_percent_and_stays_within_65_microseconds() {
        for i in 0..1000 {
            let seconds = 1e-6 * 1e12_f64.powf(f64::from(i) / 999.0);
            let stamped = stamp(NOW + i64::from(i) * 98_765_432_101, seconds);
            assert!((stamped - NOW - i64::from(i) * 98_765_432_101).abs() < 65_536);
            let told = seconds_of(stamped).unwrap();
            assert!((told / seconds).ln().abs() < 0.06, "{seconds} came back as {told}");
        }
        assert_eq!(seconds_of(stamp(NOW, 0.0)), Some(0.0));
        assert_eq!(seconds_of(stamp(NOW, 1e-9)), Some(1e-6));
        assert!((seconds_of(stamp(NOW, 1e9)).unwrap() / 1e6 - 1.0).abs() < 1e-9);
    }

    #[test]
    fn a_time_that_is_no_stamp_is_told_from_one() {
        let mistaken = (0..10_000).filter(|i| seconds_of(NOW + i * 7_777_777).is_some()).count();
        assert!((20..70).contains(&mistaken), "{mistaken} of 10,000");
        // What tar, rsync and many file systems leave of a time.
        for whole in [1_000_000_000, 100, 1000] {
            let time = stamp(NOW, 2.0);
            assert_eq!(seconds_of(time - time % whole), None, "cut to {whole} ns");
        }
    }

    #[test]
    fn cost_prefers_what_took_longer_is_smaller_or_was_used_later() {
        let entry = Seen { size: 4096, seconds: 1.0, used: NOW - 10 * RECENCY };
        let worth = |entry: Seen| Policy::Cost.worth(&entry, NOW);
        assert!(worth(Seen { seconds: 2.0, ..entry }) > worth(entry));
        assert!(worth(Seen { size: 8192, ..entry }) < worth(entry));
        assert!(worth(Seen { used: NOW, ..entry }) > worth(entry));
        assert!(
            Policy::Lru.worth(&Seen { used: NOW, seconds: 0.0, ..entry }, NOW)
                > Policy::Lru.worth(&entry, NOW)
        );
    }

    /// Windows of entries that were used that many hours ago; an entry is known by that.
    fn add_window(candidates: &mut Candidates<i64>, hours: std::ops::Range<i64>) {
        candidates.forget(|idle| hours.contains(idle));
        let window = hours.map(|idle| (idle, Seen { size: 1, seconds: 1.0, used: NOW - idle * RECENCY }));
        candidates.add_window(window, Policy::Lru, NOW);
    }

    fn take(candidates: &mut Candidates<i64>) -> Vec<i64> {
        std::iter::from_fn(|| candidates.next_to_go(Policy::Lru, NOW)).map(|(idle, _)| idle).collect()
    }

    #[test]
    fn what_an_earlier_window_had_goes_before_what_is_worth_more() {
        let mut candidates = Candidates::new();
        add_window(&mut candidates, 100..132);
        assert_eq!(take(&mut candidates), (121..132).rev().collect::<Vec<_>>(), "one in three");
        add_window(&mut candidates, 0..32);
        assert_eq!(take(&mut candidates), (110..121).rev().collect::<Vec<_>>());
        // As many again, better ones; seen again, none is there twice.
        for _ in 0..8 {
            add_window(&mut candidates, 0..REMEMBERED as i64);
            assert!(candidates.sorted.len() <= REMEMBERED);
            let taken = take(&mut candidates);
            assert!(taken.windows(2).all(|pair| pair[0] > pair[1]), "{taken:?}");
        }
    }

    #[test]
    fn what_was_made_goes_in_its_turn_but_not_at_once() {
        let mut candidates = Candidates::new();
        add_window(&mut candidates, 1000..1000 + 2 * REMEMBERED as i64);
        let worst = |id| (id, Seen { size: 1, seconds: 1.0, used: NOW - 5000 * RECENCY });
        for id in 0..FRESH as i64 {
            let (id, seen) = worst(id);
            candidates.add_made(id, seen, Policy::Lru, NOW);
        }
        assert_eq!(
            candidates.next_to_go(Policy::Lru, NOW).map(|(id, _)| id),
            Some(999 + 2 * REMEMBERED as i64)
        );
        let (id, seen) = worst(-1);
        candidates.add_made(id, seen, Policy::Lru, NOW);
        assert_eq!(candidates.next_to_go(Policy::Lru, NOW), Some(worst(0)));
        // One that was used meanwhile comes after the others.
        candidates.add(-2, Seen { used: NOW, ..seen }, Policy::Lru, NOW);
        assert!(!take(&mut candidates).contains(&-2));
    }

    #[test]
    fn what_a_wrong_clock_noted_goes_first() {
        let (hour, ahead) = (NOW - RECENCY, NOW + 3 * RECENCY);
        assert_eq!(last_used(hour, hour - 1, NOW), hour);
        // Clocks of two machines differ a little.
        assert_eq!(last_used(NOW + RECENCY, hour, NOW), NOW + RECENCY);
        assert_eq!((last_used(ahead, hour, NOW), last_used(hour, ahead, NOW)), (hour, hour));
        for policy in [Policy::Cost, Policy::Lru] {
            let worth = |time: i64| {
                policy.worth(&Seen { size: 1, seconds: 1.0, used: last_used(time, time, NOW) }, NOW)
            };
            assert!(worth(ahead) <= worth(ahead + RECENCY) && worth(i64::MAX) < worth(RECENCY));
        }
    }

    #[test]
    fn what_was_looked_at_long_ago_is_ranked_anew_among_what_was_used_since() {
        let mut candidates = Candidates::new();
        let unused = Seen { size: 1, seconds: 1.0, used: NOW };
        candidates.add_window((0..4).map(|id| (id, unused)), Policy::Cost, NOW);
        let later = NOW + 20 * RECENCY;
        candidates.add(-1, Seen { seconds: 0.9, used: later, ..unused }, Policy::Cost, later);
        assert_ne!(candidates.next_to_go(Policy::Cost, later).unwrap().0, -1);
    }

    #[test]
    fn under_lru_it_does_not_matter_how_long_ago_the_others_were_looked_at() {
        let mut candidates = Candidates::new();
        add_window(&mut candidates, 0..4);
        // Used after all of them, and ten hours before it is added.
        let used = Seen { size: 1, seconds: 1.0, used: NOW + 10 * RECENCY };
        candidates.add(-1, used, Policy::Lru, NOW + 20 * RECENCY);
        assert_eq!(candidates.sorted.iter().map(|known| known.id).collect::<Vec<_>>(), [-1, 0, 1, 2, 3]);
    }
}
