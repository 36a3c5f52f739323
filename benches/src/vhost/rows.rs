//! The figures of a run, and what they say about the targets.

use std::fmt::Write;

/// Who reads what of which device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// `Pipe`: a queue for one thread, into buffers of the device's.
    OursPiped,
    /// The same in batches, each of which begins when the one before has ended.
    OursBatched,
    /// `Submitter`: calls that do not wait, into buffers of the device's.
    OursSubmitted,
    /// `Block::read_many`: a batch a call, into bytes of the caller's.
    OursMany,
    /// `Block::read_into`: a call at a time.
    OursInto,
    /// `Block::read`: the same with a copy.
    OursRead,
    /// `device::Queue`, driven by the caller.
    OursQueue,
    /// The crate `virtio-driver`, polling.
    VirtioDriver,
    /// A client in Python, by the worker's name for it.
    Python(&'static str),
}

impl Who {
    /// What the tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OursPiped => "virtio, Pipe",
            Self::OursBatched => "virtio, Pipe, in batches",
            Self::OursSubmitted => "virtio, Submitter::read_into",
            Self::OursMany => "virtio, Block::read_many",
            Self::OursInto => "virtio, Block::read_into",
            Self::OursRead => "virtio, Block::read",
            Self::OursQueue => "virtio, device::Queue",
            Self::VirtioDriver => "virtio-driver 0.6.1, polling",
            Self::Python("one") => "Python virtio.Block.readinto",
            Self::Python("batch") => "Python virtio.Block.read_many",
            Self::Python("aio") => "Python virtio.aio.Block.pread",
            Self::Python("pure") => "pure Python",
            Self::Python("prepared") => "pure Python, prepared",
            Self::Python("nbd") => "libnbd aio_pread",
            Self::Python("nbd-aio") => "libnbd in asyncio",
            Self::Python("pread") => "Python os.pread, tmpfs",
            Self::Python(other) => other,
        }
    }
}

/// The device that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    /// The null device.
    Null,
    /// `qemu-storage-daemon` over `null-co`.
    Qemu,
}

impl On {
    /// What the tables call it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Qemu => "QSD",
        }
    }
}

/// One series of figures.
#[derive(Debug)]
pub struct Series {
    /// Who reads.
    pub who: Who,
    /// What is read.
    pub on: On,
    /// Requests in flight.
    pub depth: u32,
    /// Requests a second, one figure a round.
    pub rates: Vec<f64>,
    /// Why there is none.
    pub missing: Option<String>,
}

impl Series {
    /// One that has no figure yet.
    #[must_use]
    pub fn new(who: Who, on: On, depth: u32) -> Self {
        Self { who, on, depth, rates: Vec::new(), missing: None }
    }

    /// By which it can be chosen.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} on {} at {}", self.who.name(), self.on.name(), self.depth)
    }

    /// The figure below which so much of all lie: 0.5 is the median.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<f64> {
        let mut sorted = self.rates.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        sorted.get((last as f64 * part).round() as usize).copied()
    }
}

/// All series that are measured, in the order of a round.
#[must_use]
pub fn series() -> Vec<Series> {
    use On::{Null, Qemu};
    use Who::{OursBatched, OursInto, OursMany, OursPiped, OursQueue, OursRead, OursSubmitted};
    use Who::{Python, VirtioDriver};
    let mut all = Vec::new();
    for depth in [32, 128] {
        for who in [VirtioDriver, OursPiped, OursSubmitted, OursQueue, OursMany] {
            all.push(Series::new(who, Null, depth));
        }
    }
    for who in [VirtioDriver, OursInto, OursRead, OursPiped, OursQueue] {
        all.push(Series::new(who, Null, 1));
    }
    for who in [VirtioDriver, OursPiped, OursSubmitted, OursQueue, OursMany] {
        all.push(Series::new(who, Qemu, 32));
    }
    for (who, depth) in [("pure", 1), ("prepared", 1), ("one", 1), ("pread", 1)] {
        all.push(Series::new(Python(who), Null, depth));
    }
    all.push(Series::new(OursBatched, Null, 32));
    for who in ["batch", "pure", "prepared"] {
        all.push(Series::new(Python(who), Null, 32));
    }
    for (who, depth) in [("nbd", 32), ("batch", 32), ("nbd-aio", 128), ("aio", 128)] {
        all.push(Series::new(Python(who), Qemu, depth));
    }
    all
}

/// A line of the table of targets.
#[derive(Debug)]
pub struct Row {
    /// What is measured.
    pub measure: &'static str,
    ours: (Who, On, u32),
    peer: (Who, On, u32),
    /// Whether it is times that are compared, so that less is better.
    times: bool,
    /// The ratio that has to be reached.
    pub must: f64,
    /// The ratio to be aimed at.
    pub aim: f64,
}

