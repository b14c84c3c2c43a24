//! What a run measured, and how it is told: on the terminal, as JSON, as one HTML page.
//!
//! `tally` counts, `beside` has what is measured beside the media, `series` keeps one moment a second, `process` and `metrics` read what the
//! server and this process used; `make` turns these into a `Report` (`summary`), which `verdict`,
//! `objective`, `figures`, `table`, `html` and `compare` only read. `ramp` searches.

pub mod beside;
pub mod chart;
pub mod compare;
pub mod compare_page;
pub mod compare_table;
pub mod figures;
pub mod html;
pub mod make;
pub mod metrics;
pub mod number;
pub mod objective;
pub mod process;
pub mod progress;
pub mod ramp;
#[cfg(test)]
mod samples;
pub mod series;
pub mod summary;
pub mod table;
pub mod tally;
pub mod verdict;
