//! A request's head: what it says, and how long its body is.
//!
//! Invariants: two readers of the same head cannot disagree on where the body ends: whatever
//! is ambiguous (RFC 9112 sections 6.3 and 11.2) is refused, never repaired.
//!
//! Not here: finding the head's end in the stream, and the body itself.

use crate::limits;
use crate::problem::Problem;
use crate::request::Method;

/// A parsed head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) target: String,
    pub(super) authorization: Option<String>,
    pub(super) host: Option<String>,
    pub(super) passed_on: bool,
    pub(super) framing: Framing,
    /// The client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
    pub(super) keep_alive: bool,
    pub(super) http10: bool,
}

/// How the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

/// Parses a whole head, its final empty line included.
pub(super) fn parse(bytes: &[u8]) -> Result<Head, Problem> {
    let mut headers = [httparse::EMPTY_HEADER; limits::HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(Problem::Malformed("The request's head does not end where it should")),
        Err(error) => return Err(refuse(error)),
    }
    if !lines_end_in_crlf(bytes) {
        return Err(Problem::Malformed("A line of the request's head ends without CR"));
    }
    let http10 = parsed.version == Some(0);
    let mut said = Said::default();
    for header in parsed.headers.iter() {
        said.read(header.name, header.value)?;
    }
    let framing = said.framing(http10)?;
    if !http10 && said.hosts != 1 {
        return Err(Problem::Malformed("HTTP/1.1 requires exactly one Host header"));
    }
    if said.expects_other {
        return Err(Problem::Expectation);
    }
    Ok(Head {
        method: Method::from_token(parsed.method.unwrap_or_default()),
        target: parsed.path.unwrap_or_default().to_owned(),
        authorization: if said.authorizations == 1 { said.authorization } else { None },
        host: if said.hosts == 1 { said.host } else { None },
        passed_on: said.passed_on,
        framing,
        expects: said.expects && !http10,
        keep_alive: if http10 { said.keep_alive && !said.close } else { !said.close },
        http10,
    })
}

/// What the header lines said that matters here.
#[derive(Default)]
struct Said {
    length: Option<usize>,
    length_too_large: bool,
    chunked: bool,
    hosts: usize,
    expects: bool,
    expects_other: bool,
    close: bool,
    keep_alive: bool,
    authorization: Option<String>,
    authorizations: usize,
    host: Option<String>,
    passed_on: bool,
}

impl Said {
    fn read(&mut self, name: &str, value: &[u8]) -> Result<(), Problem> {
        let is = |known: &str| name.eq_ignore_ascii_case(known);
        if is("content-length") {
            self.read_length(value)?;
        } else if is("transfer-encoding") {
            if self.chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                return Err(Problem::Malformed("The only transfer encoding taken is chunked"));
            }
            self.chunked = true;
        } else if is("host") {
            self.hosts += 1;
            self.host = std::str::from_utf8(value).ok().map(str::to_owned);
        } else if is("expect") {
            let known = value.trim_ascii().eq_ignore_ascii_case(b"100-continue");
            self.expects |= known;
            self.expects_other |= !known;
        } else if is("connection") {
            for option in value.split(|byte| *byte == b',') {
                self.close |= option.trim_ascii().eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.trim_ascii().eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("authorization") {
            self.authorizations += 1;
            self.authorization = std::str::from_utf8(value).ok().map(str::to_owned);
        } else if is("forwarded") || is("via") || is("x-real-ip") {
            self.passed_on = true;
        } else if let Some(prefix) = name.get(..FORWARDED.len()) {
            self.passed_on |= prefix.eq_ignore_ascii_case(FORWARDED);
        }
        Ok(())
    }

    fn read_length(&mut self, value: &[u8]) -> Result<(), Problem> {
        if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
            return Err(Problem::Malformed("Content-Length is not a number"));
        }
        let text = std::str::from_utf8(value).unwrap_or_default();
        // All digits: the only error left is a number too large for us anyway.
        let length = text.parse().unwrap_or(usize::MAX);
        if self.length.is_some_and(|before| before != length) {
            return Err(Problem::Malformed("Content-Length is given twice and differs"));
        }
        self.length = Some(length);
        self.length_too_large = length > limits::BODY_BYTES;
        Ok(())
    }

    fn framing(&self, http10: bool) -> Result<Framing, Problem> {
        match (self.length, self.chunked) {
            (Some(_), true) => {
                Err(Problem::Malformed("Both Content-Length and Transfer-Encoding are given"))
            }
            (None, true) if http10 => {
                Err(Problem::Malformed("HTTP/1.0 knows no Transfer-Encoding"))
            }
            (None, true) => Ok(Framing::Chunked),
            (Some(_), false) if self.length_too_large => Err(Problem::PayloadTooLarge),
            (Some(length), false) => Ok(Framing::Length(length)),
            (None, false) => Ok(Framing::Length(0)),
        }
    }
}

/// How the names of what proxies tell without a standard begin.
const FORWARDED: &str = "x-forwarded-";

