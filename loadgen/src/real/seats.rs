//! The peers of a worker, each with its socket, its timer, and who waits for what of it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use tokio::sync::oneshot::Sender;

use super::clock;
use super::orders::{Order, PeerId};
use super::socket::{Basin, Socket};
use super::worker::{Due, Settings};
use crate::api::{Cause, Failure};
use crate::peer::{Common, Moment, Peer, Stage};
use crate::probe::Published;
use crate::report::tally::Tally;

/// When whose timer is due; entries that were overtaken are dropped when they come up.
pub(super) type Timers = BinaryHeap<Due>;

#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: Vec<Option<Seat>>,
    free: Vec<u32>,
    generations: Vec<u32>,
}

#[derive(Debug)]
struct Seat {
    peer: Peer,
    socket: Socket,
    /// What is queued for it in the timers.
    due: Option<Instant>,
    overrun: u32,
    connected: Option<Sender<Result<(), Failure>>>,
    flowing: Option<Sender<()>>,
    /// Waits for media that arrives after this, nanoseconds since the epoch.
    again: Option<(u64, Sender<()>)>,
}

impl Seats {
    /// Does what was ordered, and answers.
    pub(super) fn obey(
        &mut self,
        order: Order,
        settings: &Settings,
        epoll: &Epoll,
        timers: &mut Timers,
        tally: &mut Tally,
    ) {
        let moment = clock::moment();
        let common = &settings.common;
        let place = match order {
            Order::Open { seed, reply } => {
                let _ = reply.send(self.open(seed, settings, epoll, moment));
                return;
            }
            Order::Offer { peer, lines, reply } => {
                let offer = self.with(peer, |seat| seat.peer.offer(&lines, moment.now));
                let _ = reply.send(offer.and_then(|offer| offer));
                peer.place
            }
            Order::OfferRestart { peer, reply } => {
                let offer = self.with(peer, |seat| seat.peer.offer_restart(moment.now));
                let _ = reply.send(offer.and_then(|offer| offer));
                peer.place
            }
            Order::Accept { peer, sdp, reply } => {
                let done = self.with(peer, |seat| seat.peer.accept(&sdp, common, moment));
                let _ = reply.send(done.and_then(|done| done));
                peer.place
            }
            Order::Answer { peer, sdp, reply } => {
                let answer = self.with(peer, |seat| seat.peer.answer(&sdp, common, moment));
                let _ = reply.send(answer.and_then(|answer| answer));
                peer.place
            }
            Order::Close { peer, goodbye } => {
                self.close(peer, goodbye, moment, tally);
                return;
            }
            Order::Rebind { peer } => {
                let moved = self.with(peer, |seat| seat.rebind(peer.place, settings, epoll));
                if let Err(failure) = moved.and_then(|moved| moved) {
                    tally.fail(failure);
                }
                peer.place
            }
            order => {
                let Some(place) = self.watch(order, moment) else { return };
                place
            }
        };
        self.settle(place, timers);
    }

    /// Orders that only concern what is waited for.
    fn watch(&mut self, order: Order, moment: Moment) -> Option<u32> {
        let (peer, done) = match order {
            Order::Expect { peer, mid, track } => {
                (peer, self.with(peer, |seat| seat.peer.expect(&mid, track)))
            }
            Order::Publish { peer, on } => {
                (peer, self.with(peer, |seat| seat.peer.publish(on, moment)))
            }
            Order::Leave { peer } => (peer, self.with(peer, |seat| seat.peer.leave())),
            Order::WhenConnected { peer, reply } => {
                (peer, self.with(peer, |seat| seat.connected = Some(reply)))
            }
            Order::WhenFlowing { peer, reply } => {
                (peer, self.with(peer, |seat| seat.flowing = Some(reply)))
            }
            Order::WhenMediaAgain { peer, reply } => {
                (peer, self.with(peer, |seat| seat.again = Some((moment.unix, reply))))
            }
            Order::Obstacle { peer, reply } => (
                peer,
                self.with(peer, |seat| {
                    let _ = reply.send(seat.peer.obstacle());
                }),
            ),
            _ => return None,
        };
        done.ok().map(|()| peer.place)
    }

