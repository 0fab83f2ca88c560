//! What the policies are worth: replays traces of calls against caches of several sizes, and draws the seconds that each
//! saves beside what an oracle would.
//!
//! The policy is the library's own code, and so is the way it is used: windows of entries in the order of a walk, of which
//! one in so many goes, and a time of last use that is kept to the hour. Only the disk is left out. The oracle knows when
//! each entry is asked for next, and drops what saves least for the room and the time until then: no cache can know
//! that, and no faster than exponential algorithm is known that would choose best where sizes and costs differ.
//!
//! `make traces` runs it; `target/traces OUTPUT.svg [REQUESTS]` prints a table and writes the chart. The optional file has
//! lines of a time in seconds, an object and a size in bytes, separated by commas or spaces.

use std::collections::HashMap;
use std::fmt::Write as _;

#[allow(dead_code)]
#[path = "../npcache-core/src/policy.rs"]
mod policy;

use policy::{Candidates, Policy, RECENCY, Seen, WINDOW, last_used, seconds_of, stamp};

/// One call: when, of what, and what its result takes and costs.
#[derive(Clone, Copy)]
struct Call {
    time: i64,
    object: u32,
    bytes: u64,
    seconds: f64,
}

struct Trace {
    name: &'static str,
    calls: Vec<Call>,
}

const SECOND: i64 = 1_000_000_000;

/// Some days after 1970, so that times before the first call are times.
const START: i64 = 1_000_000 * SECOND;

/// Part of what all results take together.
const SIZES: [f64; 7] = [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.7];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let output = arguments.next().ok_or("usage: traces OUTPUT.svg [REQUESTS]")?;
    let mut traces = vec![distances(), sweep(), zipf_mix(), scan()];
    if let Some(path) = arguments.next() {
        traces.push(recorded(&std::fs::read_to_string(path)?)?);
    }
    let mut charts = Vec::new();
    println!("{:<34} {:>6} {:>8} {:>8} {:>8}", "seconds saved, % of all", "size", "cost", "lru", "oracle");
    for trace in &traces {
        let (all, total) = totals(&trace.calls);
        let mut lines = [const { Vec::new() }; 3];
        for part in SIZES {
            let capacity = (all as f64 * part) as u64;
            let saved = [
                sampled(&trace.calls, capacity, Policy::Cost),
                sampled(&trace.calls, capacity, Policy::Lru),
                oracle(&trace.calls, capacity),
            ]
            .map(|seconds| 100.0 * seconds / total);
            println!(
                "{:<34} {:>5.0}% {:>8.1} {:>8.1} {:>8.1}{}",
                trace.name,
                part * 100.0,
                saved[0],
                saved[1],
                saved[2],
                if saved[0] + 0.05 < saved[1] { "  cost saves less than lru" } else { "" }
            );
            for (line, saved) in lines.iter_mut().zip(saved) {
                line.push((part, saved));
            }
        }
        charts.push((trace.name, lines));
    }
    std::fs::write(output, draw(&charts)?)?;
    Ok(())
}

/// The room of all results, and the seconds of all calls.
fn totals(calls: &[Call]) -> (u64, f64) {
    let sizes: HashMap<u32, u64> = calls.iter().map(|call| (call.object, call.bytes)).collect();
    (sizes.values().sum(), calls.iter().map(|call| call.seconds).sum())
}

