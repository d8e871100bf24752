//! A picture of a run: load, demand and replicas, score, violations over time. One file, readable on light and dark
//! ground, without fonts or scripts from elsewhere.

use std::fmt::Write as _;

use super::{measure::Second, scalers::Kind};

const WIDTH: f64 = 1000.0;
const LEFT: f64 = 64.0;
const PLOT: f64 = WIDTH - LEFT - 32.0;
const PANEL: f64 = 150.0;
const GAP: f64 = 46.0;
const TOP: f64 = 64.0;
/// Points of a line at the most.
const POINTS: usize = 500;

/// Colours that can be told apart, by eyes that see fewer colours too (after Okabe and Ito); `demand` is the ground's
/// own contrast.
const STYLE: &str = "
svg{background:#fff;font:13px system-ui,sans-serif}
text{fill:#222}.axis{stroke:#bbb;stroke-width:1}.line{fill:none;stroke-width:1.6}
.demand{stroke:#222;stroke-dasharray:4 3}.load{stroke:#777}
.s0{stroke:#0072b2}.s1{stroke:#d55e00}.s2{stroke:#009e73}.s3{stroke:#aa4499}.s4{stroke:#b8860b}.s5{stroke:#56b4e9}.s6{stroke:#882255}
@media(prefers-color-scheme:dark){svg{background:#161616}text{fill:#ddd}.axis{stroke:#555}.demand{stroke:#eee}.load{stroke:#aaa}
.s0{stroke:#4aa8e0}.s1{stroke:#ff8c42}.s2{stroke:#3fd0a4}.s3{stroke:#dd88cc}.s4{stroke:#e6b422}.s5{stroke:#9bd7ff}.s6{stroke:#e07ba0}}
";

/// A line of a panel: its style, and its value by second; gaps where there is none.
struct Line<'a> {
    class: String,
    values: Box<dyn Fn(usize) -> Option<f64> + 'a>,
    /// How the seconds of a point become one value.
    fold: Fold,
}

#[derive(Clone, Copy, PartialEq)]
enum Fold {
    Mean,
    Last,
}

/// Draws the runs of one scenario.
pub(super) fn draw(title: &str, runs: &[(Kind, &[Second])]) -> String {
    let n = runs.first().map_or(0, |(_, seconds)| seconds.len());
    let height = TOP + 4.0 * (PANEL + GAP);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{t}\">\n\
         <title>{t}</title>\n<style>{STYLE}</style>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"16\">{t}</text>\n",
        t = escape(title)
    );
    legend(&mut out, runs);
    let first: &[Second] = runs.first().map_or(&[], |(_, seconds)| seconds);
    let one = |class: &str, fold, values: Box<dyn Fn(usize) -> Option<f64>>| Line {
        class: class.into(),
        values,
        fold,
    };
    let (offered, demand): (Vec<f64>, Vec<f64>) =
        first.iter().map(|s| (f64::from(s.offered), s.demand)).unzip();
    let load = vec![one("load", Fold::Mean, Box::new(move |i| Some(offered[i])))];
    panel(&mut out, 0, "calls per second", n, &load);
    let mut replicas = vec![one("demand", Fold::Last, Box::new(move |i| Some(demand[i])))];
    replicas.extend(lines(runs, Fold::Last, |s| Some(f64::from(s.ready))));
    panel(&mut out, 1, "ready pods (dashed: needed)", n, &replicas);
    panel(
        &mut out,
        2,
        "score: demand / replicas, as the policy sees it",
        n,
        &lines(runs, Fold::Mean, |s| s.score),
    );
    let share = |s: &Second| (s.offered > 0).then(|| 100.0 * f64::from(s.bad) / f64::from(s.offered));
    panel(&mut out, 3, "calls that were late or got no place, %", n, &lines(runs, Fold::Mean, share));
    out.push_str("</svg>\n");
    out
}

fn lines<'a>(
    runs: &'a [(Kind, &'a [Second])],
    fold: Fold,
    value: impl Fn(&Second) -> Option<f64> + Copy + 'a,
) -> Vec<Line<'a>> {
    let line = |(i, (_, seconds)): (usize, &'a (Kind, &'a [Second]))| Line {
        class: format!("s{i}"),
        values: Box::new(move |at| value(&seconds[at])),
        fold,
    };
    runs.iter().enumerate().map(line).collect()
}

