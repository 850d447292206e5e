//! Drawings as SVG, which a browser shows in a README.

use crate::report::{Content, Measured, Plot, Row, number};
use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const COLOURS: [&str; 6] = ["#2b6cb0", "#c05621", "#2f855a", "#6b46c1", "#b83280", "#4a5568"];

/// Draws a plot of what was measured. `None` where there is nothing to draw.
pub fn svg(measured: &Measured, plot: &Plot) -> Option<String> {
    match &plot.content {
        Content::Bars(names) => {
            let rows: Vec<&Row> = names.iter().filter_map(|name| measured.row(name)).collect();
            bars(&plot.title, &rows)
        }
        Content::Lines { unit, lines, bound } => over_time(&plot.title, unit, lines, *bound),
    }
}

/// A bar a row, with a whisker from the least to the most of its values.
fn bars(title: &str, rows: &[&Row]) -> Option<String> {
    const EACH: f64 = 40.0;
    let most = rows.iter().map(|row| row.range.1).fold(0.0, f64::max);
    if most <= 0.0 {
        return None;
    }
    let height = TOP + EACH * rows.len() as f64 + 10.0;
    let x = |value: f64| 10.0 + value.max(0.0) / most * (WIDTH - 110.0);
    let mut body = String::new();
    for (i, row) in rows.iter().enumerate() {
        let (y, colour) = (TOP + EACH * i as f64, COLOURS[i % COLOURS.len()]);
        let (end, low, high, middle) = (x(row.median), x(row.range.0), x(row.range.1), y + 22.0);
        body += &text(10.0, y + 11.0, 12, "start", &row.what);
        body += &format!(
            "<rect x=\"10\" y=\"{}\" width=\"{:.1}\" height=\"14\" fill=\"{colour}\"/>\n",
            y + 15.0,
            end - 10.0
        );
        body += &format!(
            "<path d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {0}v6M{high:.1} {0}v6\" stroke=\"#1a202c\"/>\n",
            middle - 3.0
        );
        body += &text(high.max(end) + 6.0, y + 26.0, 12, "start", &format!("{} {}", number(row.median), row.unit));
    }
    Some(page(title, height, &body))
}

/// Lines over seconds.
fn over_time(title: &str, unit: &str, lines: &[(String, Vec<(f64, f64)>)], bound: Option<f64>) -> Option<String> {
    const HEIGHT: f64 = 320.0;
    const BOTTOM: f64 = 40.0;
    let points = || lines.iter().flat_map(|(_, points)| points);
    let last = points().map(|(x, _)| *x).fold(0.0, f64::max);
    let most = points().map(|(_, y)| *y).chain(bound).fold(0.0, f64::max) * 1.05;
    if last <= 0.0 || most <= 0.0 {
        return None;
    }
    let x = |value: f64| LEFT + value / last * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - value / most * (HEIGHT - BOTTOM - TOP);
    let mut body = String::new();
    for part in 0..=4 {
        let (across, up) = (last * f64::from(part) / 4.0, most * f64::from(part) / 4.0);
        body += &format!("<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#e2e8f0\"/>\n", y(up), WIDTH - RIGHT);
        body += &text(LEFT - 6.0, y(up) + 4.0, 11, "end", &number(up));
        body += &text(x(across), HEIGHT - BOTTOM + 16.0, 11, "middle", &format!("{across:.0} s"));
    }
    if let Some(bound) = bound {
        body += &format!(
            "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#e53e3e\" stroke-dasharray=\"6 4\"/>\n",
            y(bound),
            WIDTH - RIGHT
        );
    }
    for (i, (name, points)) in lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let mut path = String::new();
        for (at, value) in points {
            // Writing to a string can't fail.
            let _ = write!(path, "{:.1},{:.1} ", x(*at), y(*value));
        }
        body += &format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\n",
            path.trim_end()
        );
        let (from, under) = (LEFT + 150.0 * i as f64, HEIGHT - 8.0);
        body += &format!("<rect x=\"{from}\" y=\"{}\" width=\"10\" height=\"10\" fill=\"{colour}\"/>\n", under - 9.0);
        body += &text(from + 14.0, under, 12, "start", &format!("{name}, {unit}"));
    }
    Some(page(title, HEIGHT, &body))
}

fn page(title: &str, height: f64, body: &str) -> String {
    let title = text(10.0, 22.0, 15, "start", title);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         fill=\"none\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n{title}{body}</svg>\n"
    )
}

fn text(x: f64, y: f64, size: u32, anchor: &str, words: &str) -> String {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<text x=\"{x:.1}\" y=\"{y:.1}\" font-size=\"{size}\" text-anchor=\"{anchor}\" fill=\"#1a202c\">{words}</text>\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_and_lines_are_drawn_and_nothing_is_not() {
        let mut measured = Measured::new("test");
        measured.add("one <&> two", "s", 2.0);
        measured.add("other", "s", 4.0);
        measured.bars("bars", "Bars", &["one <&> two", "other", "not measured"]);
        measured.lines("lines", "Lines", "s", vec![("a", vec![(0.0, 1.0), (2.0, 3.0)])], Some(2.5));
        measured.lines("nothing", "Nothing", "s", vec![("a", Vec::new())], None);
        let drawn: Vec<_> = measured.plots.iter().map(|plot| svg(&measured, plot)).collect();
        let [Some(bars), Some(lines), None] = &drawn[..] else { panic!("{drawn:?}") };
        assert!(bars.contains("one &lt;&amp;> two") && bars.matches("<rect").count() == 3, "{bars}");
        assert!(lines.contains("<polyline points=\"60.0,") && lines.contains("stroke-dasharray"), "{lines}");
    }
}
