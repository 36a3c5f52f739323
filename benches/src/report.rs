//! The figures of a run, its validity and what it says about the targets.

use crate::contender::Mode;
use crate::stats::{lower_quartile, median};
use std::fmt::Write;

/// The unit of one thread.
pub const FLOOR: &str = "floor";
/// The peer that decides whether a run counts.
pub const VIRTIO_DRIVER: &str = "virtio-driver 0.6.1";
/// Our ring over the caller's raw memory.
pub const OURS: &str = "virtio";
/// Our ring with owned buffers.
pub const OURS_SAFE: &str = "virtio, owned DmaBuf";

/// What decides validity: one thread, three parts, batches of 32.
pub const REFERENCE: Mode = Mode::OneThread { parts: 3, batch: 32 };
/// Where the peer must stand in it, in floors.
const VALID: std::ops::RangeInclusive<f64> = 1.6..=2.0;

/// All figures of one contender in one mode, in ns a chain.
#[derive(Debug)]
struct Series {
    contender: String,
    mode: Mode,
    figures: Vec<f64>,
}

/// Everything that was measured in one run.
#[derive(Debug, Default)]
pub struct Run {
    series: Vec<Series>,
    round_trips: Vec<(Mode, f64)>,
    by_size: Vec<(String, u16, Vec<f64>)>,
    facts: Vec<(String, f64, f64)>,
}

/// A line of the table of targets.
#[derive(Debug)]
pub struct Target {
    /// What is measured.
    pub measure: String,
    /// What was reached, if it was measured.
    pub reached: Option<f64>,
    /// What the best peer reaches in the same run.
    pub peer: Option<f64>,
    /// Must be at most this.
    pub must: f64,
    /// Should be at most this.
    pub aim: f64,
}

impl Target {
    /// One word for the line.
    #[must_use]
    pub fn verdict(&self) -> &'static str {
        match self.reached {
            None => "not measured",
            Some(figure) if figure <= self.aim => "aim reached",
            Some(figure) if figure <= self.must => "must reached",
            Some(_) => "MISSED",
        }
    }
}

impl Run {
    /// Keeps one figure.
    pub fn record(&mut self, contender: &str, mode: Mode, figure: f64) {
        match self.series.iter_mut().find(|s| s.contender == contender && s.mode == mode) {
            Some(series) => series.figures.push(figure),
            None => {
                let contender = contender.to_owned();
                self.series.push(Series { contender, mode, figures: vec![figure] });
            }
        }
    }

    /// Keeps one figure of a cache line's round trip, taken just before those of a mode.
    pub fn record_round_trip(&mut self, mode: Mode, figure: f64) {
        self.round_trips.push((mode, figure));
    }

    /// Keeps one figure of a queue of another size.
    pub fn record_size(&mut self, contender: &str, size: u16, figure: f64) {
        match self.by_size.iter_mut().find(|(name, of, _)| name == contender && *of == size) {
            Some((_, _, figures)) => figures.push(figure),
            None => self.by_size.push((contender.to_owned(), size, vec![figure])),
        }
    }

    /// Keeps something that is counted, not timed, and the limit it must keep.
    pub fn record_fact(&mut self, what: &str, figure: f64, limit: f64) {
        self.facts.push((what.to_owned(), figure, limit));
    }

    /// A cache line's way there and back, in ns.
    #[must_use]
    pub fn round_trip(&self) -> Option<f64> {
        let trips: Vec<f64> = self.round_trips.iter().map(|&(_, trip)| trip).collect();
        (!trips.is_empty()).then(|| lower_quartile(&trips))
    }

    fn figures(&self, contender: &str, mode: Mode) -> Option<&[f64]> {
        let series = self.series.iter().find(|s| s.contender == contender && s.mode == mode)?;
        Some(&series.figures)
    }

    /// ns a chain.
    #[must_use]
    pub fn figure(&self, contender: &str, mode: Mode) -> Option<f64> {
        self.figures(contender, mode).map(lower_quartile)
    }

