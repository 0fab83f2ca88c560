//! What is worth keeping: which of some entries are to go first.
//!
//! All that is known of an entry is what one `stat` tells: its length, when it was used last (the access time, which hits
//! set at most once an hour), when it was made (the modification time, which its writer chose), and what computing it
//! took, which the writer has put into that time's last digits ([`stamp`]). Nothing here touches a disk, so that the
//! simulation in `benches` can replay years with the code that decides.

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

/// Entries are looked at in groups of so many, of which the first to go are taken.
pub const WINDOW: usize = 64;

/// One in so many of a group goes. The fewer, the better the choice, and the more entries are looked at for each that
/// goes: see `benches/RESULTS.md`, "Traces".
pub const ONE_IN: usize = 8;

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
        let idle = now.saturating_sub(entry.used).max(0);
        match self {
            Policy::Cost => {
                // What took no time that was noted took less than the unit of the notes.
                let seconds = entry.seconds.max(SHORTEST);
                seconds / (entry.size.max(1) as f64 * (idle + RECENCY) as f64)
            }
            Policy::Lru | Policy::None => -(idle as f64),
        }
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
}
