//! Timings: psql's own clock, medians, JSON lines.

use crate::Result;
use crate::cluster::{Cluster, DATABASE, answer};

/// Milliseconds that each statement of a script took, by psql's `\timing`. The rows are dropped.
pub fn statements(cluster: &Cluster, script: &str) -> Result<Vec<f64>> {
    let text = answer(
        cluster
            .psql(DATABASE)
            .stdin(format!("\\timing on\n\\o /dev/null\n{script}\n"))
            .run()?,
    )?;
    Ok(text.lines().filter_map(milliseconds).collect())
}

/// The time of a single statement.
pub fn statement(cluster: &Cluster, sql: &str) -> Result<f64> {
    let times = statements(cluster, sql)?;
    times
        .last()
        .copied()
        .ok_or_else(|| format!("psql printed no time for {sql}"))
}

/// `Time: 1234.567 ms (00:01.235)`
fn milliseconds(line: &str) -> Option<f64> {
    line.strip_prefix("Time: ")?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
    }
}

/// The median of `others / bases`, pair by pair. A machine that others share changes its speed between runs
/// more than within a pair of them.
pub fn ratio(bases: &[f64], others: &[f64]) -> f64 {
    let ratios = bases.iter().zip(others).map(|(base, other)| other / base);
    median(ratios.collect())
}

/// One JSON object a line on stdout. The numbers are rounded to four digits after the point.
pub fn report(bench: &str, numbers: &[(&str, f64)]) {
    let mut line = format!("{{\"bench\":\"{bench}\"");
    for (name, value) in numbers {
        if value.is_finite() {
            line.push_str(&format!(",\"{name}\":{value:.4}"));
        } else {
            line.push_str(&format!(",\"{name}\":null"));
        }
    }
    println!("{line}}}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_medians() {
        assert_eq!(milliseconds("Time: 1234.5 ms (00:01.235)"), Some(1234.5));
        assert_eq!(milliseconds("1 | Time"), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(ratio(&[1.0, 2.0, 4.0], &[2.0, 2.0, 12.0]), 2.0);
    }
}
