//! What was measured, as a table and as JSON.

use crate::machine::{Machine, load};
use crate::stats::median;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::Path;

/// Everything of one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    /// Where it ran.
    pub machine: Machine,
    /// When it began, UTC.
    pub began: String,
    /// What was called.
    pub command: String,
    /// What was measured.
    pub benches: Vec<Measured>,
}

impl Report {
    /// Nothing measured yet.
    pub fn new(machine: Machine, command: String) -> Self {
        let began = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string();
        Self { machine, began, command, benches: Vec::new() }
    }

    /// Writes it as JSON.
    pub fn save(&self, file: &Path) -> Result<()> {
        fs::write(file, serde_json::to_vec_pretty(self)?).with_context(|| file.display().to_string())
    }

    /// Reads what was saved.
    pub fn read(file: &Path) -> Result<Self> {
        let text = fs::read(file).with_context(|| file.display().to_string())?;
        serde_json::from_slice(&text).with_context(|| format!("{} is no report of a bench", file.display()))
    }
}

/// What a bench has measured.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Its name.
    pub bench: String,
    /// Load averages before and after.
    pub load: (f64, f64),
    /// How long it took, in seconds.
    pub took: f64,
    /// What is to be known besides.
    pub notes: Vec<String>,
    /// What was run, with the bench's own folder as `DIR`.
    pub commands: Vec<String>,
    /// A line each.
    pub rows: Vec<Row>,
    /// What was promised of some of them.
    pub promises: Vec<Promise>,
    /// What is drawn.
    pub plots: Vec<Plot>,
}

/// One quantity, a value a round.
#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// Of whom and what.
    pub what: String,
    /// In what.
    pub unit: String,
    /// Of the values.
    pub median: f64,
    /// The least and the most of them.
    pub range: (f64, f64),
    /// In the order of the rounds.
    pub values: Vec<f64>,
}

/// A bound that a row's median was promised to keep.
#[derive(Debug, Serialize, Deserialize)]
pub struct Promise {
    /// Its number in SPECIFICATION.md.
    pub number: String,
    /// The row that is judged.
    pub row: String,
    /// On which side of the bound it must be.
    pub side: Side,
    /// In the row's unit.
    pub bound: f64,
}

/// Which side of a bound is the good one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The bound or more.
    AtLeast,
    /// The bound or less.
    AtMost,
}

impl Side {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
        }
    }

    /// Whether a value keeps the bound.
    pub fn keeps(self, value: f64, bound: f64) -> bool {
        match self {
            Self::AtLeast => value >= bound,
            Self::AtMost => value <= bound,
        }
    }
}

/// A drawing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Plot {
    /// The name of its file, without a suffix.
    pub name: String,
    /// Above it.
    pub title: String,
    /// What is drawn.
    pub content: Content,
}

/// What a drawing shows.
#[derive(Debug, Serialize, Deserialize)]
pub enum Content {
    /// The medians of these rows, all of one unit, with their ranges.
    Bars(Vec<String>),
    /// Something over time.
    Lines {
        /// What y is.
        unit: String,
        /// Names, and points of seconds and values.
        lines: Vec<(String, Vec<(f64, f64)>)>,
        /// A bound that is drawn across.
        bound: Option<f64>,
    },
}

impl Measured {
    /// Nothing yet.
    pub fn new(bench: &str) -> Self {
        Self {
            bench: bench.to_owned(),
            load: (load(), 0.0),
            took: 0.0,
            notes: Vec::new(),
            commands: Vec::new(),
            rows: Vec::new(),
            promises: Vec::new(),
            plots: Vec::new(),
        }
    }

    /// Notes the end.
    pub fn end(&mut self, took: std::time::Duration) {
        self.took = took.as_secs_f64();
        self.load.1 = load();
    }

    /// Adds a value to the row of that name.
    pub fn add(&mut self, what: &str, unit: &str, value: f64) {
        let row = match self.rows.iter_mut().position(|row| row.what == what) {
            Some(at) => &mut self.rows[at],
            None => {
                let (median, range) = (value, (value, value));
                self.rows.push(Row { what: what.to_owned(), unit: unit.to_owned(), median, range, values: Vec::new() });
                let last = self.rows.len() - 1;
                &mut self.rows[last]
            }
        };
        row.values.push(value);
        row.median = median(&row.values);
        row.range = (row.range.0.min(value), row.range.1.max(value));
    }

