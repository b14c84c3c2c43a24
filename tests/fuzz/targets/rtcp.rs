//! Compounds of RTCP packets, down to the last iterator.
#![no_main]

use libfuzzer_sys::fuzz_target;
use shards::media::rtcp::{Compound, Packet, XrBlock};

fuzz_target!(|bytes: &[u8]| {
    for packet in Compound::new(bytes) {
        match packet {
            Packet::SenderReport(report) => drop(report.blocks().count()),
            Packet::ReceiverReport(report) => drop(report.blocks().count()),
            Packet::Sdes(sdes) => drop(sdes.cnames().count()),
            Packet::Bye(bye) => drop(bye.ssrcs().count()),
            Packet::Nack(nack) => drop(nack.seqs().count()),
            Packet::Fir(fir) => drop(fir.entries().count()),
            Packet::Remb(remb) => drop(remb.ssrcs().count()),
            Packet::Twcc(twcc) => drop((twcc.statuses().count(), twcc.arrivals().count())),
            Packet::Xr(xr) => {
                for block in xr.blocks() {
                    if let XrBlock::Dlrr(items) = block {
                        let _ = items.iter().count();
                    }
                }
            }
            Packet::Pli(_) => {}
        }
    }
});
