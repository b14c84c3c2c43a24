//! A complete request, as `conn` hands it out.
//!
//! Invariants: its sizes are within [`crate::limits`]; its debug form tells no token and no body.
//!
//! Not here: header lines nobody reads; they are checked and dropped with the head.

use std::fmt;
use std::net::IpAddr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    /// Any other, well-formed.
    Other,
}

impl Method {
    pub(crate) fn from_token(token: &str) -> Self {
        match token {
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "POST" => Self::Post,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "OPTIONS" => Self::Options,
            _ => Self::Other,
        }
    }
}

#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// Path and query, or an absolute URI, as sent.
    pub target: String,
    /// The `Authorization` header, when there is exactly one.
    pub authorization: Option<String>,
    /// The `Host` header, when there is exactly one.
    pub host: Option<String>,
    /// A header says that a proxy passed it on.
    pub passed_on: bool,
    pub body: Vec<u8>,
}

impl Request {
    /// Whether whoever asks named this machine by a loopback address, and no proxy admits to
    /// having passed it on. Not all do: nginx's `proxy_pass` names its target in `Host`, and
    /// tells nothing of itself unless it is configured to.
    pub(crate) fn named_loopback(&self) -> bool {
        !self.passed_on && self.host.as_deref().is_some_and(names_loopback)
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("authorization", &self.authorization.is_some())
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// Whether a `Host` header names this machine and nothing else can.
fn names_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address.is_loopback(),
        // RFC 6761, 6.3: browsers resolve these to loopback without asking anybody.
        Err(_) => name.eq_ignore_ascii_case("localhost") || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_name_that_no_proxy_passed_on_is_this_machine() {
        let named = |host: Option<&str>, passed_on| {
            let (target, host) = ("/".to_owned(), host.map(str::to_owned));
            let (authorization, body) = (None, Vec::new());
            let method = Method::Get;
            Request { method, target, authorization, host, passed_on, body }.named_loopback()
        };
        for host in ["127.0.0.1", "127.0.0.1:8080", "[::1]:8080", "localhost", "a.localhost:80"] {
            assert!(named(Some(host), false), "{host}");
            assert!(!named(Some(host), true), "{host}");
        }
        for host in [
            None,
            Some("evil.example"),
            Some("localhost.evil.example:8080"),
            Some("10.0.0.1"),
            Some("192.0.2.1:8080"),
        ] {
            assert!(!named(host, false), "{host:?}");
        }
    }
}
