//! What the API relies on, case by case.