    fn open(
        &mut self,
        seed: u64,
        settings: &Settings,
        epoll: &Epoll,
        moment: Moment,
    ) -> Result<PeerId, Failure> {
        let socket = Socket::open(settings.local).map_err(|error| no_socket(&error))?;
        let address = socket.address().map_err(|error| no_socket(&error))?;
        let peer = Peer::new(&settings.common, address, seed, moment.now)?;
        let place = self.free.pop().unwrap_or_else(|| {
            self.seats.push(None);
            self.generations.push(0);
            self.seats.len() as u32 - 1
        });
        watch_socket(epoll, &socket, place)?;
        self.seats[place as usize] = Some(Seat {
            peer,
            socket,
            due: None,
            overrun: 0,
            connected: None,
            flowing: None,
            again: None,
        });
        Ok(PeerId { place, generation: self.generations[place as usize] })
    }

    fn close(&mut self, id: PeerId, goodbye: bool, moment: Moment, tally: &mut Tally) {
        let at = id.place as usize;
        if self.generations.get(at) != Some(&id.generation) {
            return;
        }
        // Its socket leaves the watch when it closes.
        let Some(mut seat) = self.seats[at].take() else { return };
        if goodbye {
            seat.peer.close(moment.now);
            seat.flush();
        }
        seat.peer.finish(tally);
        self.generations[at] += 1;
        self.free.push(id.place);
    }

    fn with<T>(&mut self, id: PeerId, run: impl FnOnce(&mut Seat) -> T) -> Result<T, Failure> {
        let at = id.place as usize;
        let current = self.generations.get(at) == Some(&id.generation);
        let seat = self.seats.get_mut(at).and_then(Option::as_mut).filter(|_| current);
        let gone = || Failure::new(Cause::Local, "the peer is gone");
        seat.map(run).ok_or_else(gone)
    }

    /// Takes one message from a socket that has some; returns how many it took. `look` is when
    /// it was looked at.
    pub(super) fn receive(
        &mut self,
        place: u32,
        look: Moment,
        basin: &mut Basin,
        common: &Common,
        timers: &mut Timers,
        tally: &mut Tally,
    ) -> usize {
        let Some(Some(seat)) = self.seats.get_mut(place as usize) else { return 0 };
        // An error is an ICMP message that came for an earlier datagram: the next is sent again.
        let Ok(Some(message)) = seat.socket.receive(basin) else { return 0 };
        tally.overrun += u64::from(message.overrun.saturating_sub(seat.overrun));
        seat.overrun = message.overrun.max(seat.overrun);
        let moment = arrival(look, message.arrived);
        for datagram in message.datagrams() {
            seat.peer.receive(message.source, datagram, moment, common, tally);
        }
        self.settle(place, timers);
        1
    }

    /// Runs what is due.
    pub(super) fn run_timers(&mut self, timers: &mut Timers, moment: Moment, tally: &mut Tally) {
        while let Some(Reverse((at, place))) = timers.peek().copied()
            && at <= moment.now
        {
            timers.pop();
            let Some(Some(seat)) = self.seats.get_mut(place as usize) else { continue };
            if seat.due != Some(at) {
                continue;
            }
            seat.due = None;
            let socket = &seat.socket;
            let mut unsent = 0;
            let mut send = |to: SocketAddr, bytes: &[u8]| {
                unsent += u64::from(!socket.send(to, bytes));
            };
            // Stamps say when a packet was sent, not when the timers began to be run.
            seat.peer.handle_timeout(clock::moment(), tally, &mut send);
            tally.unsent += unsent;
            self.settle(place, timers);
        }
    }

    /// After anything: what it wants to send, who can be answered, when it wants to be called.
    fn settle(&mut self, place: u32, timers: &mut Timers) {
        let Some(Some(seat)) = self.seats.get_mut(place as usize) else { return };
        seat.flush();
        seat.answer();
        let timeout = seat.peer.timeout();
        if let Some(at) = timeout
            && seat.due.is_none_or(|due| at < due)
        {
            seat.due = Some(at);
            timers.push(Reverse((at, place)));
        }
    }

