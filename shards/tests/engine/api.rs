//! The Realtime API's cases, one by one.
