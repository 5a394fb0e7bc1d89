//! Medians over the rounds, as plain tables.

use std::fmt;
use std::time::Duration;

use crate::Options;
use crate::drive::Outcome;

/// What the run was, and how to read its tables.
pub(crate) fn header(options: &Options, sync: Duration) -> String {
    let Options {
        connections,
        rounds,
        window,
        ..
    } = options;
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let sync = millis(sync);
    format!(
        "{connections} connections, {rounds} rounds of at most {window} s, medians; {cores} cores shared with the \
         generator\na 4 KiB append and sync on this disk: {sync:.2} ms\n\
         ms: of one request; cpu: the server's, user and system; of floor: requests per CPU-second, by round\n"
    )
}

/// The same for the comparisons of depth.
pub(crate) fn depth_header(connections: u16) -> String {
    format!(
        "{connections} connections; p50 of one request in ms, all connections sending the same operation\n"
    )
}

/// One window of one server.
#[derive(Debug)]
struct Window {
    requests: f64,
    cycles: f64,
    seconds: f64,
    cpu_seconds: f64,
    p50: f64,
    p99: f64,
    bytes: f64,
}

impl Window {
    fn new(outcome: &Outcome, cpu: Duration) -> Self {
        Self {
            requests: outcome.latencies.len() as f64,
            cycles: outcome.cycles as f64,
            seconds: outcome.elapsed.as_secs_f64(),
            cpu_seconds: cpu.as_secs_f64(),
            p50: millis(percentile(&outcome.latencies, 50)),
            p99: millis(percentile(&outcome.latencies, 99)),
            bytes: outcome.received as f64,
        }
    }

    fn requests_per_cpu_second(&self) -> f64 {
        self.requests / self.cpu_seconds
    }
}

/// The windows of one scenario, by server.
#[derive(Debug)]
pub(crate) struct Table {
    title: &'static str,
    rows: Vec<(String, Vec<Window>)>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Self {
        Self {
            title,
            rows: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, server: &str, outcome: &Outcome, cpu: Duration) {
        let window = Window::new(outcome, cpu);
        match self.rows.iter_mut().find(|(name, _)| name == server) {
            Some((_, windows)) => windows.push(window),
            None => self.rows.push((server.to_owned(), vec![window])),
        }
    }

    /// The share of the floor's requests per CPU-second, round by round, since the rounds are what was interleaved.
    fn of_floor(&self, windows: &[Window]) -> Option<f64> {
        let (_, floor) = self.rows.iter().find(|(name, _)| name == "floor")?;
        let shares = windows.iter().zip(floor).map(|(window, floor)| {
            100.0 * window.requests_per_cpu_second() / floor.requests_per_cpu_second()
        });
        Some(median(shares))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        writeln!(
            f,
            "  {:<12}{:>12}{:>11}{:>9}{:>9}{:>17}{:>16}{:>10}{:>14}",
            "server",
            "requests/s",
            "cycles/s",
            "p50 ms",
            "p99 ms",
            "cpu s/1000 req",
            "req/cpu s",
            "of floor",
            "bytes/answer"
        )?;
        for (server, windows) in &self.rows {
            let of = |value: fn(&Window) -> f64| median(windows.iter().map(value));
            let share = self.of_floor(windows);
            writeln!(
                f,
                "  {server:<12}{:>12.0}{:>11.0}{:>9.2}{:>9.2}{:>17.4}{:>16.0}{:>10}{:>14.0}",
                of(|window| window.requests / window.seconds),
                of(|window| window.cycles / window.seconds),
                of(|window| window.p50),
                of(|window| window.p99),
                of(|window| 1000.0 * window.cpu_seconds / window.requests),
                of(Window::requests_per_cpu_second),
                share.map_or_else(|| "-".to_owned(), |share| format!("{share:.0} %")),
                of(|window| window.bytes / window.requests),
            )?;
        }
        Ok(())
    }
}

/// The value below which `percent` of the ascending times are; zero of none.
pub(crate) fn percentile(ascending: &[Duration], percent: usize) -> Duration {
    let position = ascending.len() * percent / 100;
    ascending.get(position).copied().unwrap_or_default()
}

/// A time as the tables show it.
pub(crate) fn millis(time: Duration) -> f64 {
    1000.0 * time.as_secs_f64()
}

/// The middle value; of an even number of them the upper one.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
