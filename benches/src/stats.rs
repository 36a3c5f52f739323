//! Figures of many rounds.

/// The lower quartile, for times: interruptions only ever add to them, so that a median would measure the machine's other
/// work.
///
/// # Panics
/// There is no figure.
#[must_use]
pub fn lower_quartile(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 4]
}

/// The median, for what is more or less on either side of it: ratios of two times of one round.
///
/// # Panics
/// There is no figure.
#[must_use]
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    (sorted[(sorted.len() - 1) / 2] + sorted[sorted.len() / 2]) / 2.0
}