fn refuse(error: httparse::Error) -> Problem {
    match error {
        httparse::Error::TooManyHeaders => Problem::HeadTooLarge,
        httparse::Error::Version => Problem::Version,
        httparse::Error::HeaderName => Problem::Malformed("A header's name is malformed"),
        httparse::Error::HeaderValue => Problem::Malformed("A header's value is malformed"),
        httparse::Error::NewLine | httparse::Error::Status | httparse::Error::Token => {
            Problem::Malformed("The request line is malformed")
        }
    }
}

/// A proxy before us may not take a lone LF as a line's end: what is a header to us would have
/// been part of a value to it.
fn lines_end_in_crlf(bytes: &[u8]) -> bool {
    let mut before = 0;
    for byte in bytes {
        if *byte == b'\n' && before != b'\r' {
            return false;
        }
        before = *byte;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_that_two_readers_could_frame_differently_are_refused() {
        let refused = [
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\nContent-Length: 6\r\n",
            "Content-Length: 5, 5\r\n",
            "Content-Length: +5\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x5\r\n",
            "Content-Length: 5 5\r\n",
            "Content-Length:\r\n",
            "Content-Length: 5\n",
            "X: a\nContent-Length: 5\r\n",
            "Content-Length : 5\r\n",
            "Transfer-Encoding : chunked\r\n",
            " Transfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked, identity\r\n",
            "Transfer-Encoding: identity\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: \"chunked\"\r\n",
            "Transfer-Encoding:\r\n",
            "X: a\r\n folded\r\n",
            "X: a\r\n\tfolded\r\n",
            "X: a\rContent-Length: 5\r\n",
            "X: a\0b\r\n",
            "X\0: a\r\n",
            "X(: a\r\n",
            ": a\r\n",
            "Host: again\r\n",
        ];
        for lines in refused {
            let text = format!("POST / HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let got = parse(text.as_bytes());
            assert!(matches!(got, Err(Problem::Malformed(_))), "{lines:?} gave {got:?}");
        }
        let old = parse(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n");
        assert!(matches!(old, Err(Problem::Malformed(_))), "{old:?}");
        let hostless = parse(b"GET / HTTP/1.1\r\n\r\n");
        assert!(matches!(hostless, Err(Problem::Malformed(_))), "{hostless:?}");
    }

    #[test]
    fn heads_with_one_meaning_are_taken() {
        let taken = [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Framing::Length(5)),
            ("content-length:0005  \r\n", Framing::Length(5)),
            ("TRANSFER-ENCODING: Chunked \r\n", Framing::Chunked),
            ("X: \r\n", Framing::Length(0)),
        ];
        for (lines, framing) in taken {
            let text = format!("POST /a?b HTTP/1.1\r\nHost: h\r\n{lines}\r\n");
            let got = parse(text.as_bytes()).unwrap_or_else(|e| panic!("{lines:?} gave {e:?}"));
            assert_eq!(got.framing, framing, "{lines:?}");
        }
    }

    #[test]
    fn limits_and_versions_have_their_own_answers() {
        let head = |text: &str| parse(text.as_bytes()).unwrap_err();
        let long = format!(
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n",
            limits::BODY_BYTES + 1
        );
        assert_eq!(head(&long), Problem::PayloadTooLarge);
        let huge = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999999\r\n\r\n";
        assert_eq!(head(huge), Problem::PayloadTooLarge);
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(limits::HEADERS + 1));
        assert_eq!(head(&many), Problem::HeadTooLarge);
        assert_eq!(head("GET / HTTP/2.0\r\n\r\n"), Problem::Version);
        let expects = "GET / HTTP/1.1\r\nHost: h\r\nExpect: 200-ok\r\n\r\n";
        assert_eq!(head(expects), Problem::Expectation);
    }

    #[test]
    fn keep_alive_follows_version_and_connection() {
        let keeps = |version: &str, lines: &str| {
            let text = format!("GET / HTTP/{version}\r\nHost: h\r\n{lines}\r\n");
            parse(text.as_bytes()).unwrap().keep_alive
        };
        assert!(keeps("1.1", ""));
        assert!(!keeps("1.1", "Connection: foo, Close\r\n"));
        assert!(!keeps("1.0", ""));
        assert!(keeps("1.0", "Connection: Keep-Alive\r\n"));
    }

    #[test]
    fn what_a_proxy_passed_on_is_known_by_what_it_added() {
        let passed_on = |lines: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n{lines}\r\n");
            parse(text.as_bytes()).unwrap().passed_on
        };
        for line in [
            "Forwarded: for=192.0.2.1",
            "Via: 1.1 proxy",
            "X-Forwarded-For: 192.0.2.1",
            "x-forwarded-proto: https",
            "X-FORWARDED-:",
            "X-Real-IP: 192.0.2.1",
        ] {
            assert!(passed_on(&format!("{line}\r\n")), "{line}");
        }
        for line in ["", "X-Forward: 1\r\n", "Viaduct: 1\r\n", "X-Forwarded: 1\r\n"] {
            assert!(!passed_on(line), "{line}");
        }
    }

    #[test]
    fn two_authorizations_are_none() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\nAuthorization: a\r\nAuthorization: b\r\n\r\n";
        assert_eq!(parse(text.as_bytes()).unwrap().authorization, None);
    }
}
