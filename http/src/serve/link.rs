//! One connection, from accept to close: moves bytes between the socket, TLS and `conn`, and
//! requests between `conn` and the desk.
//!
//! Invariants: output is sent before more is read, so a peer that does not read is not read
//! from; before anything is awaited, the alarm is set to what is due.
//!
//! Not here: decisions; `conn`, `tls` and `api` take them.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use futures_lite::{AsyncRead, AsyncWrite};
use glommio::net::TcpStream;
use rustls::ServerConfig;
use shards::command::{Answer, Command};
use shards::snapshot::Snapshot;
use tracing::debug;

use super::gate::Inside;
use super::{Server, now};
use crate::alarms::Alarm;
use crate::api::{self, Step};
use crate::auth::Door;
use crate::cluster;
use crate::conn::Conn;
use crate::desk::Desk;
use crate::limits;
use crate::metrics::{self, Scrape};
use crate::problem::Problem;
use crate::request::Request;
use crate::response::Response;
use crate::tally;
use crate::tls::Filter;

pub(super) struct Link<D> {
    server: Rc<Server<D>>,
    stream: TcpStream,
    tls: Option<Filter>,
    conn: Conn,
    alarm: Alarm,
    door: Door,
    /// Whether `conn` knows that the node leaves.
    told: bool,
}

/// What a wait for bytes ended with.
enum Arrived {
    /// So many bytes, in the server's scratch buffer.
    Bytes(usize),
    /// The peer sends no more.
    Eof,
    Due,
    /// The node leaves.
    Leave,
}

/// The connection is of no use any more.
struct Lost;

impl<D: Desk> Link<D> {
    pub(super) fn new(
        server: Rc<Server<D>>,
        stream: TcpStream,
        config: Option<Arc<ServerConfig>>,
        door: Door,
    ) -> Result<Self, rustls::Error> {
        let tls = config.map(Filter::new).transpose()?;
        let conn = Conn::new(server.timing, now());
        let alarm = server.alarms.register();
        Ok(Self { server, stream, tls, conn, alarm, door, told: false })
    }

    pub(super) async fn run(mut self) {
        let talked = match self.handshake().await {
            Ok(()) => self.talk().await,
            Err(Lost) => Err(Lost),
        };
        if talked.is_ok() {
            let _ = self.part().await;
        }
    }

    async fn handshake(&mut self) -> Result<(), Lost> {
        let mut inside = None;
        while self.tls.as_ref().is_some_and(Filter::is_handshaking) && !self.conn.is_done() {
            self.alarm.set(self.conn.deadline());
            match self.receive().await? {
                Arrived::Bytes(count) => {
                    let bytes = self.server.scratch.borrow()[..count].to_vec();
                    // Only who has sent something may hold a place.
                    if inside.is_none() {
                        inside = Some(self.enter().await?);
                    }
                    // A step takes up to half a millisecond: media first.
                    glommio::yield_if_needed().await;
                    self.take(&bytes);
                    self.flush().await?;
                }
                Arrived::Eof | Arrived::Due => return Err(Lost),
                Arrived::Leave => self.conn.leave(),
            }
        }
        Ok(())
    }

    /// Answers requests until there is nothing more to say.
    async fn talk(&mut self) -> Result<(), Lost> {
        loop {
            // Between pipelined requests too: one read may bring hundreds.
            glommio::yield_if_needed().await;
            self.flush().await?;
            if self.conn.is_done() {
                return Ok(());
            }
            if let Some(request) = self.conn.poll_request() {
                let response = self.answer(&request).await;
                if self.alarm.is_leaving() {
                    self.conn.leave();
                }
                self.conn.respond(&response, now());
                continue;
            }
            self.alarm.set(self.conn.deadline());
            match self.receive().await? {
                Arrived::Bytes(count) => {
                    let server = self.server.clone();
                    self.take(&server.scratch.borrow()[..count]);
                }
                Arrived::Eof => self.conn.handle_eof(now()),
                Arrived::Due => self.conn.handle_timeout(now()),
                Arrived::Leave => self.conn.leave(),
            }
        }
    }

    async fn answer(&mut self, request: &Request) -> Response {
        let began = now();
        let server = self.server.clone();
        let node = || server.desk.node_info();
        let (kind, step) = server.api.receive(request, self.door, node, began);
        let response = match step {
            Step::Respond(response) => response,
            Step::Ask(command) => match self.ask(command, began).await {
                Some(answer) => api::answer(answer),
                None => Problem::Unanswered.response(),
            },
            Step::Measure => self.measure(began).await,
            Step::Survey => cluster::response(&self.survey(began).await),
        };
        let took = now().duration_since(began);
        tally::count(&mut server.desk.meters().borrow_mut(), kind, response.status, took);
        let took_ms = took.as_millis() as u64;
        debug!(method = ?request.method, status = response.status, took_ms, "request");
        response
    }

    /// What all shards have counted, without those that do not answer in time.
    async fn measure(&mut self, began: Instant) -> Response {
        let shards = self.survey(began).await;
        let desk = &self.server.desk;
        metrics::response(Scrape { node: desk.node_info(), process: desk.process(), shards })
    }