fn legend(out: &mut String, runs: &[(Kind, &[Second])]) {
    for (i, (kind, _)) in runs.iter().enumerate() {
        let x = LEFT + 130.0 * i as f64;
        let _ = writeln!(
            out,
            "<line class=\"line s{i}\" x1=\"{x}\" y1=\"40\" x2=\"{}\" y2=\"40\"/><text x=\"{}\" y=\"44\">{}</text>",
            x + 18.0,
            x + 24.0,
            kind.name()
        );
    }
}

fn panel(out: &mut String, index: usize, title: &str, n: usize, lines: &[Line<'_>]) {
    let top = TOP + index as f64 * (PANEL + GAP) + 18.0;
    let bottom = top + PANEL;
    let points: Vec<Vec<Option<f64>>> = lines.iter().map(|line| thin(n, line)).collect();
    let most = points.iter().flatten().flatten().copied().fold(0.0, f64::max);
    let most = nice(most);
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", top - 6.0, escape(title));
    for share in [0.0, 0.5, 1.0] {
        let y = bottom - share * PANEL;
        let _ = writeln!(
            out,
            "<line class=\"axis\" x1=\"{LEFT}\" y1=\"{y}\" x2=\"{}\" y2=\"{y}\"/>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT + PLOT,
            LEFT - 6.0,
            y + 4.0,
            most * share
        );
    }
    for quarter in 0..=4 {
        let x = LEFT + PLOT * f64::from(quarter) / 4.0;
        let minutes = n as f64 * f64::from(quarter) / 4.0 / 60.0;
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{minutes:.0} min</text>",
            bottom + 15.0
        );
    }
    for (line, values) in lines.iter().zip(&points) {
        let _ = write!(out, "<path class=\"line {}\" d=\"", line.class);
        let mut pen = 'M';
        for (i, value) in values.iter().enumerate() {
            let Some(value) = value else {
                pen = 'M';
                continue;
            };
            let x = LEFT + PLOT * i as f64 / (values.len().max(2) - 1) as f64;
            let _ = write!(out, "{pen}{x:.1} {:.1}", bottom - PANEL * (value / most).clamp(0.0, 1.0));
            pen = 'L';
        }
        out.push_str("\"/>\n");
    }
}

/// No more points than can be seen.
fn thin(n: usize, line: &Line<'_>) -> Vec<Option<f64>> {
    let step = n.div_ceil(POINTS).max(1);
    let point = |from: usize| {
        let values: Vec<f64> = (from..(from + step).min(n)).filter_map(|i| (line.values)(i)).collect();
        match line.fold {
            Fold::Last => values.last().copied(),
            Fold::Mean => (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64),
        }
    };
    (0..n).step_by(step).map(point).collect()
}

/// The next greater number of 1, 2, 4, 5, 8 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 0.0 || !value.is_finite() {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|n| n * power)
        .find(|n| *n >= value)
        .unwrap_or(10.0 * power)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_whole_and_small() {
        let seconds: Vec<Second> = (0..3600)
            .map(|i| Second {
                offered: i % 90,
                ready: i / 600,
                demand: 3.0,
                score: Some(1.0),
                ..Second::default()
            })
            .collect();
        let svg = draw("a <title> & more", &[(Kind::Balanced, &seconds), (Kind::Kpa, &seconds)]);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        assert!(
            svg.contains("a &lt;title&gt; &amp; more") && svg.contains("balanced") && svg.contains("kpa")
        );
        assert!(svg.contains("prefers-color-scheme:dark"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "every coordinate is a number");
        assert!(!svg.contains("<script") && !svg.contains("href") && svg.len() < 200_000, "{}", svg.len());
        assert_eq!(svg.matches("<path").count(), 1 + 3 + 2 + 2);
    }

    #[test]
    fn scales_end_at_round_numbers() {
        for (value, expected) in
            [(0.0, 1.0), (0.7, 0.8), (3.0, 4.0), (9.0, 10.0), (41.0, 50.0), (350.0, 400.0)]
        {
            assert!((nice(value) - expected).abs() < 1e-9, "{value}");
        }
    }
}
