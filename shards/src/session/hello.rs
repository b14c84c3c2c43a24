//! Recognises a DTLS ClientHello, so that a new association can be told from a repeated flight.

/// The client's random (RFC 5246 §7.4.1.2): equal in every repetition of one handshake.
pub(super) type Random = [u8; 32];

/// The random of a datagram that begins with the first fragment of a ClientHello.
pub(super) fn client_random(datagram: &[u8]) -> Option<Random> {
    let &[content, _, _, epoch_high, epoch_low] = datagram.first_chunk()?;
    // RFC 6347 §4.1: a new association begins in epoch 0.
    if content != HANDSHAKE || epoch_high != 0 || epoch_low != 0 {
        return None;
    }
    // RFC 6347 §4.2.2: type, length, message_seq, fragment_offset, fragment_length.
    let message = datagram.get(RECORD_HEADER..)?;
    let is_first = message.get(6..9)? == [0, 0, 0];
    if *message.first()? != CLIENT_HELLO || !is_first {
        return None;
    }
    message.get(MESSAGE_HEADER + VERSION..)?.first_chunk().copied()
}

/// Whether the datagram begins with an encrypted record, which tells nobody but the holder of
/// the key which association it belongs to: DTLS 1.2 after the first epoch (RFC 6347 §4.1), DTLS
/// 1.3 with its unified header (RFC 9147 §4).
pub(super) fn is_encrypted(datagram: &[u8]) -> bool {
    match datagram {
        [content, _, _, epoch_high, epoch_low, ..] if content & 0xe0 != UNIFIED => {
            (*epoch_high, *epoch_low) != (0, 0)
        }
        [content, ..] => content & 0xe0 == UNIFIED,
        [] => false,
    }
}

const UNIFIED: u8 = 0x20;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RECORD_HEADER: usize = 13;
const MESSAGE_HEADER: usize = 12;
const VERSION: usize = 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(epoch: u8, kind: u8, offset: u8) -> Vec<u8> {
        let mut bytes = vec![HANDSHAKE, 0xfe, 0xff, 0, epoch, 0, 0, 0, 0, 0, 0, 0, 60];
        bytes.extend([kind, 0, 0, 48, 0, 0, 0, 0, offset, 0, 0, 48, 0xfe, 0xfd]);
        bytes.extend([7; 32]);
        bytes
    }

    #[test]
    fn the_random_of_a_first_fragment_is_found() {
        assert_eq!(client_random(&hello(0, CLIENT_HELLO, 0)), Some([7; 32]));
        assert_eq!(client_random(&hello(1, CLIENT_HELLO, 0)), None, "inside an association");
        assert_eq!(client_random(&hello(0, 2, 0)), None, "another message");
        assert_eq!(client_random(&hello(0, CLIENT_HELLO, 9)), None, "a later fragment");
    }

    #[test]
    fn encrypted_records_are_told_from_plain_ones() {
        assert!(!is_encrypted(&hello(0, CLIENT_HELLO, 0)));
        assert!(is_encrypted(&hello(1, CLIENT_HELLO, 0)));
        assert!(is_encrypted(&[0x2f, 0, 0]), "DTLS 1.3");
        assert!(!is_encrypted(&[22, 0, 0]));
    }

    proptest! {
        #[test]
        fn any_bytes_are_borne(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = (client_random(&bytes), is_encrypted(&bytes));
        }
    }
}