/// Seconds saved by the library's policy in a cache of that size.
fn sampled(calls: &[Call], capacity: u64, policy: Policy) -> f64 {
    struct Entry {
        object: u32,
        bytes: u64,
        modified: i64,
        accessed: i64,
    }
    let mut entries: Vec<Entry> = Vec::new();
    let mut places: HashMap<u32, usize> = HashMap::new();
    let (mut used, mut saved, mut hand) = (0, 0.0, 0);
    let mut random = Random(1);
    let mut candidates = Candidates::new();
    for call in calls {
        if let Some(place) = places.get(&call.object) {
            saved += call.seconds;
            let entry = &mut entries[*place];
            if call.time - entry.accessed >= RECENCY {
                entry.accessed = call.time;
            }
            continue;
        }
        if call.bytes > capacity {
            continue;
        }
        let seen = |entry: &Entry| Seen {
            size: entry.bytes,
            seconds: seconds_of(entry.modified).expect("stamped"),
            used: last_used(entry.accessed, entry.modified, call.time),
        };
        while used + call.bytes > capacity {
            let Some((object, known)) = candidates.next_to_go(policy, call.time) else {
                let count = WINDOW.min(entries.len());
                let window = (0..count).map(|i| &entries[(hand + i) % entries.len()]);
                let window: Vec<_> = window.map(|entry| (entry.object, seen(entry))).collect();
                hand = (hand + count) % entries.len();
                candidates.forget(|object| window.iter().any(|(again, _)| again == object));
                candidates.add_window(window, policy, call.time);
                continue;
            };
            let Some(place) = places.get(&object).copied() else { continue };
            let now = seen(&entries[place]);
            if now.used > known.used {
                candidates.add(object, now, policy, call.time);
                continue;
            }
            used -= entries[place].bytes;
            places.remove(&object);
            entries.swap_remove(place);
            if let Some(moved) = entries.get(place) {
                places.insert(moved.object, place);
            }
            hand = if entries.is_empty() { 0 } else { hand % entries.len() };
        }
        used += call.bytes;
        let modified = stamp(call.time, call.seconds);
        // Keys are hashes, so a new entry is anywhere on the way.
        let place = random.below(entries.len() as u64 + 1) as usize;
        entries.push(Entry { object: call.object, bytes: call.bytes, modified, accessed: modified });
        let last = entries.len() - 1;
        candidates.add_made(call.object, seen(&entries[last]), policy, call.time);
        entries.swap(place, last);
        places.insert(entries[last].object, last);
        places.insert(entries[place].object, place);
    }
    saved
}

/// Seconds saved by dropping, each time, what saves least for the room that it takes until it is asked for again.
fn oracle(calls: &[Call], capacity: u64) -> f64 {
    let mut next = vec![usize::MAX; calls.len()];
    let mut last: HashMap<u32, usize> = HashMap::new();
    for (i, call) in calls.iter().enumerate().rev() {
        next[i] = last.insert(call.object, i).unwrap_or(usize::MAX);
    }
    // What is asked for never again goes first; then by seconds for bytes and calls until then.
    let mut resident: HashMap<u32, (u64, usize, f64)> = HashMap::new();
    let (mut used, mut saved) = (0, 0.0);
    for (i, call) in calls.iter().enumerate() {
        if let Some(entry) = resident.get_mut(&call.object) {
            saved += call.seconds;
            entry.1 = next[i];
            if next[i] == usize::MAX {
                used -= call.bytes;
                resident.remove(&call.object);
            }
            continue;
        }
        if next[i] == usize::MAX || call.bytes > capacity {
            continue;
        }
        resident.insert(call.object, (call.bytes, next[i], call.seconds));
        used += call.bytes;
        if used > capacity {
            let mut order: Vec<(u32, f64)> = resident
                .iter()
                .map(|(object, (bytes, next, seconds))| {
                    (*object, seconds / (*bytes as f64 * (next - i) as f64))
                })
                .collect();
            order.sort_by(|a, b| a.1.total_cmp(&b.1));
            // A little more than it has to, so that not every call has to sort.
            for (object, _) in order {
                if used <= capacity - capacity / 100 {
                    break;
                }
                used -= resident.remove(&object).expect("listed").0;
            }
        }
    }
    saved
}

/// The numbers of a small, fixed generator: traces are the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64, by Steele, Lea and Flood.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// In [0, 1).
    fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// exp of a normal number: a median and a spread.
    fn spread(&mut self, median: f64, sigma: f64) -> f64 {
        let (u, v) = (1.0 - self.uniform(), self.uniform());
        median * (sigma * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()).exp()
    }
}

