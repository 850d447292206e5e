//! What was measured, as a table and as JSON.

use anyhow::{Context, Result};
use serde::Serialize;
use std::fmt;
use std::fs;
use std::path::Path;

/// Everything of one run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// What was measured.
    pub benches: Vec<Measured>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(machine: Machine) -> Self {
        Self { machine, benches: Vec::new() }
    }

    /// Writes it as JSON.
    pub fn save(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec_pretty(self)?).with_context(|| file.display().to_string())
    }
}

/// The machine and the programs on it.
#[derive(Debug, Serialize)]
pub struct Machine {
    processor: String,
    processors: usize,
    memory_mib: u64,
    kernel: String,
    programs: Vec<String>,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| -> String {
            let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
            line.split_once(':').map_or("?", |(_, value)| value.trim()).to_owned()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        let kib: u64 = memory.split_whitespace().next().and_then(|text| text.parse().ok()).unwrap_or(0);
        Self {
            processor: field(&read("/proc/cpuinfo"), "model name"),
            processors: processors(),
            memory_mib: kib / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            programs: ["qemu-img", "rsync", "fio"].into_iter().filter_map(version).collect(),
        }
    }
}

/// How many processors there are.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The first line that a program says of its version.
fn version(program: &str) -> Option<String> {
    let output = std::process::Command::new(program).arg("--version").output().ok()?;
    String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned)
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { processor, processors, memory_mib, kernel, programs } = self;
        write!(f, "{processors} x {processor}, {memory_mib} MiB, Linux {kernel}; {}", programs.join("; "))
    }
}

/// The load average over the last minute: what else the machine does.
pub fn load() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// What a bench has measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    bench: &'static str,
    load_before: f64,
    load_after: f64,
    /// What is to be known besides.
    pub notes: Vec<String>,
    /// A line each.
    pub rows: Vec<Row>,
}

/// One quantity, a value a round.
#[derive(Debug, Serialize)]
pub struct Row {
    what: String,
    unit: &'static str,
    median: f64,
    /// In the order of the rounds.
    pub values: Vec<f64>,
}

impl Measured {
    /// Nothing yet.
    pub fn new(bench: &'static str) -> Self {
        Self { bench, load_before: load(), load_after: 0.0, notes: Vec::new(), rows: Vec::new() }
    }

    /// Notes the load at the end.
    pub fn ended(mut self) -> Self {
        self.load_after = load();
        self
    }

    /// Adds a value to the row of that name.
    pub fn add(&mut self, what: &str, unit: &'static str, value: f64) {
        match self.rows.iter_mut().find(|row| row.what == what) {
            Some(row) => {
                row.values.push(value);
                row.median = median(&row.values);
            }
            None => self.rows.push(Row { what: what.to_owned(), unit, median: value, values: vec![value] }),
        }
    }

    /// Adds a note, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} (load {:.1} to {:.1})", self.bench, self.load_before, self.load_after)?;
        for row in &self.rows {
            let each: Vec<String> = row.values.iter().map(|value| number(*value)).collect();
            writeln!(f, "  {:<52} {:>10} {:<6} [{}]", row.what, number(row.median), row.unit, each.join(" "))?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// The middle value, or the mean of the two middle ones.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

/// The value below which `part` of all values lie (nearest rank).
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_percentiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), 99.0);
        assert_eq!(percentile(&[7.0], 0.99), 7.0);
    }

    #[test]
    fn values_of_one_name_come_into_one_row() {
        let mut measured = Measured::new("test");
        [2.0, 9.0, 4.0].into_iter().for_each(|value| measured.add("time", "s", value));
        measured.note("once");
        measured.note("once");
        assert_eq!((measured.rows.len(), measured.rows[0].median, measured.notes.len()), (1, 4.0, 1));
    }
}
