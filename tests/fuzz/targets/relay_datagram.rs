//! A link that receives whatever its authentic other side sends: the bytes are records, each
//! datagram as long as a byte says.
#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use relay::link::{Class, Link, Sink};
use relay::seal::{End, LinkSecret, PairSecret, Sealer};
use relay::wire::{DATAGRAM_MAX, LinkId, Media, OVERHEAD};

struct Void([u8; DATAGRAM_MAX]);

impl Sink for Void {
    fn slot(&mut self) -> &mut [u8] {
        &mut self.0
    }

    fn commit(&mut self, _: usize) {}
}

fuzz_target!(|bytes: &[u8]| {
    let id = |id| LinkId::new(id).expect("24 bits");
    let here = End { node: 1, shard: 0, link: id(1) };
    let there = End { node: 2, shard: 0, link: id(2) };
    let pair = || PairSecret::new(&[7; 32]);
    let mut now = Instant::now();
    let mut link = Link::new(LinkSecret::new(pair(), here, there), now);
    let lane = link.open_lane().expect("the first");
    let mut sealer = Sealer::new(&pair(), &there, &here, now);
    let mut sink = Void([0; DATAGRAM_MAX]);
    let mut rest = bytes;
    let mut seq = 0;
    while let Some((&len, after)) = rest.split_first() {
        let (text, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        now += Duration::from_millis(u64::from(len));
        let mut out = vec![0; text.len() + OVERHEAD];
        sealer.seal(text, &mut out);
        link.handle_datagram(now, &mut out, |_| ()).expect("it is authentic");
        link.handle_timeout(now);
        let media = Media {
            lane,
            layer: 0,
            codec: 0,
            marker: false,
            keyframe: false,
            padding: 0,
            source: 1,
            seq,
            timestamp: 0,
            extensions: &[],
            payload: text,
        };
        while let Some(lost) = link.poll_resend(now) {
            link.resend(now, lost, &Media { seq: lost.seq, ..media }, &mut sink);
        }
        link.push(now, &media, Class::Video, &mut sink);
        seq += 1;
        link.flush(now, &mut sink);
        assert!(link.timeout().is_some());
    }
});
