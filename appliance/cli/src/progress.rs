//! What a person at a terminal sees while something runs. Without a terminal nothing of it is drawn.

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use std::io::{self, IsTerminal, Write};
use std::sync::LazyLock;
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// All bars share one screen, so that lines of text can pass between them.
static SCREEN: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);

/// True where bars are drawn.
pub fn is_shown() -> bool {
    io::stderr().is_terminal()
}

/// A line for people, on stderr, above the bars.
pub fn say(line: impl AsRef<str>) {
    SCREEN.suspend(|| eprintln!("{}", line.as_ref()));
}

/// A line for programs, on stdout. That nobody reads it any more must not end what is under way.
pub fn print(line: std::fmt::Arguments<'_>) {
    SCREEN.suspend(|| drop(writeln!(io::stdout(), "{line}")));
}

/// As `println!`, past the bars, and with no panic where stdout is closed.
macro_rules! print_line {
    ($($text:tt)*) => { $crate::progress::print(format_args!($($text)*)) };
}

/// One bar; gone when it is dropped.
#[derive(Debug)]
pub struct Bar {
    bar: ProgressBar,
}

impl Bar {
    /// A bar with nothing done, under this name.
    pub fn new(name: &str) -> Self {
        let bar = SCREEN.add(ProgressBar::no_length());
        bar.set_style(style());
        bar.set_prefix(name.to_owned());
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar }
    }

    /// A new beginning under another name: rate and time to go count from here.
    pub fn restart(&self, name: &str) {
        if self.bar.prefix() != name {
            self.bar.set_prefix(name.to_owned());
            self.bar.set_position(0);
            self.bar.reset();
        }
    }

    /// `done` bytes of `whole`.
    pub fn set(&self, done: u64, whole: u64) {
        self.bar.set_length(whole.max(1));
        self.bar.set_position(done.min(whole));
    }

    /// What else there is to say.
    pub fn note(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// Takes it off the screen.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
        SCREEN.remove(&self.bar);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.clear();
    }
}

fn style() -> ProgressStyle {
    let template = "{prefix:>22} [{bar:24}] {percent:>3}% {binary_bytes:>11} of {binary_total_bytes:<11} \
                    {binary_bytes_per_sec:>13} ETA {eta:>4} {msg}";
    // The template is a constant that a test reads.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
}

/// Log lines go the same way as [`say`]; to programs that read them without colours.
pub fn start_log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("SLUICE_LOG").unwrap_or_else(|_| default.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Log).with_ansi(is_shown());
    // A second start in one process changes nothing.
    drop(log.with_target(false).try_init());
}

struct Log;

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;
    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

/// One line of the log, written as a whole when it is complete.
struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        // Nobody is left to tell where stderr is closed.
        SCREEN.suspend(|| drop(io::stderr().write_all(&self.0)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_can_be_read() {
        let bar = ProgressBar::hidden();
        bar.set_style(style());
        let shown = Bar { bar };
        shown.restart("cycle 1 copying");
        shown.set(7, 5);
        assert_eq!(shown.bar.position(), 5);
        shown.restart("cycle 1 verifying");
        assert_eq!(shown.bar.position(), 0);
    }
}
