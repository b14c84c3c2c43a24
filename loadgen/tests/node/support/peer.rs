//! A peer as a browser would be one: str0m over a socket, on a thread of its own. It sends a
//! packet on each of its tracks every 20 ms, and keeps what it receives.

use std::collections::BTreeMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use loadgen::api::{Cause, Endpoint, Failure, Kind, LineWish, Offer};
use shards::session::keys;
use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::{RtpWrite, SeqNo};
use str0m::{Candidate, Event, Input, Output, Rtc};
use tokio::sync::oneshot;

enum Wish {
    Offer(Vec<LineWish>, oneshot::Sender<Offer>),
    Restart(oneshot::Sender<Offer>),
    Accept(String, oneshot::Sender<Result<(), Failure>>),
    Answer(String, oneshot::Sender<Result<String, Failure>>),
    /// Payloads by mid, as far as they came.
    Got(oneshot::Sender<BTreeMap<String, Vec<Vec<u8>>>>),
}

pub(crate) struct Peer {
    wishes: Sender<Wish>,
}

impl Peer {
    /// `name` begins every payload it sends.
    pub(crate) fn start(address: &str, name: &'static str) -> Self {
        let (wishes, taken) = channel();
        let socket = UdpSocket::bind(address).unwrap();
        std::thread::spawn(move || Thread::new(socket, name).run(&taken));
        Self { wishes }
    }

    async fn ask<T>(&self, wish: impl FnOnce(oneshot::Sender<T>) -> Wish) -> T {
        let (told, telling) = oneshot::channel();
        self.wishes.send(wish(told)).unwrap();
        telling.await.expect("the peer lives")
    }