    /// The row of that name.
    pub fn row(&self, what: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.what == what)
    }

    /// Adds a note, once.
    pub fn note(&mut self, text: impl Into<String>) {
        let text = text.into();
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    /// Says what was promised of a row.
    pub fn promise(&mut self, number: &str, row: &str, side: Side, bound: f64) {
        self.promises.push(Promise { number: number.to_owned(), row: row.to_owned(), side, bound });
    }

    /// Has rows drawn that were measured; those that were not are left out.
    pub fn bars(&mut self, name: &str, title: &str, rows: &[&str]) {
        let rows = rows.iter().filter(|row| self.row(row).is_some()).map(|row| (*row).to_owned()).collect();
        self.plots.push(Plot { name: name.to_owned(), title: title.to_owned(), content: Content::Bars(rows) });
    }

    /// Has something drawn over time, thinned out to what can be seen.
    pub fn lines(
        &mut self,
        name: &str,
        title: &str,
        unit: &str,
        lines: Vec<(&str, Vec<(f64, f64)>)>,
        bound: Option<f64>,
    ) {
        let lines = lines.into_iter().map(|(name, points)| (name.to_owned(), thin(points))).collect();
        let content = Content::Lines { unit: unit.to_owned(), lines, bound };
        self.plots.push(Plot { name: name.to_owned(), title: title.to_owned(), content });
    }
}

/// The most points that a line is drawn with.
const POINTS_MAX: usize = 600;

/// Of each stretch of points the highest, so that no peak is lost.
fn thin(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let step = points.len().div_ceil(POINTS_MAX).max(1);
    let round = |value: f64| (value * 1000.0).round() / 1000.0;
    let highest = |stretch: &[(f64, f64)]| stretch.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(step).filter_map(highest).map(|(x, y)| (round(x), round(y))).collect()
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {:.0} s (load {:.1} to {:.1})", self.bench, self.took, self.load.0, self.load.1)?;
        for row in &self.rows {
            let each: Vec<String> = row.values.iter().map(|value| number(*value)).collect();
            let each = if each.len() > 1 { format!("[{}]", each.join(" ")) } else { String::new() };
            writeln!(f, "  {:<62} {:>9} {:<5} {each}", row.what, number(row.median), row.unit)?;
        }
        for Promise { number: which, row, side, bound } in &self.promises {
            let Some(row) = self.row(row) else { continue };
            let word = if side.keeps(row.median, *bound) { "met" } else { "NOT MET" };
            let (bound, value) = (number(*bound), number(row.median));
            writeln!(f, "  {which}: {}: {} {bound} {}: {value}: {word}", row.what, side.word(), row.unit)?;
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "  {note}"))
    }
}

/// A value in as many digits as mean something.
pub fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 1000.0 => 0,
        size if size >= 10.0 => 1,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_one_name_come_into_one_row() {
        let mut measured = Measured::new("test");
        [2.0, 9.0, 4.0].into_iter().for_each(|value| measured.add("time", "s", value));
        measured.note("once");
        measured.note("once");
        let row = measured.row("time").expect("a row");
        assert_eq!((measured.rows.len(), row.median, row.range, measured.notes.len()), (1, 4.0, (2.0, 9.0), 1));
    }

    #[test]
    fn what_was_saved_is_read_again() {
        let folder = tempfile::TempDir::new().expect("a temporary folder");
        let file = folder.path().join("report.json");
        let mut report = Report::new(Machine::here(), "bench".to_owned());
        let mut measured = Measured::new("test");
        measured.add("time", "s", 2.0);
        measured.promise("9", "time", Side::AtMost, 3.0);
        measured.lines("over-time", "Over time", "s", vec![("one", vec![(0.0, 1.0)])], None);
        report.benches.push(measured);
        report.save(&file).expect("saved");
        let again = Report::read(&file).expect("read");
        assert_eq!(format!("{}", again.benches[0]), format!("{}", report.benches[0]));
    }

    #[test]
    fn thinning_keeps_the_peak() {
        let mut points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), 1.0)).collect();
        points[4321].1 = 7.0;
        let thinned = thin(points);
        assert!(thinned.len() <= POINTS_MAX && thinned.contains(&(4321.0, 7.0)));
    }
}
