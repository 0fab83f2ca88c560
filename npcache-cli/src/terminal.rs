//! How things look: sizes and times for people, colours, progress.

use std::borrow::Cow;
use std::time::{Duration, Instant, SystemTime};

use anstream::{stderr, stdout};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Colours are the terminal's own sixteen, which its user has chosen to be readable. `anstream` leaves them out where
/// nobody would see them.
mod colours {
    use clap::builder::styling::{AnsiColor, Style};
    pub const BAD: Style = AnsiColor::Red.on_default().bold();
    pub const GOOD: Style = AnsiColor::Green.on_default();
    pub const NAME: Style = AnsiColor::Cyan.on_default();
    pub const DIM: Style = Style::new().dimmed();
    pub const HEAD: Style = Style::new().bold();
}
pub use colours::*;

/// Progress is shown only of what takes longer than this.
const PATIENCE: Duration = Duration::from_millis(700);

/// `1.5 MiB`, in at most eight characters.
pub fn bytes(n: u64) -> String {
    let (mut scaled, mut unit) = (n as f64, 0);
    while scaled >= 999.5 && unit < 6 {
        scaled /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{n} B"),
        _ if scaled < 9.995 => format!("{scaled:.2} {}iB", b"KMGTPE"[unit - 1] as char),
        _ if scaled < 99.95 => format!("{scaled:.1} {}iB", b"KMGTPE"[unit - 1] as char),
        _ => format!("{scaled:.0} {}iB", b"KMGTPE"[unit - 1] as char),
    }
}

/// `2.97 s`, `5.1 ms`, `3 h`: two or three digits.
pub fn seconds(s: f64) -> String {
    match s.abs() {
        0.0 => "0 s".to_owned(),
        a if a < 1e-6 => format!("{:.0} ns", s * 1e9),
        a if a < 1e-3 => format!("{:.1} µs", s * 1e6),
        a if a < 1.0 => format!("{:.1} ms", s * 1e3),
        a if a < 120.0 => format!("{s:.2} s"),
        a if a < 7200.0 => format!("{:.0} min", s / 60.0),
        a if a < 172_800.0 => format!("{:.1} h", s / 3600.0),
        a if a < 730.0 * 86_400.0 => format!("{:.0} d", s / 86_400.0),
        _ => format!("{:.1} y", s / (365.25 * 86_400.0)),
    }
}

/// How long ago, from seconds to years.
pub fn ago(time: SystemTime) -> String {
    match SystemTime::now().duration_since(time).unwrap_or_default().as_secs() {
        s @ 0..120 => format!("{s} s"),
        s @ 120..7200 => format!("{} min", s / 60),
        s @ 7200..172_800 => format!("{} h", s / 3600),
        s @ 172_800..63_072_000 => format!("{} d", s / 86_400),
        s => format!("{:.1} y", s as f64 / 31_557_600.0),
    }
}

/// 1234567 as `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Text from a cache, without what a terminal would take for commands.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(escape).collect::<String>().into()
}

/// The first `width` characters, the last of which is `…` where there are more.
pub fn cut(text: &str, width: usize) -> Cow<'_, str> {
    match text.char_indices().nth(width) {
        None => text.into(),
        Some(_) => {
            let end = text.char_indices().nth(width.saturating_sub(1)).map_or(0, |(at, _)| at);
            format!("{}…", &text[..end]).into()
        }
    }
}

/// Columns of standard output, where it is a terminal.
pub fn width() -> Option<usize> {
    if !stdout().is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}

/// A size on the command line.
pub fn size(text: &str) -> Result<u64, &'static str> {
    npcache_core::parse_bytes(text).ok_or("no size, such as 4096, 64M or 1.5G")
}

/// How far something is, on standard error if that is a terminal, and if it takes its time.
pub struct Progress {
    bar: ProgressBar,
    since: Instant,
}

impl Progress {
    /// Of `total` bytes.
    pub fn of_bytes(what: &'static str, total: u64) -> Progress {
        let template = "{msg} {bar:32} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left";
        let progress = Progress::new(what, template);
        progress.bar.set_length(total);
        progress
    }

    /// Of as many entries as there will be.
    pub fn of_entries(what: &'static str) -> Progress {
        Progress::new(what, "{msg} {human_pos} entries  {per_sec}")
    }

    /// Of rounds that take from nanoseconds to seconds.
    pub fn of_rounds(what: &'static str) -> Progress {
        Progress::new(what, "{msg}, round {human_pos}")
    }

    fn new(what: &'static str, template: &str) -> Progress {
        let bar = ProgressBar::hidden();
        bar.set_style(ProgressStyle::with_template(template).expect("a constant").progress_chars("━━ "));
        bar.set_message(what);
        Progress { bar, since: Instant::now() }
    }

    pub fn advance(&self, by: u64) {
        self.bar.inc(by);
        if self.bar.is_hidden() && stderr().is_terminal() && self.since.elapsed() > PATIENCE {
            self.bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    }

    /// Prints something between two pictures of the bar.
    pub fn pause<R>(&self, print: impl FnOnce() -> R) -> R {
        self.bar.suspend(print)
    }

    pub fn end(self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_they_are_shown() {
        for (n, shown) in
            [(0, "0 B"), (999, "999 B"), (1000, "0.98 KiB"), (1 << 20, "1.00 MiB"), (3 << 29, "1.50 GiB")]
        {
            assert_eq!(bytes(n), shown);
            assert!(size(shown).unwrap().abs_diff(n) <= n / 100);
        }
        assert_eq!(bytes(u64::MAX), "16.0 EiB");
        for wrong in ["", "-1", "G", "ten", "NaN", "inf", "1e30"] {
            size(wrong).unwrap_err();
        }
    }

    #[test]
    fn text_is_cut_by_characters_and_has_no_commands_for_a_terminal() {
        assert_eq!((cut("größe", 5), cut("größe", 4)), ("größe".into(), "grö…".into()));
        assert_eq!(printable("a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(
            (count(7), count(1234), count(1_000_000)),
            ("7".into(), "1,234".into(), "1,000,000".into())
        );
    }
}
