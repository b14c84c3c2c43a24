//! One PeerConnection: negotiation, transport, keys.

pub mod sdp;
