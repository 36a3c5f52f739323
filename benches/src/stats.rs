//! Figures of many rounds.

/// The lower quartile: what a run is judged by. Interruptions only ever add time, so a median would measure
/// the machine's other work.
///
/// # Panics
/// There is no figure.
#[must_use]
pub fn lower_quartile(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) / 4]
}