    /// The figure in the mode's unit, floors for one thread, line round trips for two cores: of the rounds' own ratios
    /// the median, because a machine that is slow for seconds is slow for both sides of a round.
    #[must_use]
    pub fn ratio(&self, contender: &str, mode: Mode) -> Option<f64> {
        let trips = self.round_trips.iter().filter(|(before, _)| *before == mode).map(|&(_, trip)| trip);
        let trips: Vec<f64> = trips.collect();
        let units = if mode.crosses() { &trips } else { self.figures(FLOOR, mode)? };
        let figures = self.figures(contender, mode)?;
        assert_eq!(figures.len(), units.len(), "each round has a figure of both");
        let ratios: Vec<f64> = figures.iter().zip(units).map(|(figure, unit)| figure / unit).collect();
        (!ratios.is_empty()).then(|| median(&ratios))
    }

    /// Whether the run counts, and where the deciding peer stands.
    #[must_use]
    pub fn validity(&self) -> (bool, Option<f64>) {
        let stands = self.ratio(VIRTIO_DRIVER, REFERENCE);
        (stands.is_some_and(|ratio| VALID.contains(&ratio)), stands)
    }

    fn best_peer(&self, mode: Mode) -> Option<f64> {
        let peers = self.series.iter().filter(|s| s.mode == mode && s.contender.starts_with("virtio-driver"));
        peers.filter_map(|s| self.ratio(&s.contender, mode)).min_by(f64::total_cmp)
    }

    /// The dearest size of a contender's queue, in units of the cheapest.
    #[must_use]
    pub fn size_spread(&self, contender: &str) -> Option<f64> {
        let of = self.by_size.iter().filter(|(name, ..)| name == contender);
        let figures: Vec<f64> = of.map(|(_, _, figures)| lower_quartile(figures)).collect();
        let dearest = figures.iter().copied().max_by(f64::total_cmp)?;
        let cheapest = figures.iter().copied().min_by(f64::total_cmp)?;
        Some(dearest / cheapest)
    }