    /// Waits for `count` packets on an m-line; returns their payloads.
    pub(crate) async fn payloads(&self, mid: &str, count: usize) -> Vec<Vec<u8>> {
        for _ in 0..2000 {
            let mut got = self.ask(Wish::Got).await;
            let payloads = got.remove(mid).unwrap_or_default();
            if payloads.len() >= count {
                return payloads;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("nothing came on {mid}");
    }
}

impl Endpoint for Peer {
    async fn offer(&self, lines: Vec<LineWish>) -> Result<Offer, Failure> {
        Ok(self.ask(|told| Wish::Offer(lines, told)).await)
    }

    async fn offer_restart(&self) -> Result<Offer, Failure> {
        Ok(self.ask(Wish::Restart).await)
    }

    async fn accept(&self, answer: String) -> Result<(), Failure> {
        self.ask(|told| Wish::Accept(answer, told)).await
    }

    async fn answer(&self, offer: String) -> Result<String, Failure> {
        self.ask(|told| Wish::Answer(offer, told)).await
    }
}

struct Thread {
    rtc: Rtc,
    socket: UdpSocket,
    address: SocketAddr,
    name: &'static str,
    pending: Option<SdpPendingOffer>,
    sending: Vec<(Mid, MediaKind, u64)>,
    got: BTreeMap<String, Vec<Vec<u8>>>,
    connected: bool,
    next: Instant,
}

impl Thread {
    fn new(socket: UdpSocket, name: &'static str) -> Self {
        let now = Instant::now();
        let address = socket.local_addr().unwrap();
        let mut rtc = Rtc::builder()
            .set_crypto_provider(keys::provider())
            .set_rtp_mode(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .build(now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap());
        Self {
            rtc,
            socket,
            address,
            name,
            pending: None,
            sending: Vec::new(),
            got: BTreeMap::new(),
            connected: false,
            next: now,
        }
    }

    fn run(mut self, wishes: &Receiver<Wish>) {
        let mut buffer = [0; 2000];
        self.socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        loop {
            match wishes.try_recv() {
                Ok(wish) => self.fulfil(wish),
                Err(std::sync::mpsc::TryRecvError::Empty) => {}
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
            self.send_media();
            while self.output() {}
            let now = Instant::now();
            if let Ok((len, source)) = self.socket.recv_from(&mut buffer)
                && let Ok(contents) = buffer[..len].try_into()
            {
                let receive =
                    Receive { proto: Protocol::Udp, source, destination: self.address, contents };
                let _ = self.rtc.handle_input(Input::Receive(now, receive));
            }
            let _ = self.rtc.handle_input(Input::Timeout(now));
        }
    }

    fn output(&mut self) -> bool {
        match self.rtc.poll_output() {
            Ok(Output::Transmit(t)) => {
                let _ = self.socket.send_to(&t.contents, t.destination);
            }
            Ok(Output::Event(Event::Connected)) => self.connected = true,
            Ok(Output::Event(Event::RtpPacket(packet))) => {
                // Once it is known by its SSRC, packets need not name the line.
                let mut api = self.rtc.direct_api();
                let mid = api.stream_rx(&packet.header.ssrc).map(|stream| stream.mid().to_string());
                let got = self.got.entry(mid.unwrap_or_default()).or_default();
                got.push(packet.payload.to_vec());
            }
            Ok(Output::Event(_)) => {}
            Ok(Output::Timeout(_)) | Err(_) => return false,
        }
        true
    }

    fn send_media(&mut self) {
        let now = Instant::now();
        if !self.connected || now < self.next {
            return;
        }
        self.next = now + Duration::from_millis(20);
        for (mid, kind, number) in &mut self.sending {
            let codec = if *kind == MediaKind::Audio { Codec::Opus } else { Codec::Vp8 };
            let params = self.rtc.codec_config().iter().find(|p| p.spec().codec == codec);
            let pt = params.expect("a codec that was enabled").pt();
            let Some(media) = self.rtc.media(*mid) else { continue };
            if !media.direction().is_sending() {
                continue;
            }
            let mut api = self.rtc.direct_api();
            let Some(stream) = api.stream_tx_by_mid(*mid, None) else { continue };
            // A VP8 keyframe of one packet; to Opus it is only bytes.
            let mut payload = vec![0x10, 0, 0, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xf0, 0x00];
            payload.extend_from_slice(self.name.as_bytes());
            let timestamp = (*number as u32).wrapping_mul(1800);
            stream.write_rtp(
                RtpWrite::new(pt, SeqNo::from(100 + *number), timestamp, now, payload).marker(true),
            );
            *number += 1;
        }
    }

    fn fulfil(&mut self, wish: Wish) {
        match wish {
            Wish::Offer(lines, told) => {
                let mut change = self.rtc.sdp_api();
                let mut mids = Vec::new();
                for line in lines {
                    let kind = match line.kind {
                        Kind::Audio => MediaKind::Audio,
                        Kind::Video => MediaKind::Video,
                    };
                    let direction =
                        if line.sends { Direction::SendOnly } else { Direction::RecvOnly };
                    let mid = change.add_media(kind, direction, None, None, None);
                    mids.push((mid, kind, line.sends));
                }
                let (offer, pending) = change.apply().expect("something to offer");
                self.pending = Some(pending);
                let sending = mids.iter().filter(|(_, _, sends)| *sends);
                self.sending.extend(sending.map(|(mid, kind, _)| (*mid, *kind, 0)));
                let mids = mids.iter().map(|(mid, _, _)| mid.to_string()).collect();
                let _ = told.send(Offer { sdp: offer.to_sdp_string(), mids });
            }
            Wish::Restart(told) => {
                let mut change = self.rtc.sdp_api();
                change.ice_restart(true);
                let (offer, pending) = change.apply().expect("something to offer");
                self.pending = Some(pending);
                let _ = told.send(Offer { sdp: offer.to_sdp_string(), mids: Vec::new() });
            }
            Wish::Accept(answer, told) => {
                let _ = told.send(self.accept(&answer));
            }
            Wish::Answer(offer, told) => {
                let answer = SdpOffer::from_sdp_string(&offer).map_err(|e| negotiation(&e));
                let answer = answer
                    .and_then(|o| self.rtc.sdp_api().accept_offer(o).map_err(|e| negotiation(&e)));
                let _ = told.send(answer.map(|answer| answer.to_sdp_string()));
            }
            Wish::Got(told) => {
                let _ = told.send(self.got.clone());
            }
        }
    }

    fn accept(&mut self, answer: &str) -> Result<(), Failure> {
        let answer = SdpAnswer::from_sdp_string(answer).map_err(|e| negotiation(&e))?;
        let pending = self.pending.take().expect("an offer was made");
        self.rtc.sdp_api().accept_answer(pending, answer).map_err(|e| negotiation(&e))
    }
}

fn negotiation(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(Cause::Negotiation, error.to_string())
}