/// The targets.
#[must_use]
pub fn rows() -> Vec<Row> {
    use On::{Null, Qemu};
    use Who::{OursBatched, OursPiped, Python, VirtioDriver};
    let row = |measure, ours, peer, must, aim| Row { measure, ours, peer, times: false, must, aim };
    vec![
        row("Rust, null device, depth 32", (OursPiped, Null, 32), (VirtioDriver, Null, 32), 1.2, 1.5),
        row("Rust, null device, depth 128", (OursPiped, Null, 128), (VirtioDriver, Null, 128), 1.2, 1.5),
        Row {
            times: true,
            ..row(
                "Rust, null device, depth 1, default waiting (time)",
                (OursPiped, Null, 1),
                (VirtioDriver, Null, 1),
                1.1,
                0.9,
            )
        },
        row("Rust, QSD null-co, depth 32", (OursPiped, Qemu, 32), (VirtioDriver, Qemu, 32), 0.95, 1.0),
        row(
            "Python, null device, depth 1, x pure Python",
            (Python("one"), Null, 1),
            (Python("pure"), Null, 1),
            3.0,
            4.0,
        ),
        row(
            "Python, null device, batches of 32, x pure Python",
            (Python("batch"), Null, 32),
            (Python("pure"), Null, 32),
            9.0,
            9.0,
        ),
        row(
            "Python, null device, batches of 32, x the same in Rust",
            (Python("batch"), Null, 32),
            (OursBatched, Null, 32),
            0.6,
            0.8,
        ),
        row(
            "Python, null device, batches of 32, x a Pipe kept full",
            (Python("batch"), Null, 32),
            (OursPiped, Null, 32),
            0.6,
            0.8,
        ),
        row(
            "Python, QSD null-co, depth 32, x libnbd",
            (Python("batch"), Qemu, 32),
            (Python("nbd"), Qemu, 32),
            5.0,
            7.0,
        ),
        row(
            "asyncio, QSD null-co, 128 tasks, x libnbd",
            (Python("aio"), Qemu, 128),
            (Python("nbd-aio"), Qemu, 128),
            2.0,
            4.0,
        ),
    ]
}

impl Row {
    /// Ours in units of the peer's: the median of the rounds' own ratios, since what disturbs a round disturbs both.
    #[must_use]
    pub fn ratio(&self, all: &[Series]) -> Option<f64> {
        let rates = |of: (Who, On, u32)| all.iter().find(|s| (s.who, s.on, s.depth) == of).map(|s| &s.rates);
        let (ours, peer) = (rates(self.ours)?, rates(self.peer)?);
        let mut ratios: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| ours / peer).collect();
        ratios.sort_by(f64::total_cmp);
        let ratio = *ratios.get(ratios.len().checked_sub(1)? / 2)?;
        Some(if self.times { ratio.recip() } else { ratio })
    }

    /// One word for the line.
    #[must_use]
    pub fn verdict(&self, all: &[Series]) -> &'static str {
        let reached = |ratio: f64, limit: f64| if self.times { ratio <= limit } else { ratio >= limit };
        match self.ratio(all) {
            None => "not measured",
            Some(ratio) if reached(ratio, self.aim) => "met, and the aim",
            Some(ratio) if reached(ratio, self.must) => "met",
            Some(_) => "MISSED",
        }
    }

    fn limits(&self) -> [String; 2] {
        let sign = if self.times { "<=" } else { ">=" };
        [self.must, self.aim].map(|limit| format!("{sign} {limit:.2}"))
    }
}

/// The run for people.
#[must_use]
pub fn text(machine: &str, all: &[Series]) -> String {
    let mut out = format!("{machine}\n4 KiB random reads, thousands a second\n\n");
    let _ = writeln!(
        out,
        "{:<32} {:<6} {:>5} {:>9} {:>9} {:>9} {:>9}",
        "client", "device", "depth", "quartile", "median", "quartile", "best"
    );
    for s in all {
        let _ = write!(out, "{:<32} {:<6} {:>5}", s.who.name(), s.on.name(), s.depth);
        match (&s.missing, [0.25, 0.5, 0.75, 1.0].map(|part| s.quantile(part))) {
            (None, [Some(low), Some(median), Some(high), Some(best)]) => {
                let [low, median, high, best] = [low, median, high, best].map(|rate| rate / 1e3);
                let _ = writeln!(out, " {low:>9.1} {median:>9.1} {high:>9.1} {best:>9.1}");
            }
            (why, _) => {
                let _ = writeln!(out, " NOT MEASURED: {}", why.as_deref().unwrap_or("no round"));
            }
        }
    }
    let _ = writeln!(
        out,
        "\n{:<54} {:>8} {:>8} {:>8}",
        "target (median of the rounds' ratios)", "reached", "must", "aim"
    );
    for row in rows() {
        let reached = row.ratio(all).map_or("-".to_owned(), |ratio| format!("{ratio:.2}"));
        let [must, aim] = row.limits();
        let _ = writeln!(out, "{:<54} {reached:>8} {must:>8} {aim:>8}  {}", row.measure, row.verdict(all));
    }
    out
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace(['"', '\\', '\n'], "'"))
}

/// The run for programs.
#[must_use]
pub fn json(machine: &str, all: &[Series]) -> String {
    let series = all.iter().map(|s| {
        let rates = list(s.rates.iter().map(|rate| format!("{rate:.0}")));
        let missing = s.missing.as_deref().map_or("null".to_owned(), quoted);
        let (who, on) = (quoted(s.who.name()), quoted(s.on.name()));
        let depth = s.depth;
        format!(r#"{{"client":{who},"device":{on},"depth":{depth},"rates":[{rates}],"missing":{missing}}}"#)
    });
    let targets = rows().into_iter().map(|row| {
        let ratio = row.ratio(all).map_or("null".to_owned(), |ratio| format!("{ratio:.3}"));
        let (measure, verdict) = (quoted(row.measure), quoted(row.verdict(all)));
        let (must, aim, times) = (row.must, row.aim, row.times);
        format!(
            r#"{{"measure":{measure},"ratio":{ratio},"must":{must},"aim":{aim},"less_is_better":{times},"verdict":{verdict}}}"#
        )
    });
    format!(r#"{{"machine":{},"series":[{}],"targets":[{}]}}"#, quoted(machine), list(series), list(targets))
}
