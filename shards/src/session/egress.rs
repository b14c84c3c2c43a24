//! What leaves through a session: its key, its destination, its transport-wide numbering.
//!
//! Invariants: an SSRC's indexes go on where they stopped, as long as its m-line could send
//! again: a (key, SSRC, index) is sealed once, ever.

use std::collections::VecDeque;
use std::mem::offset_of;
use std::net::SocketAddr;

use super::sdp::Line;
use crate::limits::TRACKS_PER_CALL;
use crate::media::srtp::Sealer;
use crate::outbox::Destination;
use crate::switch::pull::Numbering;

/// What every packet needs comes first: see [`HOT`](Self::HOT).
#[derive(Debug, Default)]
#[repr(C)]
pub struct Egress {
    /// The client's address, and ours that it must leave from.
    pub to: Option<(SocketAddr, SocketAddr)>,
    transport_seq: u16,
    sealer: Option<Sealer>,
    /// Where former pulls stopped, by SSRC.
    numbering: Vec<(u32, Numbering)>,
    /// SSRCs drawn lately: those of one call are on no m-line yet.
    drawn: VecDeque<u32>,
}

/// An SSRC for media and one for repairs, for each track of a call.
const DRAWN: usize = 2 * TRACKS_PER_CALL;

impl Egress {
    /// How many bytes from the start every packet that leaves touches.
    pub const HOT: usize = offset_of!(Self, sealer) + Sealer::HOT;

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

    /// Forgets the SSRCs that no m-line owns any more, and so none will send with again: new
    /// ones are drawn for new m-lines. An m-line that does not send now keeps its SSRC for when
    /// it does, under the same key.
    pub fn keep_numbering_of(&mut self, lines: &[Line]) {
        let owned = |ssrc: u32| lines.iter().any(|line| line.reserved_ssrc() == Some(ssrc));
        self.numbering.retain(|(ssrc, _)| owned(*ssrc));
    }

    /// Draws an SSRC that nothing here has, or had lately, and that is not `taken` elsewhere:
    /// two streams with one SSRC would share indexes under one key.
    pub fn draw_ssrc(
        &mut self,
        random: &mut dyn FnMut() -> u64,
        taken: impl Fn(u32) -> bool,
    ) -> u32 {
        let ssrc = loop {
            let ssrc = random() as u32;
            let ours = self.numbering(ssrc).is_some() || self.drawn.contains(&ssrc);
            // 0 is what libwebrtc's probes use; our own are never that.
            if ssrc != 0 && !ours && !taken(ssrc) {
                break ssrc;
            }
        };
        if self.drawn.len() == DRAWN {
            self.drawn.pop_front();
        }
        self.drawn.push_back(ssrc);
        ssrc
    }
}
