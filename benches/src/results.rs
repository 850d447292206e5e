//! Writes what was measured into `RESULTS.md`, and draws it: nobody copies numbers by hand.
//!
//! The text around them is written by people. What lies between `<!-- NAME -->` and `<!-- end -->` is made from the
//! reports in `benches/results/`, the newest of each bench: for NAME `promises` all that was promised and what it came
//! to, for the name of a bench its table, for `runs` where, when and how it was measured.

use crate::plot;
use crate::report::{Measured, Report, Row, number};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes the file and the drawings in `folder`, which is `benches/`.
pub fn write(folder: &Path) -> Result<()> {
    let reports = read(&folder.join("results"))?;
    let newest = newest(&reports);
    let file = folder.join("RESULTS.md");
    let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    fs::write(&file, filled(&text, &reports, &newest)?)?;
    let plots = folder.join("plots");
    fs::create_dir_all(&plots)?;
    for measured in newest.values() {
        for plot in &measured.plots {
            if let Some(drawn) = plot::svg(measured, plot) {
                fs::write(plots.join(format!("{}.svg", plot.name)), drawn)?;
            }
        }
    }
    Ok(())
}

/// All reports, the oldest first.
fn read(folder: &Path) -> Result<Vec<Report>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|suffix| suffix == "json"));
    files.sort();
    let mut reports = files.iter().map(|file| Report::read(file)).collect::<Result<Vec<_>>>()?;
    ensure!(!reports.is_empty(), "no reports in {}", folder.display());
    reports.sort_by(|a, b| a.began.cmp(&b.began));
    Ok(reports)
}

fn newest(reports: &[Report]) -> BTreeMap<&str, &Measured> {
    reports.iter().flat_map(|report| &report.benches).map(|measured| (measured.bench.as_str(), measured)).collect()
}

/// The text with everything between its marks made anew.
fn filled(text: &str, reports: &[Report], newest: &BTreeMap<&str, &Measured>) -> Result<String> {
    let (mut made, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once("<!-- ") {
        let (name, after) = after.split_once(" -->\n").context("a mark ends with ` -->` and its line")?;
        let (_, after) = after.split_once("<!-- end -->").with_context(|| format!("`{name}` has no end"))?;
        let content = match name {
            "promises" => promises(newest),
            "runs" => runs(reports, newest),
            _ => match newest.get(name) {
                Some(measured) => table(measured),
                None => format!("Not measured: `cargo xtask bench {name}`.\n"),
            },
        };
        if name == "end" {
            bail!("an end without a beginning");
        }
        // Writing to a string can't fail.
        let _ = write!(made, "{before}<!-- {name} -->\n{content}<!-- end -->");
        rest = after;
    }
    Ok(made + rest)
}

fn promises(newest: &BTreeMap<&str, &Measured>) -> String {
    let mut lines = Vec::new();
    for measured in newest.values() {
        for promise in &measured.promises {
            let Some(row) = measured.row(&promise.row) else { continue };
            let met = if promise.side.keeps(row.median, promise.bound) { "yes" } else { "**no**" };
            let (side, bound, unit) = (promise.side.word(), number(promise.bound), &row.unit);
            let what = &promise.row;
            lines.push(format!(
                "| {} | `{}` | {what} | {side} {bound} {unit} | {} | {met} |\n",
                promise.number,
                measured.bench,
                values(row)
            ));
        }
    }
    lines.sort();
    format!("| | bench | what | promised | measured | met |\n| --- | --- | --- | --- | --- | --- |\n{}", lines.concat())
}

/// The median, and from where to where the values reach.
fn values(row: &Row) -> String {
    match row.values.len() {
        1 => number(row.median),
        _ => format!("{} ({} to {})", number(row.median), number(row.range.0), number(row.range.1)),
    }
}

fn table(measured: &Measured) -> String {
    let mut made = "| what | | median | least | most |\n| --- | --- | ---: | ---: | ---: |\n".to_owned();
    for row in &measured.rows {
        let [middle, least, most] = [row.median, row.range.0, row.range.1].map(number);
        let ends = if row.values.len() > 1 { format!("{least} | {most}") } else { " | ".to_owned() };
        let _ = writeln!(made, "| {} | {} | {middle} | {ends} |", row.what, row.unit);
    }
    let rounds = measured.rows.iter().map(|row| row.values.len()).max().unwrap_or(0);
    let (before, after) = measured.load;
    let _ = writeln!(
        made,
        "\n{rounds} rounds at most, {:.0} s in all, load average {before:.1} before and {after:.1} after.\n",
        measured.took
    );
    measured.notes.iter().for_each(|note| _ = writeln!(made, "- {note}"));
    for plot in measured.plots.iter().filter(|plot| plot::svg(measured, plot).is_some()) {
        let _ = writeln!(made, "\n![{}](plots/{}.svg)", plot.title, plot.name);
    }
    if !measured.commands.is_empty() {
        let _ = writeln!(
            made,
            "\n<details><summary>Commands</summary>\n\n```\n{}\n```\n</details>",
            measured.commands.join("\n")
        );
    }
    made
}

/// Of each run whose results are shown: machine, time and command.
fn runs(reports: &[Report], newest: &BTreeMap<&str, &Measured>) -> String {
    let mut made = String::new();
    for report in reports {
        let shown =
            |measured: &&Measured| newest.get(measured.bench.as_str()).is_some_and(|one| std::ptr::eq(*one, *measured));
        let benches: Vec<&str> = report.benches.iter().filter(shown).map(|measured| measured.bench.as_str()).collect();
        if benches.is_empty() {
            continue;
        }
        let _ =
            writeln!(made, "- {}: `{}` ({}). {}.", report.began, report.command, benches.join(", "), report.machine);
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Machine;
    use crate::report::Side;

    #[test]
    fn what_is_between_the_marks_is_made_anew_and_the_rest_stays() {
        let mut old = Report::new(Machine::here(), "cargo xtask bench delta".to_owned());
        let mut measured = Measured::new("delta");
        measured.add("a cycle", "s", 9.0);
        old.benches.push(measured);
        let mut new = Report::new(Machine::here(), "cargo xtask bench delta --rounds 2".to_owned());
        let mut measured = Measured::new("delta");
        [1.0, 2.0].into_iter().for_each(|value| measured.add("a cycle", "s", value));
        measured.promise("2", "a cycle", Side::AtMost, 1.2);
        new.benches.push(measured);
        let reports = [old, new];
        let text = "# Results\n<!-- promises -->\nold\n<!-- end -->\nwhy\n<!-- delta -->\n<!-- end -->\n<!-- runs -->\n\
                    <!-- end -->\n<!-- rpo -->\n<!-- end -->\nfoot\n";
        let once = filled(text, &reports, &newest(&reports)).expect("filled");
        assert!(
            once.contains("| 2 | `delta` | a cycle | at most 1.200 s | 1.500 (1.000 to 2.000) | **no** |"),
            "{once}"
        );
        assert!(once.contains("| a cycle | s | 1.500 | 1.000 | 2.000 |") && once.contains("\nwhy\n"), "{once}");
        assert!(
            once.contains("--rounds 2` (delta)") && once.contains("Not measured: `cargo xtask bench rpo`"),
            "{once}"
        );
        assert!(!once.contains("old") && !once.contains("9.000") && once.ends_with("foot\n"), "{once}");
        assert_eq!(filled(&once, &reports, &newest(&reports)).expect("filled"), once);
        assert!(filled("<!-- delta -->\nno end", &reports, &newest(&reports)).is_err());
    }
}
