//! A page that shows latency and throughput over time; it needs no other file.

use std::fmt::Write as _;

use super::recorder::milliseconds;
use super::report::Report;

/// Size of a drawing in its own units.
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;

/// Room for the numbers beside a drawing.
const MARGIN: f64 = 60.0;

/// One line of a drawing.
struct Line {
    name: &'static str,
    colour: &'static str,
    values: Vec<f64>,
}

/// The page as HTML.
pub(crate) fn render(report: &Report) -> String {
    let seconds = report.time_line();
    let latency =
        |percentile| seconds.iter().map(|second| milliseconds(&second.latency, percentile)).collect();
    #[expect(clippy::cast_precision_loss, reason = "a second holds far fewer than 2^52 transactions")]
    let rate = |count: fn(&super::recorder::Second) -> u64| {
        seconds.iter().map(|second| count(second) as f64).collect()
    };
    let throughput = drawing(&[
        Line { name: "valid", colour: "#1f6f43", values: rate(|second| second.valid) },
        Line { name: "invalid", colour: "#b8860b", values: rate(|second| second.invalid) },
        Line { name: "failed", colour: "#b22222", values: rate(|second| second.failed) },
    ]);
    let latency = drawing(&[
        Line { name: "p50", colour: "#1f4e79", values: latency(50.0) },
        Line { name: "p99", colour: "#8b3a62", values: latency(99.0) },
    ]);
    let setting = escape(&report.headline());
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>Load run</title>\n\
         <style>body{{font:15px sans-serif;margin:2em auto;max-width:960px}}pre{{background:#f4f4f4;padding:1em;overflow:auto}}svg{{width:100%}}text{{font:12px sans-serif}}</style>\n\
         </head><body><h1>Load run</h1>\n<p>{setting}</p>\n<h2>Transactions per second</h2>\n{throughput}\n<h2>Latency in milliseconds</h2>\n{latency}\n\
         <h2>Figures</h2>\n<pre>{}</pre>\n</body></html>\n",
        escape(&report.text())
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Lines over the seconds of the run, with a scale and a legend.
fn drawing(lines: &[Line]) -> String {
    let top = lines.iter().flat_map(|line| &line.values).copied().fold(1.0, f64::max);
    let mut svg = format!("<svg viewBox=\"0 0 {} {}\" role=\"img\">", WIDTH + MARGIN, HEIGHT + 56.0);
    let digits = if top < 10.0 { 2 } else { 0 };
    for share in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let y = HEIGHT - HEIGHT * share + 10.0;
        let value = top * share;
        let _ = write!(
            svg,
            "<line x1=\"{MARGIN}\" y1=\"{y:.1}\" x2=\"{}\" y2=\"{y:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.digits$}</text>",
            WIDTH + MARGIN,
            MARGIN - 6.0,
            y + 4.0
        );
    }
    svg.push_str(&seconds(lines.iter().map(|line| line.values.len()).max().unwrap_or(0)));
    for (number, line) in lines.iter().enumerate() {
        #[expect(clippy::cast_precision_loss, reason = "a drawing has few points and lines")]
        let points: Vec<String> = line
            .values
            .iter()
            .enumerate()
            .map(|(second, value)| {
                let x = MARGIN + WIDTH * (second as f64 + 0.5) / line.values.len() as f64;
                format!("{x:.1},{:.1}", HEIGHT - HEIGHT * value / top + 10.0)
            })
            .collect();
        let _ = write!(
            svg,
            "<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"{}\"/>",
            line.colour,
            points.join(" ")
        );
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\" fill=\"{}\">{}</text>",
            MARGIN + 90.0 * f64::from(u8::try_from(number).unwrap_or(u8::MAX)),
            HEIGHT + 48.0,
            line.colour,
            line.name
        );
    }
    svg.push_str("</svg>");
    svg
}

/// The scale of the time: the seconds of the run at its quarters.
fn seconds(count: usize) -> String {
    let mut svg = String::new();
    let digits = if count.is_multiple_of(4) { 0 } else { 1 };
    for quarter in 0..=4 {
        #[expect(clippy::cast_precision_loss, reason = "a run has few seconds")]
        let (share, second) = (f64::from(quarter) / 4.0, count as f64 * f64::from(quarter) / 4.0);
        let x = MARGIN + WIDTH * share;
        let anchor = if quarter == 4 { "end" } else { "middle" };
        let _ = write!(
            svg,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"{anchor}\">{second:.digits$} s</text>",
            HEIGHT + 28.0
        );
    }
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_holds_every_line_and_its_largest_value() {
        let lines = [
            Line { name: "p50", colour: "red", values: vec![1.0, 40.0] },
            Line { name: "p99", colour: "blue", values: vec![] },
        ];
        let svg = drawing(&lines);
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.contains(">40</text>") && svg.contains(">p99</text>"), "{svg}");
        assert!(svg.contains(">0.0 s</text>") && svg.contains(">2.0 s</text>"), "{svg}");
    }
}
