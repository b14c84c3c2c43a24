//! How a track's codecs reach a subscriber: payload types matched, RED rewritten or unwrapped.

use crate::command::ItemError;
use crate::media::format::{Codec, CodecSpec};
use crate::session::Session;
use crate::session::sdp::{NegotiatedCodec, find};
use crate::switch::feed::TrackMeta;
use crate::switch::pull::{CODECS_PER_TRACK, Outgoing, Outlet, RedOutlet};

/// How a track leaves by an m-line; `None` when the client lacks what the track is sent in:
/// the codec `in_use`, by its index, once a packet came.
pub(super) fn outgoing(
    session: &Session,
    mid: &str,
    meta: &TrackMeta,
    in_use: Option<u8>,
) -> Option<Outgoing> {
    outgoing_anyhow(session, mid, meta).filter(|out| carries(&out.outlets, in_use))
}

/// How a track leaves by an m-line, even if nothing of it gets through now.
pub(super) fn outgoing_anyhow(session: &Session, mid: &str, meta: &TrackMeta) -> Option<Outgoing> {
    let sending = session.negotiator.line(mid)?.sending.as_ref()?;
    let mut codecs = [None; CODECS_PER_TRACK];
    for (codec, spec) in codecs.iter_mut().zip(&meta.codecs) {
        *codec = Some(spec.codec);
    }
    Some(Outgoing {
        ssrc: sending.ssrc,
        rtx_ssrc: sending.rtx_ssrc,
        mid: mid.to_owned(),
        extensions: sending.extensions,
        allow_mixed: sending.allow_mixed,
        outlets: outlets(&sending.codecs, meta),
        codecs,
    })
}

/// Whether a client with these codecs can be sent the track as it is now.
pub(super) fn can_carry(
    negotiated: &[NegotiatedCodec],
    meta: &TrackMeta,
    in_use: Option<u8>,
) -> bool {
    carries(&outlets(negotiated, meta), in_use)
}

/// The refusal that names what the client lacks.
pub(super) fn mismatch(meta: &TrackMeta, in_use: Option<u8>) -> ItemError {
    let spec = meta.codecs.get(usize::from(in_use.unwrap_or(0)));
    ItemError::CodecMismatch(spec.map_or("none", |spec| spec.codec.name()).to_owned())
}

/// The codec in use must get through. Before the first packet, any will do: the publisher
/// has not chosen.
pub(super) fn carries(outlets: &[Outlet; CODECS_PER_TRACK], in_use: Option<u8>) -> bool {
    match in_use {
        Some(codec) => outlets.get(usize::from(codec)).is_some_and(|outlet| outlet.present),
        None => outlets.iter().any(|outlet| outlet.present),
    }
}

fn outlets(negotiated: &[NegotiatedCodec], meta: &TrackMeta) -> [Outlet; CODECS_PER_TRACK] {
    let mut outlets = [Outlet::default(); CODECS_PER_TRACK];
    let opus = negotiated.iter().find(|codec| codec.codec == Codec::Opus);
    let has_opus = meta.codecs.iter().any(|spec| spec.codec == Codec::Opus);
    for (outlet, spec) in outlets.iter_mut().zip(&meta.codecs) {
        *outlet = outlet_for(spec, negotiated, opus, has_opus);
    }
    outlets
}

fn outlet_for(
    spec: &CodecSpec,
    negotiated: &[NegotiatedCodec],
    opus: Option<&NegotiatedCodec>,
    publisher_has_opus: bool,
) -> Outlet {
    let matched = find(negotiated, spec);
    let present = |pt, rtx_pt, red| Outlet { pt, rtx_pt, present: true, red };
    match (spec.codec, matched, opus) {
        (Codec::Red, Some(red), Some(opus)) if publisher_has_opus => {
            present(red.pt, None, RedOutlet::Rewrite { to: opus.pt })
        }
        (Codec::Red, _, Some(opus)) => present(opus.pt, None, RedOutlet::Unwrap),
        (Codec::Red, _, None) | (_, None, _) => Outlet::default(),
        (_, Some(codec), _) => present(codec.pt, codec.rtx_pt, RedOutlet::Plain),
    }
}
