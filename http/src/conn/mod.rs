//! One HTTP/1.1 connection, server side, as a byte machine.
//!
//! Put what arrived into [`Conn::handle_bytes`]; take whole requests from
//! [`Conn::poll_request`], one at a time, and answer each with [`Conn::respond`]; send
//! [`Conn::output`] and tell by [`Conn::handle_sent`] how much went; call
//! [`Conn::handle_timeout`] when [`Conn::deadline`] passes. When [`Conn::is_done`], close.
//!
//! Invariants: requests come out in the order they went in, and the next only after the answer
//! to the one before; how the stream was cut into reads changes nothing; what is wrong with a
//! request's form is answered here, once, and ends the connection.
//!
//! Not here: sockets, TLS, clocks; what requests mean.

mod body;
mod head;

use std::time::Instant;

use crate::limits::{self, Timing};
use crate::problem::Problem;
use crate::request::{Method, Request};
use crate::response::{Closing, Response};

use body::Body;
use head::Head;

#[derive(Debug)]
pub struct Conn {
    timing: Timing,
    phase: Phase,
    /// Arrived and not yet parsed. Bounded by the caller: it offers bytes only when
    /// [`Conn::wants_bytes`], at most [`limits::READ_BYTES`] at a time.
    input: Vec<u8>,
    /// The part of `input` already used.
    used: usize,
    output: Vec<u8>,
    sent: usize,
    /// When the phase must be over.
    phase_due: Option<Instant>,
    /// When the output must be sent.
    write_due: Option<Instant>,
    /// The peer sends no more.
    eof: bool,
    /// The next response is the last.
    leaving: bool,
}

#[derive(Debug)]
enum Phase {
    /// Between requests.
    Idle,
    /// A head is arriving; no end in the first `scanned` bytes of it.
    Head {
        scanned: usize,
        empty_lines: usize,
    },
    Body(Head, Body),
    /// A request waits to be taken.
    Ready(Request, Manner),
    /// A request was taken and waits for its answer.
    Serving(Manner),
    /// Nothing more is read or answered.
    Closing,
}

/// How a request is to be answered.
#[derive(Debug, Clone, Copy)]
struct Manner {
    keep_alive: bool,
    http10: bool,
    head_only: bool,
}

impl Conn {
    pub fn new(timing: Timing, now: Instant) -> Self {
        Self {
            timing,
            phase: Phase::Idle,
            input: Vec::new(),
            used: 0,
            output: Vec::new(),
            sent: 0,
            // A connection that says nothing at first has no claim to the longer wait.
            phase_due: Some(now + timing.head),
            write_due: None,
            eof: false,
            leaving: false,
        }
    }

