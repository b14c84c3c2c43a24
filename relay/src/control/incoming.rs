//! Datagrams, and calls of others: what comes in before anybody has proven anything.
//!
//! Invariants: an answer to a first packet is no longer than QUIC allows (three times what came,
//! RFC 9000 §8.1); a stranger costs no state before it has proven its address.
//!
//! Not here: what an authenticated caller says (`turn`).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{DatagramEvent, Incoming, Transmit};

use super::conn::Conn;
use super::half_open::Door;
use super::{CONNS_MAX, Control, ControlDatagram, ControlFault, HANDSHAKE_MAX};

impl Control {
    pub(super) fn take(
        &mut self,
        now: Instant,
        from: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) {
        let mut answer = Vec::new();
        let bytes = BytesMut::from(datagram);
        match self.quic.endpoint.handle(now, from, local, None, bytes, &mut answer) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(conn) = self.conns.get_mut(&handle.0) {
                    conn.quic.handle_event(event);
                    self.pump(now, handle.0);
                }
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.answer_call(now, incoming),
            Some(DatagramEvent::Response(transmit)) => {
                self.faults.count(ControlFault::Astray);
                self.push_transmit(&transmit, answer);
            }
            None => self.faults.count(ControlFault::Astray),
        }
    }

    fn answer_call(&mut self, now: Instant, incoming: Incoming) {
        let from = incoming.remote_address();
        let proven = incoming.remote_address_validated();
        let member = self.addresses.contains_key(&from);
        let door = self.half_open.door(from.ip(), member, proven);
        let mut answer = Vec::new();
        match door {
            Door::Accept if self.conns.len() < CONNS_MAX => {
                match self.quic.endpoint.accept(incoming, now, &mut answer, None) {
                    Ok((handle, quic)) => {
                        let mut conn = Conn::new(quic, false, now + HANDSHAKE_MAX);
                        conn.half_open = Some(self.half_open.add(from.ip(), proven));
                        self.conns.insert(handle.0, conn);
                        self.pump(now, handle.0);
                    }
                    Err(error) => {
                        self.faults.count(ControlFault::Handshake);
                        if let Some(transmit) = error.response {
                            self.push_transmit(&transmit, answer);
                        }
                    }
                }
            }
            Door::Prove => match self.quic.endpoint.retry(incoming, &mut answer) {
                Ok(transmit) => self.push_transmit(&transmit, answer),
                Err(error) => self.quic.endpoint.ignore(error.into_incoming()),
            },
            Door::Accept | Door::Ignore => {
                self.faults.count(ControlFault::HalfOpen);
                self.quic.endpoint.ignore(incoming);
            }
        }
    }

    pub(super) fn push_transmit(&mut self, transmit: &Transmit, mut bytes: Vec<u8>) {
        bytes.truncate(transmit.size);
        let to = transmit.destination;
        self.transmits.push_back(ControlDatagram { to, bytes, segment: transmit.segment_size });
    }
}
