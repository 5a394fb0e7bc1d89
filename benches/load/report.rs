//! Medians over the rounds, as plain tables.

use std::fmt;
use std::time::Duration;

use crate::Options;
use crate::drive::Outcome;
use crate::server::Cost;

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
         ms: of one request; cpu: the server's, user and system; shares: of requests per second or per CPU-second, by \
         round\n"
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
pub(crate) struct Window {
    requests: f64,
    /// Those of the requests that were refused.
    refused: u64,
    cycles: f64,
    seconds: f64,
    front_seconds: f64,
    behind_seconds: f64,
    p50: f64,
    p99: f64,
    bytes: f64,
}

impl Window {
    pub(crate) fn new(outcome: &Outcome, cost: Cost, refused: u64) -> Self {
        Self {
            refused,
            requests: outcome.latencies.len() as f64,
            cycles: outcome.cycles as f64,
            seconds: outcome.elapsed.as_secs_f64(),
            front_seconds: cost.front.as_secs_f64(),
            behind_seconds: cost.behind.as_secs_f64(),
            p50: millis(percentile(&outcome.latencies, 50)),
            p99: millis(percentile(&outcome.latencies, 99)),
            bytes: outcome.received as f64,
        }
    }

    fn requests_per_second(&self) -> f64 {
        self.requests / self.seconds
    }

    /// Of the front and what it works on together.
    fn requests_per_cpu_second(&self) -> f64 {
        self.requests / (self.front_seconds + self.behind_seconds)
    }

    fn cycles_per_second(&self) -> f64 {
        self.cycles / self.seconds
    }

    fn cycles_per_cpu_second(&self) -> f64 {
        self.cycles / (self.front_seconds + self.behind_seconds)
    }

    fn requests_per_front_second(&self) -> f64 {
        self.requests / self.front_seconds
    }

