//! A caller that answers from a script, and an endpoint that only counts: what the sequences
//! of the dialects are tested with.
