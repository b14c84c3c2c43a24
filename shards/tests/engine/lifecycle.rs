//! Sessions and tracks come and go.