    /// What so many processor seconds come to for a thousand requests.
    fn per_thousand(&self, seconds: f64) -> f64 {
        1000.0 * seconds / self.requests
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

    pub(crate) fn add(&mut self, server: &str, window: Window) {
        match self.rows.iter_mut().find(|(name, _)| name == server) {
            Some((_, windows)) => windows.push(window),
            None => self.rows.push((server.to_owned(), vec![window])),
        }
    }

    /// How many times another server's value this one's is, round by round, since the rounds are what was interleaved.
    fn times(&self, other: &str, windows: &[Window], value: fn(&Window) -> f64) -> Option<f64> {
        let (_, others) = self.rows.iter().find(|(name, _)| name == other)?;
        let pairs = windows.iter().zip(others);
        Some(median(pairs.map(|(one, other)| value(one) / value(other))))
    }

    fn share(&self, other: &str, windows: &[Window], value: fn(&Window) -> f64) -> String {
        let share = self.times(other, windows, value);
        share.map_or_else(|| "-".to_owned(), |share| format!("{:.0} %", 100.0 * share))
    }

    /// Where servers work on Redis, what it costs is told apart, and they are set beside the baseline that works on it.
    fn write_on_redis(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<12}{:>11}{:>9}{:>9} |{:>8}{:>8}{:>8} |{:>8}{:>8}{:>8} |{:>10} |{:>13}",
            "",
            "",
            "p50",
            "p99",
            "cpu s",
            "/1000",
            "req",
            "of the",
            "redis",
            "baseline",
            "times the",
            "bytes"
        )?;
        writeln!(
            f,
            "  {:<12}{:>11}{:>9}{:>9} |{:>8}{:>8}{:>8} |{:>8}{:>8}{:>8} |{:>10} |{:>13}",
            "server",
            "requests/s",
            "ms",
            "ms",
            "front",
            "redis",
            "both",
            "req/s",
            "front",
            "both",
            "reference",
            "/answer"
        )?;
        for (server, windows) in &self.rows {
            let of = |value: fn(&Window) -> f64| median(windows.iter().map(value));
            let share = |value| self.share("redis-baseline", windows, value);
            let times = self.times("reference", windows, Window::requests_per_cpu_second);
            writeln!(
                f,
                "  {server:<12}{:>11.0}{:>9.2}{:>9.2} |{:>8.4}{:>8.4}{:>8.4} |{:>8}{:>8}{:>8} |{:>10} |{:>13.0}",
                of(Window::requests_per_second),
                of(|window| window.p50),
                of(|window| window.p99),
                of(|window| window.per_thousand(window.front_seconds)),
                of(|window| window.per_thousand(window.behind_seconds)),
                of(|window| window.per_thousand(window.front_seconds + window.behind_seconds)),
                share(Window::requests_per_second),
                share(Window::requests_per_front_second),
                share(Window::requests_per_cpu_second),
                times.map_or_else(|| "-".to_owned(), |times| format!("{times:.1}")),
                of(|window| window.bytes / window.requests),
            )?;
        }
        for (server, windows) in &self.rows {
            let refused: u64 = windows.iter().map(|window| window.refused).sum();
            let requests: f64 = windows.iter().map(|window| window.requests).sum();
            if refused > 0 {
                writeln!(
                    f,
                    "  {server} refused {refused} of its {requests} requests with 503"
                )?;
            }
        }
        Ok(())
    }

    /// Where servers work on RabbitMQ they are set beside the bare client, and beside RabbitMQ's own API, by cycles.
    fn write_on_rabbit(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {:<14}{:>10}{:>9}{:>9} |{:>9}{:>10}{:>8} |{:>13}{:>10} |{:>10}{:>12}",
            "", "", "p50", "p99", "cpu s", "/1000", "cycles", "cycles", "of", "of", "times"
        )?;
        writeln!(
            f,
            "  {:<14}{:>10}{:>9}{:>9} |{:>9}{:>10}{:>8} |{:>13}{:>10} |{:>10}{:>12}",
            "server",
            "cycles/s",
            "ms",
            "ms",
            "front",
            "rabbitmq",
            "both",
            "/cpu second",
            "baseline",
            "lapin",
            "management"
        )?;
        for (server, windows) in &self.rows {
            let of = |value: fn(&Window) -> f64| median(windows.iter().map(value));
            let share = |other| self.share(other, windows, Window::cycles_per_cpu_second);
            let times = self.times("management", windows, Window::cycles_per_cpu_second);
            let per_thousand = |value: fn(&Window) -> f64| {
                1000.0 * median(windows.iter().map(|it| value(it) / it.cycles))
            };
            writeln!(
                f,
                "  {server:<14}{:>10.0}{:>9.2}{:>9.2} |{:>9.4}{:>10.4}{:>8.4} |{:>13.0}{:>10} |{:>10}{:>12}",
                of(Window::cycles_per_second),
                of(|window| window.p50),
                of(|window| window.p99),
                per_thousand(|window| window.front_seconds),
                per_thousand(|window| window.behind_seconds),
                per_thousand(|window| window.front_seconds + window.behind_seconds),
                of(Window::cycles_per_cpu_second),
                share("baseline"),
                share("lapin"),
                times.map_or_else(|| "-".to_owned(), |times| format!("{times:.1}")),
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.title)?;
        let mut windows = self.rows.iter().flat_map(|(_, windows)| windows);
        if self.rows.iter().any(|(server, _)| server == "lapin") {
            return self.write_on_rabbit(f);
        }
        if windows.any(|window| window.behind_seconds > 0.0) {
            return self.write_on_redis(f);
        }
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
            "of baseline",
            "bytes/answer"
        )?;
        for (server, windows) in &self.rows {
            let of = |value: fn(&Window) -> f64| median(windows.iter().map(value));
            writeln!(
                f,
                "  {server:<12}{:>12.0}{:>11.0}{:>9.2}{:>9.2}{:>17.4}{:>16.0}{:>10}{:>14.0}",
                of(Window::requests_per_second),
                of(|window| window.cycles / window.seconds),
                of(|window| window.p50),
                of(|window| window.p99),
                of(|window| window.per_thousand(window.front_seconds)),
                of(Window::requests_per_cpu_second),
                self.share("baseline", windows, Window::requests_per_cpu_second),
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