    /// Nobody publishes any more. Timers that were set for it find nothing to do.
    pub(super) fn hush(&mut self) {
        let moment = clock::moment();
        for seat in self.seats.iter_mut().flatten() {
            seat.peer.publish(false, moment);
        }
    }

    pub(super) fn published(&self) -> Published {
        let mut published = Published::new();
        self.seats.iter().flatten().for_each(|seat| seat.peer.published(&mut published));
        published
    }

    pub(super) fn begin(&mut self, published: &Published) {
        self.seats.iter_mut().flatten().for_each(|seat| seat.peer.begin(published));
    }

    pub(super) fn draw_line(&mut self, published: &Published) {
        self.seats.iter_mut().flatten().for_each(|seat| seat.peer.draw_line(published));
    }

    pub(super) fn lacking(&self) -> u64 {
        self.seats.iter().flatten().map(|seat| seat.peer.lacking()).sum()
    }

    /// Counts what stopped.
    pub(super) fn count_stopped(&mut self, tally: &mut Tally) {
        let moment = clock::moment();
        for seat in self.seats.iter_mut().flatten() {
            // Who waits for media is judged by how long it waits.
            let begins = seat.flowing.as_ref().is_some_and(|reply| !reply.is_closed());
            let moves = seat.again.as_ref().is_some_and(|(_, reply)| !reply.is_closed());
            if !begins && !moves {
                seat.peer.count_stopped(moment, tally);
            }
        }
    }

    /// Counts what is missing from before the line.
    pub(super) fn close_books(&mut self, tally: &mut Tally) {
        self.seats.iter_mut().flatten().for_each(|seat| seat.peer.close_books(tally));
    }

    /// What turned out lost since the last call.
    pub(super) fn settle_losses(&mut self, tally: &mut Tally) {
        for seat in self.seats.iter_mut().flatten() {
            seat.peer.settle_losses(tally);
        }
    }
}

impl Seat {
    fn flush(&mut self) {
        for (to, bytes) in self.peer.poll_outgoing() {
            self.socket.send(to, &bytes);
        }
    }

    /// Tells those who wait for what has come true.
    fn answer(&mut self) {
        match self.peer.stage() {
            Stage::Connecting => {}
            Stage::Connected => {
                if let Some(reply) = self.connected.take() {
                    let _ = reply.send(Ok(()));
                }
            }
            Stage::Closed => {
                if let Some(reply) = self.connected.take() {
                    let what = "the server closed the transport while it came up";
                    let _ = reply.send(Err(Failure::new(Cause::Closed, what)));
                }
            }
        }
        if self.flowing.is_some() && self.peer.take_first_media().is_some() {
            let _ = self.flowing.take().map(|reply| reply.send(()));
        }
        let media = self.peer.last_media();
        if let Some((_, reply)) = self.again.take_if(|(since, _)| media > *since) {
            let _ = reply.send(());
        }
    }

    /// Takes another socket; the old one's datagrams are lost, as with a NAT.
    fn rebind(&mut self, place: u32, settings: &Settings, epoll: &Epoll) -> Result<(), Failure> {
        let socket = Socket::open(settings.local).map_err(|error| no_socket(&error))?;
        watch_socket(epoll, &socket, place)?;
        self.socket = socket;
        self.overrun = 0;
        self.peer.moved();
        Ok(())
    }
}

/// When a message came, on both clocks: the kernel says it on one of them.
fn arrival(look: Moment, unix: u64) -> Moment {
    if unix == 0 {
        return look;
    }
    let ago = Duration::from_nanos(look.unix.saturating_sub(unix));
    Moment { now: look.now.checked_sub(ago).unwrap_or(look.now), unix }
}

fn watch_socket(epoll: &Epoll, socket: &Socket, place: u32) -> Result<(), Failure> {
    let event = EpollEvent::new(EpollFlags::EPOLLIN, u64::from(place));
    epoll.add(socket, event).map_err(|error| no_socket(&io::Error::from(error)))
}

fn no_socket(error: &io::Error) -> Failure {
    let advice = match error.raw_os_error() {
        Some(nix::libc::EMFILE) => ": raise the limit of open files (ulimit -n)",
        _ => "",
    };
    Failure::new(Cause::Local, format!("no UDP socket for a peer: {error}{advice}"))
}
