//! What holds for any text and any sequence of negotiations.