    /// Takes bytes of the peer.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
        if matches!(self.phase, Phase::Closing) {
            return;
        }
        self.input.extend_from_slice(bytes);
        self.advance(now);
    }

    /// The peer sends no more; what it asked before is still answered.
    pub fn handle_eof(&mut self, now: Instant) {
        self.eof = true;
        self.advance(now);
    }

    /// Answers no more than the request under way. For a node that leaves.
    pub fn leave(&mut self) {
        self.leaving = true;
        if matches!(self.phase, Phase::Idle) {
            self.close();
        }
    }

    /// Nothing more can be said: what carries the bytes failed.
    pub(crate) fn abandon(&mut self) {
        self.handle_sent(self.output.len());
        self.close();
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        if self.write_due.is_some_and(|due| due <= now) {
            self.abandon();
            return;
        }
        if self.phase_due.is_none_or(|due| due > now) {
            return;
        }
        match self.phase {
            Phase::Head { .. } | Phase::Body(..) => self.fail(&Problem::TimedOut, now),
            Phase::Idle | Phase::Ready(..) | Phase::Serving(_) | Phase::Closing => self.close(),
        }
    }

    /// The next request. There is none while one is unanswered.
    pub fn poll_request(&mut self) -> Option<Request> {
        match std::mem::replace(&mut self.phase, Phase::Closing) {
            Phase::Ready(request, manner) => {
                self.phase = Phase::Serving(manner);
                Some(request)
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Answers the request taken last.
    pub fn respond(&mut self, response: &Response, now: Instant) {
        let Phase::Serving(manner) = self.phase else {
            debug_assert!(false, "respond() answers a request that was taken");
            return;
        };
        let closing = match (manner.keep_alive && !self.leaving, manner.http10) {
            (false, _) => Closing::Close,
            (true, false) => Closing::Keep,
            (true, true) => Closing::KeepOld,
        };
        self.write(response, closing, manner.head_only, now);
        if closing == Closing::Close {
            self.close();
            return;
        }
        self.phase = Phase::Idle;
        self.phase_due = Some(now + self.timing.idle);
        self.advance(now);
    }

    /// Bytes to send.
    pub fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So many bytes of the output were sent.
    pub fn handle_sent(&mut self, count: usize) {
        self.sent = (self.sent + count).min(self.output.len());
        if self.sent == self.output.len() {
            // Not kept: an idle connection should not hold the memory of its largest answer.
            self.output = Vec::new();
            self.sent = 0;
            self.write_due = None;
        }
    }

    /// Whether more bytes would be of use now.
    pub fn wants_bytes(&self) -> bool {
        match self.phase {
            Phase::Idle | Phase::Head { .. } | Phase::Body(..) => !self.eof,
            Phase::Ready(..) | Phase::Serving(_) | Phase::Closing => false,
        }
    }

    /// When [`Conn::handle_timeout`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        match (self.write_due, self.phase_due) {
            (Some(write), Some(phase)) => Some(write.min(phase)),
            (write, phase) => write.or(phase),
        }
    }

    /// Everything is said; close.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Closing) && self.output.is_empty()
    }

    /// Moves on as far as the input allows.
    fn advance(&mut self, now: Instant) {
        while self.step(now) {}
        let waiting = matches!(self.phase, Phase::Idle | Phase::Head { .. } | Phase::Body(..));
        if self.eof && waiting {
            self.close();
        }
        self.input.drain(..self.used);
        self.used = 0;
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    /// One transition; false when more input is needed, or none is wanted.
    fn step(&mut self, now: Instant) -> bool {
        match &mut self.phase {
            Phase::Idle => {
                if self.used == self.input.len() {
                    return false;
                }
                self.phase = Phase::Head { scanned: 0, empty_lines: 0 };
                self.phase_due = Some(now + self.timing.head);
                true
            }
            Phase::Head { .. } => self.step_head(now),
            Phase::Body(_, body) => {
                match body.handle_bytes(&self.input[self.used..]) {
                    Ok(count) => self.used += count,
                    Err(problem) => {
                        self.fail(&problem, now);
                        return false;
                    }
                }
                self.finish_body()
            }
            Phase::Ready(..) | Phase::Serving(_) | Phase::Closing => false,
        }
    }

    fn step_head(&mut self, now: Instant) -> bool {
        let Phase::Head { scanned, empty_lines } = &mut self.phase else { return false };
        let input = &self.input[self.used..];
        if input.starts_with(b"\r\n") && *empty_lines < limits::LEADING_EMPTY_LINES {
            self.used += 2;
            *empty_lines += 1;
            return true;
        }
        // A head begins with a method: what does not (TLS to the plain port, say) need not be
        // waited for.
        if !matches!(input.first(), None | Some(b'A'..=b'Z' | b'\r')) {
            self.fail(&Problem::Malformed("This is no HTTP request"), now);
            return false;
        }
        let window = &input[..input.len().min(limits::HEAD_BYTES)];
        let Some(end) = head_end(window, *scanned) else {
            *scanned = window.len().saturating_sub(3);
            if input.len() >= limits::HEAD_BYTES {
                self.fail(&Problem::HeadTooLarge, now);
            }
            return false;
        };
        let parsed = head::parse(&input[..end]);
        self.used += end;
        match parsed {
            Ok(head) => self.begin_body(head, now),
            Err(problem) => {
                self.fail(&problem, now);
                false
            }
        }
    }

    fn begin_body(&mut self, head: Head, now: Instant) -> bool {
        let body = Body::new(head.framing);
        if head.expects && !body.is_complete() {
            self.output.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.write_due.get_or_insert(now + self.timing.write);
        }
        self.phase_due = Some(now + self.timing.body);
        self.phase = Phase::Body(head, body);
        self.finish_body();
        true
    }

    /// Makes the request of a complete body; false when it is not.
    fn finish_body(&mut self) -> bool {
        if !matches!(&self.phase, Phase::Body(_, body) if body.is_complete()) {
            return false;
        }
        let Phase::Body(head, body) = std::mem::replace(&mut self.phase, Phase::Closing) else {
            return false;
        };
        let manner = Manner {
            keep_alive: head.keep_alive,
            http10: head.http10,
            head_only: head.method == Method::Head,
        };
        let request = Request {
            method: head.method,
            target: head.target,
            authorization: head.authorization,
            host: head.host,
            passed_on: head.passed_on,
            body: body.into_bytes(),
        };
        self.phase = Phase::Ready(request, manner);
        self.phase_due = None;
        true
    }

    fn fail(&mut self, problem: &Problem, now: Instant) {
        self.write(&problem.response(), Closing::Close, false, now);
        self.close();
    }

    fn write(&mut self, response: &Response, closing: Closing, head_only: bool, now: Instant) {
        response.write(&mut self.output, closing, head_only);
        self.write_due.get_or_insert(now + self.timing.write);
    }

    fn close(&mut self) {
        self.phase = Phase::Closing;
        self.phase_due = None;
        self.used = self.input.len();
    }
}

/// Where the head ends, its empty line included. Nothing ends in the first `scanned` bytes.
fn head_end(input: &[u8], scanned: usize) -> Option<usize> {
    let tail = input.get(scanned..)?;
    tail.windows(4).position(|four| four == b"\r\n\r\n").map(|at| scanned + at + 4)
}

#[cfg(test)]
mod tests;
