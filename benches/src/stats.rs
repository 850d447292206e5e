//! What is made of many values.

/// The middle value, or the mean of the two middle ones.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    match sorted.len() {
        0 => f64::NAN,
        len if len % 2 == 1 => sorted[len / 2],
        len => (sorted[len / 2 - 1] + sorted[len / 2]) / 2.0,
    }
}

/// The value below which `part` of all values lie (nearest rank).
pub fn percentile(values: &[f64], part: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// Bounds between which the median of what was sampled lies with a confidence of at least 95 %, whatever its
/// distribution (by the sign test); the extremes where there are too few values for that.
pub fn median_interval(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    let count = sorted.len();
    if count == 0 {
        return (f64::NAN, f64::NAN);
    }
    // How likely it is that at most `rank` of the values fall below the median: each does with one half.
    let (mut rank, mut likely, mut term) = (0, 0.0, 0.5_f64.powi(count as i32));
    while rank < count / 2 && likely + term <= 0.025 {
        likely += term;
        term *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let below = rank.max(1) - 1;
    (sorted[below], sorted[count - 1 - below])
}

/// By how much y grows when x grows by 1: the line with the least squares.
pub fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|p| p.0), mean(|p| p.1));
    let above: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
    let below: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
    if below == 0.0 { 0.0 } else { above / below }
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
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
    fn the_interval_is_that_of_the_tables() {
        // The ranks of a 95 % interval of the median, as tables of the sign test give them.
        for (count, below) in [(5, 1), (6, 1), (10, 2), (21, 6), (50, 18)] {
            let values: Vec<f64> = (1..=count).map(f64::from).collect();
            assert_eq!(median_interval(&values), (f64::from(below), f64::from(count + 1 - below)), "{count}");
        }
    }

    #[test]
    fn a_slope_is_that_of_its_line() {
        let line: Vec<(f64, f64)> = (0..10).map(|x| (f64::from(x), 3.0 * f64::from(x) - 7.0)).collect();
        assert!((slope(&line) - 3.0).abs() < 1e-9);
        assert_eq!(slope(&[(1.0, 5.0)]), 0.0);
    }
}
