//! A request's body, as it arrives.
//!
//! Invariants: never holds more than [`limits::BODY_BYTES`]; chunk framing is read strictly
//! (CRLF only), because a lenient reader and a strict proxy disagree on where the next request
//! begins.
//!
//! Not here: what the bytes mean.

use super::head::Framing;
use crate::limits;
use crate::problem::Problem;

/// A body under way.
#[derive(Debug)]
pub(super) struct Body {
    at: At,
    bytes: Vec<u8>,
}

/// What comes next.
#[derive(Debug)]
enum At {
    /// So many bytes, then the end.
    Length(usize),
    /// A chunk's size line; what of it has come.
    SizeLine(Vec<u8>),
    /// So many bytes of a chunk.
    Chunk(usize),
    /// The CRLF after a chunk; whether its CR has come.
    ChunkEnd(bool),
    /// Lines after the last chunk.
    Trailer {
        read: usize,
        line_len: usize,
        cr: bool,
    },
    Done,
}

impl Body {
    pub(super) fn new(framing: Framing) -> Self {
        let at = match framing {
            Framing::Length(0) => At::Done,
            Framing::Length(length) => At::Length(length),
            Framing::Chunked => At::SizeLine(Vec::new()),
        };
        Self { at, bytes: Vec::new() }
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.at, At::Done)
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Takes from the front of `input` what belongs to the body; tells how much that was.
    pub(super) fn handle_bytes(&mut self, input: &[u8]) -> Result<usize, Problem> {
        let mut used = 0;
        while used < input.len() && !self.is_complete() {
            used += self.step(&input[used..])?;
        }
        Ok(used)
    }

    /// Takes at least one byte of `input`, which is not empty.
    fn step(&mut self, input: &[u8]) -> Result<usize, Problem> {
        match &mut self.at {
            At::Length(left) => {
                let took = input.len().min(*left);
                self.bytes.extend_from_slice(&input[..took]);
                *left -= took;
                if *left == 0 {
                    self.at = At::Done;
                }
                Ok(took)
            }
            At::SizeLine(line) => {
                line.push(input[0]);
                if line.len() > limits::CHUNK_LINE_BYTES {
                    return Err(Problem::Malformed("A chunk's size line is too long"));
                }
                if input[0] == b'\n' {
                    let size = chunk_size(line)?;
                    if size > limits::BODY_BYTES - self.bytes.len() {
                        return Err(Problem::PayloadTooLarge);
                    }
                    self.at = match size {
                        0 => At::Trailer { read: 0, line_len: 0, cr: false },
                        _ => At::Chunk(size),
                    };
                }
                Ok(1)
            }
            At::Chunk(left) => {
                let took = input.len().min(*left);
                self.bytes.extend_from_slice(&input[..took]);
                *left -= took;
                if *left == 0 {
                    self.at = At::ChunkEnd(false);
                }
                Ok(took)
            }
            At::ChunkEnd(cr) => {
                match (*cr, input[0]) {
                    (false, b'\r') => *cr = true,
                    (true, b'\n') => self.at = At::SizeLine(Vec::new()),
                    _ => return Err(Problem::Malformed("A chunk is longer than its size")),
                }
                Ok(1)
            }
            At::Trailer { read, line_len, cr } => {
                *read += 1;
                if *read > limits::TRAILER_BYTES {
                    return Err(Problem::HeadTooLarge);
                }
                match (*cr, input[0]) {
                    (true, b'\n') if *line_len == 0 => self.at = At::Done,
                    (true, b'\n') => (*line_len, *cr) = (0, false),
                    (false, b'\r') => *cr = true,
                    (true, _) | (false, b'\n') => {
                        return Err(Problem::Malformed("A trailer line is malformed"));
                    }
                    (false, _) => *line_len += 1,
                }
                Ok(1)
            }
            At::Done => Ok(0),
        }
    }
}

/// Reads `1f;name=value\r\n`. Extensions are dropped, as RFC 9112 section 7.1.1 allows.
fn chunk_size(line: &[u8]) -> Result<usize, Problem> {
    const WRONG: Problem = Problem::Malformed("A chunk's size line is malformed");
    let line = line.strip_suffix(b"\r\n").ok_or(WRONG)?;
    if line.contains(&b'\r') {
        return Err(WRONG);
    }
    let end = line.iter().position(|byte| !byte.is_ascii_hexdigit()).unwrap_or(line.len());
    let (digits, rest) = line.split_at(end);
    if digits.is_empty() || !matches!(rest.trim_ascii_start(), [] | [b';', ..]) {
        return Err(WRONG);
    }
    let digits = std::str::from_utf8(digits).map_err(|_| WRONG)?;
    usize::from_str_radix(digits, 16).map_err(|_| Problem::PayloadTooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined_and_trailers_dropped() {
        let (bytes, used) = read(b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: x\r\n\r\nrest").unwrap();
        assert_eq!(bytes, b"abcde");
        assert_eq!(used, 30, "the next request is left alone");
    }

    #[test]
    fn chunks_framed_loosely_are_refused() {
        let refused: [&[u8]; 14] = [
            b"3\nabc\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\r\n0\r\n\n",
            b"3\r\nabc\r\n0\n\r\n",
            b"\r\nabc",
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"-3\r\nabc\r\n0\r\n\r\n",
            b" 3\r\nabc\r\n0\r\n\r\n",
            b"3 4\r\nabc\r\n0\r\n\r\n",
            b"3;a\rb\r\nabc\r\n0\r\n\r\n",
            b"0\r\nT: x\n\r\n",
            b"0\r\nT: x\ry\r\n\r\n",
        ];
        for text in refused {
            let got = read(text);
            let shown = String::from_utf8_lossy(text);
            assert!(matches!(got, Err(Problem::Malformed(_))), "{shown:?} gave {got:?}");
        }
    }

    #[test]
    fn no_number_of_chunks_passes_the_limit() {
        assert_eq!(read(b"ffffffffffffffffffff\r\n").unwrap_err(), Problem::PayloadTooLarge);
        assert_eq!(read(b"80001\r\n").unwrap_err(), Problem::PayloadTooLarge);
        let mut body = Body::new(Framing::Chunked);
        let chunk = [b"10000\r\n".as_slice(), &[b'a'; 0x10000], b"\r\n"].concat();
        for _ in 0..8 {
            assert_eq!(body.handle_bytes(&chunk), Ok(chunk.len()));
        }
        assert_eq!(body.handle_bytes(b"1\r\n"), Err(Problem::PayloadTooLarge));
    }

    fn read(input: &[u8]) -> Result<(Vec<u8>, usize), Problem> {
        let mut body = Body::new(Framing::Chunked);
        let used = body.handle_bytes(input)?;
        Ok((body.into_bytes(), used))
    }
}
