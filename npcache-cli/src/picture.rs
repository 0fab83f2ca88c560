//! A small picture of an array for a terminal: a heat map of two dimensions, a curve of one.

use std::fmt::Write;

use crate::numbers::Numbers;

/// A picture has at most so many columns, and half as many lines of two pixels.
const WIDTH: usize = 64;
/// Lines of a curve, each of four dots.
const CURVE_LINES: usize = 8;
/// Of a pixel's elements, at most so many a side count: of more they are samples.
const SAMPLES: usize = 16;

/// Every seventeenth of matplotlib's viridis: from dark to light also for those who see no colour.
const VIRIDIS: [(u8, u8, u8); 16] = [
    (68, 1, 84),
    (72, 26, 108),
    (71, 47, 125),
    (65, 68, 135),
    (57, 86, 140),
    (49, 104, 142),
    (42, 120, 142),
    (35, 136, 142),
    (31, 152, 139),
    (34, 168, 132),
    (53, 183, 121),
    (84, 197, 104),
    (122, 209, 81),
    (165, 219, 54),
    (210, 226, 27),
    (253, 231, 37),
];

/// How colours are told to the terminal.
#[derive(Clone, Copy, PartialEq)]
pub enum Colours {
    None,
    /// The 6 × 6 × 6 cube, which all terminals have.
    Cube,
    /// All of them, where the terminal says that it has them.
    All,
}

impl Colours {
    pub fn of_terminal(any: bool) -> Colours {
        let says = std::env::var("COLORTERM").unwrap_or_default();
        match says.as_str() {
            _ if !any => Colours::None,
            "truecolor" | "24bit" => Colours::All,
            _ => Colours::Cube,
        }
    }

    fn write(self, out: &mut String, layer: u8, (r, g, b): (u8, u8, u8)) {
        let cube = |level: u8| (u16::from(level) * 5 + 127) / 255;
        let _ = match self {
            Colours::None => Ok(()),
            Colours::Cube => write!(out, "\x1b[{layer};5;{}m", 16 + 36 * cube(r) + 6 * cube(g) + cube(b)),
            Colours::All => write!(out, "\x1b[{layer};2;{r};{g};{b}m"),
        };
    }
}

/// The picture, each line ended; empty where there is nothing to see. Colours reach from the least to the greatest
/// finite element.
pub fn draw(numbers: &Numbers<'_>, columns: usize, colours: Colours) -> String {
    let (rows, across) = numbers.extent();
    let width = columns.clamp(8, WIDTH);
    if numbers.len() == 0 {
        String::new()
    } else if rows == 1 {
        curve(numbers, width.min(across))
    } else {
        heat_map(numbers, width, colours)
    }
}

fn heat_map(numbers: &Numbers<'_>, width: usize, colours: Colours) -> String {
    let (rows, columns) = numbers.extent();
    // Elements are square, unless that leaves less than two lines or columns of them.
    let scale = (columns as f64 / width as f64).max(rows as f64 / WIDTH as f64);
    let repeat = if scale < 0.25 {
        4
    } else if scale < 0.5 {
        2
    } else {
        1
    };
    let pixels = |n: usize, most: usize| ((n as f64 / scale.max(1.0)).ceil() as usize).clamp(n.min(4), most);
    let (wide, high) = (pixels(columns, width), pixels(rows, WIDTH));
    let means: Vec<Vec<Option<f64>>> = (0..high)
        .map(|y| (0..wide).map(|x| mean(numbers, part(y, high, rows), part(x, wide, columns))).collect())
        .collect();
    let finite = means.iter().flatten().flatten();
    let low = finite.clone().copied().fold(f64::INFINITY, f64::min);
    let high_value = finite.copied().fold(f64::NEG_INFINITY, f64::max);
    let level = |value: f64| {
        let range = high_value - low;
        // Halved first, where the range itself is more than the greatest number.
        let share = if range.is_finite() {
            (value - low) / range
        } else {
            value / 2.0 / (high_value / 2.0 - low / 2.0) + 0.5
        };
        ((share * 15.0).round() as usize).min(15)
    };
    let level = |value: Option<f64>| value.map(|value| if high_value > low { level(value) } else { 8 });

    let mut out = String::new();
    let lines: Vec<&Vec<Option<f64>>> =
        means.iter().flat_map(|line| std::iter::repeat_n(line, repeat)).collect();
    for pair in lines.chunks(2) {
        for x in 0..wide * repeat {
            let upper = level(pair[0][x / repeat]);
            let lower = pair.get(1).and_then(|line| level(line[x / repeat]));
            if colours == Colours::None {
                let known: Vec<usize> = upper.into_iter().chain(lower).collect();
                let shade = known.iter().sum::<usize>().checked_div(known.len());
                out.push(shade.map_or(' ', |level| ['·', '░', '▒', '▓', '█'][level * 5 / 16]));
                continue;
            }
            if let Some(lower) = lower {
                colours.write(&mut out, 48, VIRIDIS[lower]);
            }
            match (upper, lower) {
                (Some(upper), _) => {
                    colours.write(&mut out, 38, VIRIDIS[upper]);
                    out.push('▀');
                }
                // What is no number stays the terminal's background.
                (None, Some(lower)) => {
                    out.push_str("\x1b[49m");
                    colours.write(&mut out, 38, VIRIDIS[lower]);
                    out.push('▄');
                }
                (None, None) => out.push(' '),
            }
            out.push_str("\x1b[0m");
        }
        out.push('\n');
    }
    out
}

