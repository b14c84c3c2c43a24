//! What leaves through a session: its key, its destination, its transport-wide numbering.
//!
//! Invariants: an SSRC's indexes go on where they stopped, as long as its m-line could send
//! again: a (key, SSRC, index) is sealed once, ever.

use std::net::SocketAddr;

use super::sdp::Line;
use crate::media::srtp::Sealer;
use crate::outbox::Destination;
use crate::switch::pull::Numbering;

#[derive(Debug, Default)]
pub struct Egress {
    sealer: Option<Sealer>,
    /// The client's address, and ours that it must leave from.
    pub to: Option<(SocketAddr, SocketAddr)>,
    transport_seq: u16,
    /// Where former pulls stopped, by SSRC.
    numbering: Vec<(u32, Numbering)>,
}

impl Egress {
    /// Takes the key of a handshake. Under a new key, rollover counters begin at 0.
    pub fn key(&mut self, sealer: Sealer) {
        self.sealer = Some(sealer);
        for (_, numbering) in &mut self.numbering {
            *numbering = numbering.without_rollover();
        }
    }

    /// The key and the destination, once both are there.
    #[inline]
    pub fn open(&self) -> Option<(&Sealer, SocketAddr, SocketAddr)> {
        let (remote, local) = self.to?;
        Some((self.sealer.as_ref()?, remote, local))
    }

    pub fn sealer_mut(&mut self) -> Option<&mut Sealer> {
        self.sealer.as_mut()
    }

    /// What a run of packets needs, looked up once: the key, the destination, and the last
    /// transport-wide sequence number plus one.
    #[inline]
    pub fn lend(&mut self) -> Option<(&Sealer, Destination, &mut u16)> {
        let (remote, local) = self.to?;
        Some((self.sealer.as_ref()?, Destination { remote, local }, &mut self.transport_seq))
    }

    /// A pull on this SSRC stopped here.
    pub fn retire(&mut self, ssrc: u32, numbering: Numbering) {
        self.numbering.retain(|(other, _)| *other != ssrc);
        self.numbering.push((ssrc, numbering));
    }

    pub fn numbering(&self, ssrc: u32) -> Option<Numbering> {
        self.numbering.iter().find(|(other, _)| *other == ssrc).map(|(_, numbering)| *numbering)
    }

    /// Forgets the SSRCs that no m-line sends on any more, and so none will again: new ones
    /// are drawn for new m-lines.
    pub fn keep_numbering_of(&mut self, lines: &[Line]) {
        let sends = |ssrc: u32| {
            lines.iter().any(|line| line.sending.as_ref().is_some_and(|s| s.ssrc == ssrc))
        };
        self.numbering.retain(|(ssrc, _)| sends(*ssrc));
    }

    /// Asks for the key to be in the cache soon.
    #[inline]
    pub fn prefetch(&self) {
        if let Some(sealer) = &self.sealer {
            sealer.prefetch();
        }
    }
}