/// A rank of `n` by Zipf's law with this exponent, from a table of sums.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(n: usize, exponent: f64) -> Zipf {
        let mut sum = 0.0;
        Zipf(
            (1..=n)
                .map(|rank| {
                    sum += (rank as f64).powf(-exponent);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> usize {
        let at = random.uniform() * self.0.last().expect("not empty");
        self.0.partition_point(|sum| *sum < at)
    }
}

/// A parameter sweep that is run again every day, as its author changes the range: each day a tenth of the points are
/// new ones, a tenth no longer asked for; every point has stages that share their intermediate results.
fn sweep() -> Trace {
    let mut random = Random(2);
    let (mut calls, mut time) = (Vec::new(), START);
    for day in 0..40_u32 {
        for point in 0..600 {
            let point = day * 60 + point;
            // A mesh, large and quick, for ten points; a solution, slow; a figure, small and quick.
            for (kind, object, bytes, seconds) in
                [(0, point / 10, 40 << 20, 4.0), (1, point, 4 << 20, 60.0), (2, point, 64 << 10, 2.0)]
            {
                let mut own = Random(u64::from(object) << 2 | kind);
                let (bytes, seconds) = (own.spread(bytes as f64, 0.5) as u64, own.spread(seconds, 0.7));
                calls.push(Call { time, object: object << 2 | kind as u32, bytes, seconds });
                time += SECOND / 2 + random.below(SECOND as u64) as i64;
            }
        }
        time = START + (i64::from(day) + 1) * 86_400 * SECOND;
    }
    Trace { name: "parameter sweep, day by day", calls }
}

/// Calls by Zipf's law of two kinds of functions: cheap with large results, dear with small ones.
fn zipf_mix() -> Trace {
    let mut random = Random(3);
    let zipf = Zipf::new(20_000, 0.8);
    let mut time = START;
    let calls = (0..200_000)
        .map(|_| {
            time += random.below(20 * SECOND as u64) as i64;
            let object = zipf.draw(&mut random) as u32;
            let mut own = Random(object.into());
            let (bytes, seconds) = if own.below(2) == 0 { (8e6, 0.2) } else { (1e5, 20.0) };
            Call { time, object, bytes: own.spread(bytes, 1.0) as u64, seconds: own.spread(seconds, 1.0) }
        })
        .collect();
    Trace { name: "Zipf: cheap large and dear small", calls }
}

/// A working set that is asked for all the time, by Zipf's law, and every day a scan over as many results again that are
/// asked for once.
fn scan() -> Trace {
    let mut random = Random(4);
    let zipf = Zipf::new(4_000, 0.7);
    let (mut calls, mut once) = (Vec::new(), 1_u32 << 20);
    for day in 0..30 {
        let mut time = START + day * 86_400 * SECOND;
        for i in 0..6_000 {
            time += random.below(14 * SECOND as u64) as i64;
            let object = if (2_000..4_000).contains(&i) {
                once += 1;
                once
            } else {
                zipf.draw(&mut random) as u32
            };
            let mut own = Random(object.into());
            calls.push(Call {
                time,
                object,
                bytes: own.spread(1e6, 1.0) as u64,
                seconds: own.spread(5.0, 1.0),
            });
        }
    }
    Trace { name: "working set and daily scans", calls }
}

/// Distances between all pairs of samples of many sizes over some weeks, as `examples-c/geodesics.c` computes them; the
/// latest samples are asked for again and again. Sizes grow with the square and seconds with the cube, from its 3 s at 1,797.
fn distances() -> Trace {
    let mut random = Random(5);
    let mut calls = Vec::new();
    for i in 0..30_000_i64 {
        let time = START + i * 120 * SECOND;
        // One in eight calls is for a sample that was not asked for before; others for a recent one.
        let newest = 1 + (i / 8) as u32;
        let back = (random.spread(40.0, 1.5) as u32).min(newest - 1);
        let object = if i % 8 == 0 { newest } else { newest - back };
        let n = Random(object.into()).spread(400.0, 0.6).clamp(50.0, 3000.0);
        calls.push(Call { time, object, bytes: (8.0 * n * n) as u64, seconds: 3.0 * (n / 1797.0).powi(3) });
    }
    Trace { name: "distances of growing samples", calls }
}

/// A recorded trace of requests to a disk. It knows no costs: each takes 5 ms, as finding the place does, and 10 ns a byte. An
/// object has the size of the first request for it.
fn recorded(text: &str) -> Result<Trace, Box<dyn std::error::Error>> {
    let mut objects: HashMap<&str, (u32, u64)> = HashMap::new();
    let mut calls = Vec::new();
    for line in text.lines() {
        let mut fields = line.split([',', ' ', '\t']).filter(|field| !field.is_empty());
        let (Some(time), Some(object), Some(bytes)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (Ok(time), Ok(bytes)) = (time.parse::<f64>(), bytes.parse::<u64>()) else { continue };
        let count = objects.len() as u32;
        let (object, bytes) = *objects.entry(object).or_insert((count, bytes.max(1)));
        let time = START + (time * SECOND as f64) as i64;
        calls.push(Call { time, object, bytes, seconds: 5e-3 + 1e-8 * bytes as f64 });
    }
    if calls.is_empty() {
        Err("the recorded trace has no line of a time, an object and a size".into())
    } else {
        Ok(Trace { name: "recorded: requests to a disk", calls })
    }
}

type Chart<'a> = (&'a str, [Vec<(f64, f64)>; 3]);

const WIDE: f64 = 300.0;
const HIGH: f64 = 220.0;
/// What each of the three lines is, and its colour: from Okabe and Ito's palette, which the colour-blind can tell apart.
const LINES: [(&str, &str); 3] = [("cost", "#0072b2"), ("lru", "#e69f00"), ("oracle", "#666666")];

/// The charts one beside the other: size on a logarithmic axis, seconds saved in per cent.
fn draw(charts: &[Chart<'_>]) -> Result<String, std::fmt::Error> {
    let width = charts.len() as f64 * (WIDE + 60.0) + 10.0;
    let mut svg = String::new();
    writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {}\" font-family=\"sans-serif\" \
         font-size=\"11\" fill=\"#222\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>",
        HIGH + 120.0
    )?;
    for (i, (name, lines)) in charts.iter().enumerate() {
        let (left, top) = (45.0 + i as f64 * (WIDE + 60.0), 40.0);
        let x = |part: f64| left + WIDE * (part / SIZES[0]).ln() / (SIZES[SIZES.len() - 1] / SIZES[0]).ln();
        let y = |saved: f64| top + HIGH * (1.0 - saved / 100.0);
        writeln!(svg, "<text x=\"{left}\" y=\"24\" font-size=\"13\">{name}</text>")?;
        for tick in [0.0, 25.0, 50.0, 75.0, 100.0] {
            let (at, end) = (y(tick), left + WIDE);
            writeln!(svg, "<path d=\"M{left} {at}H{end}\" stroke=\"#ddd\"/>")?;
            writeln!(svg, "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{tick}</text>", left - 5.0, at + 4.0)?;
        }
        for part in SIZES {
            let (at, below) = (x(part), top + HIGH + 15.0);
            writeln!(
                svg,
                "<text x=\"{at}\" y=\"{below}\" text-anchor=\"middle\">{:.0}%</text>",
                part * 100.0
            )?;
        }
        for (j, (line, (label, colour))) in lines.iter().zip(LINES).enumerate() {
            let points: Vec<String> =
                line.iter().map(|(part, saved)| format!("{:.1},{:.1}", x(*part), y(*saved))).collect();
            let points = points.join(" ");
            writeln!(
                svg,
                "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>"
            )?;
            let at = left + 70.0 * j as f64;
            writeln!(svg, "<text x=\"{at}\" y=\"{}\" fill=\"{colour}\">{label}</text>", top + HIGH + 45.0)?;
        }
    }
    let foot = HIGH + 110.0;
    writeln!(
        svg,
        "<text x=\"45\" y=\"{foot}\">seconds saved, % of all; size of the cache, % of all results</text>\n</svg>"
    )?;
    Ok(svg)
}