/// What the `i`th of `parts` equal parts of `0..n` is.
fn part(i: usize, parts: usize, n: usize) -> std::ops::Range<usize> {
    let start = i * n / parts;
    start..((i + 1) * n / parts).max(start + 1)
}

/// The mean of a part's finite elements, or of a sample of them.
fn mean(numbers: &Numbers<'_>, rows: std::ops::Range<usize>, columns: std::ops::Range<usize>) -> Option<f64> {
    let step = |range: &std::ops::Range<usize>| range.len().div_ceil(SAMPLES);
    let (down, across) = (step(&rows), step(&columns));
    let (mut mean, mut count) = (0.0, 0.0);
    for row in rows.step_by(down) {
        for column in columns.clone().step_by(across) {
            let value = numbers.at(row, column);
            if value.is_finite() {
                count += 1.0;
                mean += (value - mean) / count;
            }
        }
    }
    (count > 0.0).then_some(mean)
}

/// From the least to the greatest element of each column of dots, so that no peak is lost, in braille patterns.
fn curve(numbers: &Numbers<'_>, width: usize) -> String {
    let (_, n) = numbers.extent();
    // Two dots a character; of few elements each gets a character of its own.
    let dots = if n <= width { n } else { 2 * width };
    let spans: Vec<Option<(f64, f64)>> = (0..dots)
        .map(|x| {
            let mut span: Option<(f64, f64)> = None;
            for column in part(x, dots, n) {
                let value = numbers.at(0, column);
                if value.is_finite() {
                    let (low, high) = span.get_or_insert((value, value));
                    (*low, *high) = (low.min(value), high.max(value));
                }
            }
            span
        })
        .collect();
    let low = spans.iter().flatten().map(|span| span.0).fold(f64::INFINITY, f64::min);
    let high = spans.iter().flatten().map(|span| span.1).fold(f64::NEG_INFINITY, f64::max);
    let top = 4 * CURVE_LINES - 1;
    let height = |value: f64| {
        let share = (value / 2.0 - low / 2.0) / (high / 2.0 - low / 2.0);
        if high > low { (share * top as f64).round() as usize } else { top / 2 }
    };
    // The bits of U+2800's eight dots, from the bottom, left and right.
    const DOTS: [[u32; 4]; 2] = [[0x40, 0x04, 0x02, 0x01], [0x80, 0x20, 0x10, 0x08]];
    let characters = if dots == n { dots } else { width };
    let mut cells = vec![vec![0x2800; characters]; CURVE_LINES];
    for (x, span) in spans.iter().enumerate() {
        let Some((low, high)) = span else { continue };
        for y in height(*low)..=height(*high) {
            let (cell, side) = if dots == n { (x, 0..2) } else { (x / 2, x % 2..x % 2 + 1) };
            for side in side {
                cells[CURVE_LINES - 1 - y / 4][cell] |= DOTS[side][y % 4];
            }
        }
    }
    let line = |cells: &Vec<u32>| {
        cells.iter().filter_map(|code| char::from_u32(*code)).chain(['\n']).collect::<String>()
    };
    cells.iter().map(line).collect()
}
