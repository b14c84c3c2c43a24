//! A response as data, and its bytes.
//!
//! Invariants: every API response is JSON and carries the CORS headers, errors too; a response
//! to HEAD and a 204 or 304 has no body; no header value holds CR or LF, as all are ours.
//!
//! Not here: which response a request gets.

use std::borrow::Cow;
use std::io::Write;

use serde::Serialize;

/// What to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, Cow<'static, str>)>,
    pub body: Cow<'static, [u8]>,
}

impl Response {
    /// An API response.
    pub fn json(status: u16, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).expect("our own types have string keys only");
        let mut response = Self::cors(status);
        response.headers.push(("content-type", "application/json".into()));
        response.headers.push(("cache-control", "no-store".into()));
        response.body = body.into();
        response
    }

    /// The answer to a preflight, for any origin, `null` (a page from a file) too.
    pub fn preflight() -> Self {
        let mut response = Self::cors(204);
        response.headers.extend([
            ("access-control-allow-methods", ALLOWED_METHODS.into()),
            ("access-control-allow-headers", "authorization, content-type".into()),
            ("access-control-max-age", PREFLIGHT_AGE_SECS.into()),
        ]);
        response
    }

    /// Something for the same origin only.
    pub fn plain(
        status: u16,
        content_type: &'static str,
        body: impl Into<Cow<'static, [u8]>>,
    ) -> Self {
        let headers = vec![("content-type", content_type.into())];
        Self { status, headers, body: body.into() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    fn cors(status: u16) -> Self {
        let headers = vec![
            ("access-control-allow-origin", "*".into()),
            ("access-control-expose-headers", "retry-after".into()),
            ("vary", "Origin".into()),
        ];
        Self { status, headers, body: Cow::Borrowed(&[]) }
    }

    /// Appends the response's bytes to `out`.
    pub(crate) fn write(&self, out: &mut Vec<u8>, closing: Closing, head_only: bool) {
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        let _ = write!(out, "HTTP/1.1 {} {}\r\n", self.status, reason(self.status));
        for (name, value) in &self.headers {
            debug_assert!(!value.contains(['\r', '\n']), "{name} would split the head");
            let _ = write!(out, "{name}: {value}\r\n");
        }
        match closing {
            Closing::Keep => {}
            Closing::KeepOld => out.extend_from_slice(b"connection: keep-alive\r\n"),
            Closing::Close => out.extend_from_slice(b"connection: close\r\n"),
        }
        if !bodiless {
            let _ = write!(out, "content-length: {}\r\n", self.body.len());
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && !head_only {
            out.extend_from_slice(&self.body);
        }
    }
}

/// What becomes of the connection after a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Closing {
    Keep,
    /// Kept, and said so: HTTP/1.0 would assume otherwise.
    KeepOld,
    Close,
}

fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        410 => "Gone",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        425 => "Too Early",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

const ALLOWED_METHODS: &str = "GET, POST, PUT, DELETE, OPTIONS";

/// Browsers cap it at two hours (Chromium) or a day (Firefox).
const PREFLIGHT_AGE_SECS: &str = "7200";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn head_and_204_have_no_body_but_head_tells_its_length() {
        let mut out = Vec::new();
        Response::json(200, &"x").write(&mut out, Closing::Keep, true);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with("content-length: 3\r\n\r\n"), "{text}");

        let mut out = Vec::new();
        Response::preflight().write(&mut out, Closing::Close, false);
        let text = String::from_utf8(out).unwrap();
        assert!(!text.contains("content-length"), "{text}");
        assert!(text.ends_with("connection: close\r\n\r\n"), "{text}");
    }
}