    /// The table of targets.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        let b1 = Mode::OneThread { parts: 3, batch: 1 };
        let (across_b32, across_b1) =
            (Mode::Across { parts: 3, batch: 32 }, Mode::Across { parts: 3, batch: 1 });
        let rows = [
            (OURS, "raw memory", REFERENCE, 1.6, 1.2),
            (OURS, "raw memory", b1, 2.0, 1.4),
            (OURS, "raw memory", across_b32, 0.5, 0.4),
            (OURS, "raw memory", across_b1, 5.0, 4.2),
            (OURS_SAFE, "owned DmaBuf", REFERENCE, 2.0, 1.5),
            (OURS_SAFE, "owned DmaBuf", b1, 2.6, 1.9),
        ];
        let row = |(contender, what, mode, must, aim): (&str, &str, Mode, f64, f64)| Target {
            measure: format!("{what}: {mode}, x {}", if mode.crosses() { "P" } else { "floor" }),
            reached: self.ratio(contender, mode),
            peer: if contender == OURS { self.best_peer(mode) } else { None },
            must,
            aim,
        };
        let mut targets: Vec<Target> = rows.into_iter().map(row).collect();
        targets.push(Target {
            measure: "cost per chain, queue of 16 to 4,096: dearest / cheapest".to_owned(),
            reached: self.size_spread(OURS),
            peer: None,
            must: 1.5,
            aim: 1.2,
        });
        targets.extend(self.facts.iter().map(|(what, figure, limit)| Target {
            measure: what.clone(),
            reached: Some(*figure),
            peer: None,
            must: *limit,
            aim: *limit,
        }));
        targets
    }

    fn contenders(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for series in &self.series {
            if !names.contains(&series.contender.as_str()) {
                names.push(&series.contender);
            }
        }
        names
    }

    fn modes(&self, crossing: bool) -> Vec<Mode> {
        let mut modes: Vec<Mode> = Vec::new();
        for series in &self.series {
            if series.mode.crosses() == crossing && !modes.contains(&series.mode) {
                modes.push(series.mode);
            }
        }
        modes
    }

    /// The run as tables for people.
    #[must_use]
    pub fn text(&self, machine: &str) -> String {
        let mut out = format!(
            "{machine}\nns a chain, lower quartile; in brackets the median of the rounds' own ratios\n"
        );
        for (crossing, unit) in [(false, "x floor"), (true, "x P")] {
            self.text_grid(&mut out, crossing, unit);
        }
        self.text_sizes(&mut out);
        let _ = writeln!(out, "\n{:<62} {:>9} {:>9} {:>6} {:>6}", "target", "peer", "reached", "must", "aim");
        let number = |value: Option<f64>| value.map_or("-".to_owned(), short);
        for t in self.targets() {
            let (peer, reached) = (number(t.peer), number(t.reached));
            let (must, aim) = (short(t.must), short(t.aim));
            let _ =
                writeln!(out, "{:<62} {peer:>9} {reached:>9} {must:>6} {aim:>6}  {}", t.measure, t.verdict());
        }
        let (valid, stands) = self.validity();
        let (stands, counts) =
            (number(stands), if valid { "this run counts" } else { "THIS RUN DOES NOT COUNT" });
        let _ = writeln!(out, "\n{VIRTIO_DRIVER} in {REFERENCE}: {stands} x floor (1.8 +- 0.2): {counts}");
        out
    }

    fn text_grid(&self, out: &mut String, crossing: bool, unit: &str) {
        let modes = self.modes(crossing);
        if modes.is_empty() {
            return;
        }
        let _ = write!(out, "\n{:<28}", unit);
        for mode in &modes {
            let _ = write!(out, "{:>22}", mode.to_string());
        }
        out.push('\n');
        for name in self.contenders() {
            let _ = write!(out, "{name:<28}");
            for &mode in &modes {
                let cell = self.figure(name, mode).zip(self.ratio(name, mode));
                let cell = cell.map_or("-".to_owned(), |(ns, ratio)| format!("{ns:.1} ({ratio:.2})"));
                let _ = write!(out, "{cell:>22}");
            }
            out.push('\n');
        }
        if let (true, Some(ns)) = (crossing, self.round_trip()) {
            let _ = writeln!(out, "{:<28}{:>22}", "P: cache line round trip", format!("{ns:.1}"));
        }
    }

    fn text_sizes(&self, out: &mut String) {
        let mut last = "";
        for (name, size, figures) in &self.by_size {
            if name != last {
                let _ = write!(out, "\nqueue size, one thread c3 b4: {name:<24}");
                last = name;
            }
            let _ = write!(out, " {size}: {:.1}", lower_quartile(figures));
        }
        if !last.is_empty() {
            out.push('\n');
        }
    }

    /// The run for programs.
    #[must_use]
    pub fn json(&self, machine: &str) -> String {
        let cells = self.series.iter().map(|s| {
            let ratio = json_number(self.ratio(&s.contender, s.mode));
            let ns = lower_quartile(&s.figures);
            format!(r#"{{"contender":"{}","mode":"{}","ns":{ns:.2},"ratio":{ratio}}}"#, s.contender, s.mode)
        });
        let sizes = self.by_size.iter().map(|(name, size, figures)| {
            format!(r#"{{"contender":"{name}","size":{size},"ns":{:.2}}}"#, lower_quartile(figures))
        });
        let targets = self.targets().into_iter().map(|t| {
            let (reached, peer) = (json_number(t.reached), json_number(t.peer));
            let (measure, must, aim, verdict) = (&t.measure, t.must, t.aim, t.verdict());
            format!(
                r#"{{"measure":"{measure}","peer":{peer},"reached":{reached},"must":{must},"aim":{aim},"verdict":"{verdict}"}}"#
            )
        });
        let (valid, stands) = self.validity();
        format!(
            r#"{{"machine":"{}","valid":{valid},"reference":{},"round_trip_ns":{},"cells":[{}],"sizes":[{}],"targets":[{}]}}"#,
            machine.replace(['"', '\\'], "'"),
            json_number(stands),
            json_number(self.round_trip()),
            list(cells),
            list(sizes),
            list(targets),
        )
    }
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

fn json_number(value: Option<f64>) -> String {
    value.map_or("null".to_owned(), |v| format!("{v:.3}"))
}

/// Two places for ratios, none for counts.
fn short(value: f64) -> String {
    if value >= 1000.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