    async fn survey(&mut self, began: Instant) -> Vec<Option<Snapshot>> {
        let desk = &self.server.desk;
        let alarm = &self.alarm;
        alarm.set(Some(began + self.server.timing.survey));
        let until = poll_fn(|cx| {
            if alarm.has_rung() || alarm.is_cut() {
                return Poll::Ready(());
            }
            alarm.listen(cx.waker());
            Poll::Pending
        });
        desk.survey(until).await
    }

    async fn ask(&mut self, command: Command, began: Instant) -> Option<Answer> {
        let desk = self.server.desk.clone();
        let mut asked = pin!(desk.ask(command));
        let alarm = &self.alarm;
        alarm.set(Some(began + self.server.timing.answer));
        poll_fn(|cx| {
            if let Poll::Ready(answer) = asked.as_mut().poll(cx) {
                return Poll::Ready(Some(answer));
            }
            if alarm.has_rung() || alarm.is_cut() {
                return Poll::Ready(None);
            }
            alarm.listen(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Takes bytes of the peer, through TLS if that is spoken.
    fn take(&mut self, bytes: &[u8]) {
        let now = now();
        let Some(tls) = &mut self.tls else {
            self.conn.handle_bytes(bytes, now);
            return;
        };
        let mut plain = Vec::new();
        let open = tls.handle_cipher(bytes, &mut plain);
        self.conn.handle_bytes(&plain, now);
        match open {
            Ok(true) => {}
            Ok(false) => self.conn.handle_eof(now),
            Err(error) => {
                debug!(%error, "TLS failed");
                self.conn.abandon();
            }
        }
    }

    /// Waits for bytes, the alarm, or the node's leaving.
    async fn receive(&mut self) -> Result<Arrived, Lost> {
        let Self { server, stream, alarm, told, .. } = self;
        poll_fn(|cx| {
            if alarm.is_cut() {
                return Poll::Ready(Err(Lost));
            }
            if alarm.has_rung() {
                return Poll::Ready(Ok(Arrived::Due));
            }
            if alarm.is_leaving() && !*told {
                *told = true;
                return Poll::Ready(Ok(Arrived::Leave));
            }
            alarm.listen(cx.waker());
            let mut scratch = server.scratch.borrow_mut();
            match Pin::new(&mut *stream).poll_read(cx, &mut scratch) {
                Poll::Ready(Ok(0)) => Poll::Ready(Ok(Arrived::Eof)),
                Poll::Ready(Ok(count)) => Poll::Ready(Ok(Arrived::Bytes(count))),
                Poll::Ready(Err(_)) => Poll::Ready(Err(Lost)),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }

    async fn enter(&mut self) -> Result<Inside, Lost> {
        let Self { server, alarm, .. } = self;
        poll_fn(|cx| {
            if alarm.has_rung() || alarm.is_cut() {
                return Poll::Ready(Err(Lost));
            }
            alarm.listen(cx.waker());
            server.handshakes.poll_enter(cx).map(Ok)
        })
        .await
    }

    /// Sends all there is.
    async fn flush(&mut self) -> Result<(), Lost> {
        let mut cipher = Vec::new();
        if let Some(tls) = &mut self.tls {
            tls.handle_plain(self.conn.output());
            tls.poll_cipher(&mut cipher);
        }
        let bytes = if self.tls.is_some() { &cipher } else { self.conn.output() };
        if bytes.is_empty() {
            return Ok(());
        }
        let due = self.conn.deadline();
        self.alarm.set(due.or_else(|| Some(now() + self.server.timing.write)));
        send(&mut self.stream, &self.alarm, bytes).await?;
        self.conn.handle_sent(self.conn.output().len());
        Ok(())
    }

    /// Says goodbye and waits a little for the peer's: bytes that arrive at a closed socket
    /// make the kernel reset the connection, and the peer would lose what we said last.
    async fn part(&mut self) -> Result<(), Lost> {
        if let Some(tls) = &mut self.tls {
            tls.close();
        }
        self.flush().await?;
        self.stream.shutdown(std::net::Shutdown::Write).await.map_err(|_| Lost)?;
        self.alarm.set(Some(now() + self.server.timing.linger));
        let mut dropped = 0;
        while dropped < limits::LINGER_BYTES {
            match self.receive().await? {
                Arrived::Bytes(count) => dropped += count,
                Arrived::Leave => {}
                Arrived::Eof | Arrived::Due => break,
            }
        }
        Ok(())
    }
}

/// Sends all of `bytes`, unless the alarm rings first.
async fn send(stream: &mut TcpStream, alarm: &Alarm, mut bytes: &[u8]) -> Result<(), Lost> {
    poll_fn(|cx| {
        while !bytes.is_empty() {
            if alarm.has_rung() || alarm.is_cut() {
                return Poll::Ready(Err(Lost));
            }
            match Pin::new(&mut *stream).poll_write(cx, bytes) {
                Poll::Ready(Ok(0)) | Poll::Ready(Err(_)) => return Poll::Ready(Err(Lost)),
                Poll::Ready(Ok(count)) => bytes = &bytes[count..],
                Poll::Pending => {
                    alarm.listen(cx.waker());
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    })
    .await
}
