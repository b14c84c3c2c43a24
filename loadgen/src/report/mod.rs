//! What a run measured, and how it is told: on the terminal, as JSON, as one HTML page.

pub mod tally;
