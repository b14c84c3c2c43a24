//! A received STUN message, as far as it says whom it is for.

use str0m::ice::StunMessage;

/// A STUN message that names one of our ufrags. Not authenticated yet: that is the session's.
#[derive(Debug)]
pub struct Check<'a> {
    message: StunMessage<'a>,
    bytes: &'a [u8],
}

/// Why a datagram is no check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoCheck {
    Malformed,
    /// A response, or a request without a USERNAME. An ICE-lite agent sends no requests, so it
    /// expects no responses.
    Unaddressed,
}

impl<'a> Check<'a> {
    pub fn parse(bytes: &'a [u8]) -> Result<Self, NoCheck> {
        let message = StunMessage::parse(bytes).map_err(|_| NoCheck::Malformed)?;
        if message.split_username().is_none() {
            return Err(NoCheck::Unaddressed);
        }
        Ok(Self { message, bytes })
    }

    /// Our ufrag: what stands before the colon (RFC 8445 §7.2.2).
    pub fn ufrag(&self) -> &str {
        self.message.split_username().map_or("", |(ours, _)| ours)
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    pub(super) fn priority(&self) -> u32 {
        self.message.prio().unwrap_or(0)
    }

    pub(super) fn nominates(&self) -> bool {
        self.message.use_candidate()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_borne(mut bytes in proptest::collection::vec(any::<u8>(), 20..200)) {
            let _ = Check::parse(&bytes);
            // As far into the parser as bytes without a plan get: right length and cookie.
            bytes[0] = 0;
            bytes[1] = 1;
            let len = (bytes.len() - 20) as u16;
            bytes[2..4].copy_from_slice(&len.to_be_bytes());
            bytes[4..8].copy_from_slice(&0x2112_a442u32.to_be_bytes());
            let _ = Check::parse(&bytes);
        }
    }
}
