//! One connection: its streams, and how far it is.
//!
//! ```text
//!  Shaking ── hello answered ──> Up ── closed by either ──> Closed ── drained ──> forgotten
//!     └──────── refused, failed, late ─────────────────────────^
//! ```
//!
//! Invariants: no message is written or read before the connection is up.
//!
//! Not here: what a hello decides (`turn`, `duel`).

use std::time::Instant;

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, StreamId};
use zeroize::Zeroizing;

use super::ControlFault;
use super::frames::{CLASSES, Class, FrameReader, MESSAGE_MAX, frame};
use super::half_open::Place;
use super::hello::HELLO_MAX;
use super::queue::Queue;
use super::tls::EXPORTER;
use crate::keys::Secret;
use crate::members::NodeId;

/// The hello's stream, then one for each class.
pub(super) const STREAMS: usize = 1 + CLASSES;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Shaking,
    Up,
    Closed,
}

pub(super) struct Conn {
    pub(super) quic: Connection,
    pub(super) stage: Stage,
    /// We began it.
    pub(super) outgoing: bool,
    /// Whom we called, or who called, once it said so.
    pub(super) node: Option<NodeId>,
    pub(super) epoch: u64,
    pub(super) call: u64,
    /// When to give up on its handshake.
    pub(super) give_up: Instant,
    /// The address that it is counted for while it is half open.
    pub(super) half_open: Option<Place>,
    pub(super) mtu: u16,
    /// As registered among the deadlines.
    pub(super) deadline: Option<Instant>,
    hello: Bytes,
    writes: Vec<StreamId>,
    reads: Vec<(StreamId, FrameReader)>,
}

/// What follows a hello, one byte. Others are of later versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Note {
    /// The speaker does not hold the connection: it may be closed when it is unused.
    Released = 0,
    Held = 1,
}

/// What was read from one stream.
pub(super) struct Read {
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) fault: Option<ControlFault>,
    /// There may be more.
    pub(super) stopped: bool,
}

impl Conn {
    pub(super) fn new(quic: Connection, outgoing: bool, give_up: Instant) -> Self {
        let mtu = quic.current_mtu();
        Self {
            quic,
            stage: Stage::Shaking,
            outgoing,
            node: None,
            epoch: 0,
            call: 0,
            give_up,
            half_open: None,
            mtu,
            deadline: None,
            hello: Bytes::new(),
            writes: Vec::with_capacity(STREAMS),
            reads: Vec::with_capacity(STREAMS),
        }
    }

    /// Opens our streams, and the first thing on them is the hello. `false` if the other end
    /// allows no such streams: then it speaks something else.
    pub(super) fn greet(&mut self, hello: Bytes) -> bool {
        while self.writes.len() < STREAMS {
            let Some(id) = self.quic.streams().open(Dir::Uni) else { return false };
            self.writes.push(id);
        }
        // Wants go first wherever there is not room for all.
        let wants = self.writes[1 + Class::Wants.index()];
        let _ = self.quic.send_stream(wants).set_priority(1);
        self.hello = hello;
        true
    }

    /// Says something on the hello's stream, after the hello.
    pub(super) fn note(&mut self, note: Note) {
        let note = frame(&[note as u8]);
        self.hello = [&self.hello[..], &note].concat().into();
    }

    /// Writes as much as the connection takes.
    pub(super) fn flush(&mut self, queue: Option<&mut Queue>) {
        if self.writes.len() < STREAMS || self.stage == Stage::Closed {
            return;
        }
        if !self.hello.is_empty() {
            let _ = write(&mut self.quic, self.writes[0], &mut self.hello);
        }
        if self.stage != Stage::Up {
            return;
        }
        let Some(queue) = queue else { return };
        for class in Class::ALL {
            let id = self.writes[1 + class.index()];
            queue.drain(class, |frame| write(&mut self.quic, id, frame));
        }
    }

    /// Takes note of streams that the other end opened.
    pub(super) fn accept_streams(&mut self) {
        while self.reads.len() < STREAMS {
            let Some(id) = self.quic.streams().accept(Dir::Uni) else { return };
            let limit = if self.reads.is_empty() { HELLO_MAX } else { MESSAGE_MAX };
            self.reads.push((id, FrameReader::new(limit)));
        }
    }

    /// The class of the stream at this place; `None` for the hello's.
    pub(super) fn class(at: usize) -> Option<Class> {
        Class::ALL.get(at.checked_sub(1)?).copied()
    }

    /// Reads what has arrived on the stream at this place, up to about `limit` messages.
    pub(super) fn read(&mut self, at: usize, limit: usize) -> Read {
        let mut read = Read { messages: Vec::new(), fault: None, stopped: false };
        if at > 0 && self.stage != Stage::Up || self.stage == Stage::Closed {
            return read;
        }
        let Some((id, reader)) = self.reads.get_mut(at) else { return read };
        let mut stream = self.quic.recv_stream(*id);
        let Ok(mut chunks) = stream.read(true) else { return read };
        loop {
            if read.messages.len() >= limit {
                read.stopped = true;
                break;
            }
            match chunks.next(CHUNK_MAX) {
                Ok(Some(chunk)) => {
                    if reader.push(&chunk.bytes, |message| read.messages.push(message)).is_err() {
                        read.fault = Some(ControlFault::TooLong);
                        break;
                    }
                }
                Err(ReadError::Blocked) => break,
                // Streams are as long as their connection.
                Ok(None) | Err(ReadError::Reset(_)) => {
                    read.fault = Some(ControlFault::Malformed);
                    break;
                }
            }
        }
        // Credit for what was read goes out with the next transmit, which follows anyway.
        let _ = chunks.finalize();
        read
    }

    /// What both ends have in common, and nobody else.
    pub(super) fn secret(&self) -> Option<Secret> {
        let mut secret = Zeroizing::new([0; 32]);
        let session = self.quic.crypto_session();
        session.export_keying_material(&mut *secret, EXPORTER, &[]).ok()?;
        Some(secret)
    }
}

/// Takes off `frame` what the stream takes; whether it took all.
fn write(quic: &mut Connection, id: StreamId, frame: &mut Bytes) -> bool {
    let mut one = [std::mem::take(frame)];
    // An error is either "no more now" or a stream that ended, with which the connection ends.
    let _ = quic.send_stream(id).write_chunks(&mut one);
    let [rest] = one;
    *frame = rest;
    frame.is_empty()
}

/// Read at once. Small messages come many to a chunk, so it bounds how far `limit` is passed.
const CHUNK_MAX: usize = 4096;
