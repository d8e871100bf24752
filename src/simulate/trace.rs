//! A recorded load: CSV with the columns `seconds,requests_per_second[,service_ms,cpu_ms,error_rate]`.
//!
//! A first line of words is a heading. `seconds` rises from line to line; a line counts until the next one. An absent
//! or empty column keeps the scenario's own value. Lines that are empty or begin with `#` are skipped.

/// Most lines that are read: a year of minutes.
const MOST_LINES: usize = 600_000;

/// A recorded load, in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Trace(Vec<Row>);

/// One line.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Row {
    /// From this second on.
    pub seconds: f64,
    /// Calls per second.
    pub rate: f64,
    /// Mean time of a call without CPU, in ms.
    pub service_ms: Option<f64>,
    /// Mean CPU time of a call, in ms.
    pub cpu_ms: Option<f64>,
    /// Share of calls that fail at once, 0..=1.
    pub error_rate: Option<f64>,
}

/// What is wrong with a trace.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum TraceError {
    /// A line cannot be read.
    #[error("line {line}: {what}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// There is no line with numbers.
    #[error("the trace has no line: expected seconds,requests_per_second[,service_ms,cpu_ms,error_rate]")]
    Empty,
    /// There are too many.
    #[error("the trace has more than {MOST_LINES} lines: thin it out")]
    TooLong,
}

impl Trace {
    /// Reads CSV.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut rows: Vec<Row> = Vec::new();
        let mut heading = true;
        for (i, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if std::mem::take(&mut heading) && line.starts_with(|c: char| c.is_alphabetic()) {
                continue;
            }
            let wrong = |what: String| TraceError::Line { line: i + 1, what };
            let row = row(line).map_err(wrong)?;
            if let Some(last) = rows.last().filter(|last| last.seconds >= row.seconds) {
                return Err(wrong(format!("seconds must rise: {} after {}", row.seconds, last.seconds)));
            }
            rows.push(row);
            if rows.len() > MOST_LINES {
                return Err(TraceError::TooLong);
            }
        }
        if rows.is_empty() { Err(TraceError::Empty) } else { Ok(Self(rows)) }
    }

    /// What holds at a second; before the first line that line.
    pub fn at(&self, seconds: f64) -> Row {
        let next = self.0.partition_point(|row| row.seconds <= seconds);
        self.0[next.saturating_sub(1)]
    }

    /// The time of the last line, and as long again as the line before it lasted.
    pub fn seconds(&self) -> u32 {
        let last = self.0[self.0.len() - 1].seconds;
        let step = if self.0.len() > 1 { last - self.0[self.0.len() - 2].seconds } else { 60.0 };
        (last + step).ceil().clamp(1.0, f64::from(u32::MAX)) as u32
    }
}

fn row(line: &str) -> Result<Row, String> {
    const NAMES: [&str; 5] = ["seconds", "requests_per_second", "service_ms", "cpu_ms", "error_rate"];
    let cells: Vec<&str> = line.split(',').map(str::trim).collect();
    if cells.len() < 2 || cells.len() > NAMES.len() {
        return Err(format!("{} columns; expected {}", cells.len(), NAMES.join(",")));
    }
    let mut values = [None; NAMES.len()];
    for ((cell, name), value) in cells.iter().zip(NAMES).zip(&mut values) {
        if cell.is_empty() {
            continue;
        }
        let number: f64 = cell.parse().map_err(|_| format!("{name} is not a number: {cell:?}"))?;
        if !number.is_finite() || number < 0.0 {
            return Err(format!("{name} must be a number from 0 on: {cell}"));
        }
        *value = Some(number);
    }
    let [seconds, rate, service_ms, cpu_ms, error_rate] = values;
    if let Some(share) = error_rate.filter(|share| *share > 1.0) {
        return Err(format!("error_rate must be at most 1: {share}"));
    }
    Ok(Row {
        seconds: seconds.ok_or("seconds is missing")?,
        rate: rate.ok_or("requests_per_second is missing")?,
        service_ms,
        cpu_ms,
        error_rate,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_counts_until_the_next_one() {
        let trace =
            Trace::parse("seconds,requests_per_second\n# morning\n0,10\n60,20,250,8,0.1\n\n120,0,,9\n")
                .unwrap();
        let first = Row { rate: 10.0, ..Row::default() };
        assert_eq!((trace.at(-1.0), trace.at(59.9)), (first, first));
        let row = Row {
            seconds: 60.0,
            rate: 20.0,
            service_ms: Some(250.0),
            cpu_ms: Some(8.0),
            error_rate: Some(0.1),
        };
        assert_eq!(trace.at(60.0), row);
        assert_eq!((trace.at(500.0).service_ms, trace.at(500.0).cpu_ms), (None, Some(9.0)));
        assert_eq!(trace.seconds(), 180);
    }

    #[test]
    fn errors_name_the_line() {
        for (text, expected) in [
            ("0,1\n60,x", "line 2: requests_per_second is not a number: \"x\""),
            ("0,1\n\n0,2", "line 3: seconds must rise: 0 after 0"),
            (
                "a,b\n0",
                "line 2: 1 columns; expected seconds,requests_per_second,service_ms,cpu_ms,error_rate",
            ),
            ("0,-1", "line 1: requests_per_second must be a number from 0 on: -1"),
            ("0,NaN", "line 1: requests_per_second must be a number from 0 on: NaN"),
            ("0,1,,,1.5", "line 1: error_rate must be at most 1: 1.5"),
            (",1", "line 1: seconds is missing"),
            ("a,b\nc,d", "line 2: seconds is not a number: \"c\""),
            (
                "",
                "the trace has no line: expected seconds,requests_per_second[,service_ms,cpu_ms,error_rate]",
            ),
        ] {
            assert_eq!(Trace::parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }
}
