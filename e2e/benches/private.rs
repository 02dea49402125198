//! What a private write costs beside a public one.
//!
//! Starts `load` on free ports and drives it with `consort load`, private and public writes of 1 KB in turns, so that whatever else the
//! machine does meets both. Private writes go to collection `shared` of both organisations.
//! `cargo bench -p consort-e2e --bench private` runs it.

use anyhow::{Context, Result};
use consort_bench::Figure;
use consort_e2e::Network;

/// Turns of each workload; the median counts.
const TURNS: usize = 3;

fn main() -> Result<()> {
    // `cargo test --benches` runs this with --test: then it only has to build.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let network = Network::start("load")?;
    let (mut public, mut private) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        public.push(rate(&network, "put")?);
        private.push(rate(&network, "private")?);
    }
    let (public, private) = (median(public), median(private));
    println!("{:<50} {public:>9.1} per second", "public writes of 1 KB");
    println!("{:<50} {private:>9.1} per second", "private writes of 1 KB to one collection");
    let figure = Figure::new("private writes of 1 KB", private, "tx/s").at_least(public / 2.0);
    figure.limit("public writes of 1 KB", public).record();
    println!("{:<50} {:>9.2}   (wanted: at least 0.5)", "private / public", private / public);
    Ok(())
}

fn rate(network: &Network, workload: &str) -> Result<f64> {
    let report = network.json(&[
        "load",
        workload,
        "--size",
        "1024",
        "--clients",
        "64",
        "--duration",
        "8",
        "--warm-up",
        "2",
    ])?;
    report["valid_per_second"].as_f64().with_context(|| format!("no rate in {report}"))
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_unstable_by(f64::total_cmp);
    rates[rates.len() / 2]
}
