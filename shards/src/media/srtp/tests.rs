//! SRTP as a whole: the vectors of RFC 7714, round trips, tampering, replay.

use super::keys::SessionKeys;
use super::*;
use proptest::prelude::*;
use zeroize::Zeroizing;

const PROFILES: [Profile; 3] =
    [Profile::AeadAes256Gcm, Profile::AeadAes128Gcm, Profile::Aes128CmSha1_80];

// RFC 7714 §16 and §17: the plain packets, and their protected forms.
const RTP: &str = "8040f17b 8041f8d3 5501a0b2 47616c6c 69612065 7374206f 6d6e6973 20646976
                   69736120 696e2070 61727465 73207472 6573";
const RTP_128: &str = "8040f17b 8041f8d3 5501a0b2 f24de3a3 fb34de6c acba861c 9d7e4bca be633bd5
                       0d294e6f 42a5f47a 51c7d19b 36de3adf 8833899d 7f27beb1 6a9152cf 765ee439
                       0cce";
const RTP_256: &str = "8040f17b 8041f8d3 5501a0b2 32b1de78 a822fe12 ef9f78fa 332e33aa b1801238
                       9a58e2f3 b50b2a02 76ffae0f 1ba63799 b87b7aa3 db36dfff d6b0f9bb 7878d7a7
                       6c13";
const RTCP: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930 4c756e61
                    deadbeef deadbeef deadbeef deadbeef deadbeef";
const RTCP_128: &str = "81c8000d 4d617273 63e94885 dcdab67c a727d766 2f6b7e99 7ff5c0f7 6c06f32d
                        c676a5f1 730d6fda 4ce09b46 86303ded 0bb9275b c84aa458 96cf4d2f c5abf872
                        45d9eade 800005d4";
const RTCP_256: &str = "81c8000d 4d617273 d50ae4d1 f5ce5d30 4ba297e4 7d470c28 2c3ece5d bffe0a50
                        a2eaa5c1 110555be 8415f658 c61de047 6f1b6fad 1d1eb30c 4446839f 57ff6f6c
                        b26ac3be 800005d4";
/// The same compound, authenticated only.
const RTCP_128_TAGGED: &str = "81c8000d 4d617273 4e545031 4e545032 52545020 0000042a 0000e930
                               4c756e61 deadbeef deadbeef deadbeef deadbeef deadbeef 841dd968
                               3dd78ec9 2ae58790 125f62b3 000005d4";

#[test]
fn rtp_matches_rfc_7714_section_16() {
    for (profile, protected) in
        [(Profile::AeadAes128Gcm, RTP_128), (Profile::AeadAes256Gcm, RTP_256)]
    {
        let (plain, protected) = (hex(RTP), hex(protected));
        let keys = rfc_7714_keys(profile);
        let mut out = [0; 128];
        out[..12].copy_from_slice(&plain[..12]);
        let sealer = Sealer::from_session_keys(&keys, 0);
        let len = sealer.seal_rtp(&mut out, 12, &plain[12..], 0x5501_a0b2, 0xf17b);
        assert_eq!(out[..len], protected);
        assert_eq!(len, plain.len() + sealer.rtp_overhead());

        let mut opened = [0; 128];
        let opener = Opener::from_session_keys(&keys);
        let len = opener.open_rtp(&protected, 12, 0x5501_a0b2, 0xf17b, &mut opened);
        assert_eq!(opened[..len.unwrap()], plain[12..]);
    }
}

#[test]
fn rtcp_matches_rfc_7714_section_17() {
    for (profile, protected) in
        [(Profile::AeadAes128Gcm, RTCP_128), (Profile::AeadAes256Gcm, RTCP_256)]
    {
        let (plain, protected) = (hex(RTCP), hex(protected));
        let keys = rfc_7714_keys(profile);
        let mut sealer = Sealer::from_session_keys(&keys, 0x5d4);
        let mut out = [0; 128];
        let len = sealer.seal_rtcp(&plain, &mut out).unwrap();
        assert_eq!(out[..len], protected);
        assert_eq!(len, plain.len() + sealer.rtcp_overhead());

        let mut opened = [0; 128];
        let mut opener = Opener::from_session_keys(&keys);
        let len = opener.open_rtcp(&protected, &mut opened).unwrap();
        assert_eq!(opened[..len], plain);
    }
}

#[test]
fn unencrypted_srtcp_is_refused_even_if_authentic() {
    let mut opener = Opener::from_session_keys(&rfc_7714_keys(Profile::AeadAes128Gcm));
    let refused = opener.open_rtcp(&hex(RTCP_128_TAGGED), &mut [0; 128]);
    assert_eq!(refused, Err(RtcpFault::Unencrypted));
}

#[test]
fn any_changed_byte_of_rtp_is_noticed() {
    for profile in PROFILES {
        let (sealer, opener) = session(profile);
        let mut packet = [7; 80];
        let len = sealer.seal_rtp(&mut packet, 12, &[1; 40], 9, 70_000);
        let mut out = [0; 80];
        for at in 0..len {
            let mut forged = packet;
            forged[at] ^= 0x10;
            out.fill(0);
            let opened = opener.open_rtp(&forged[..len], 12, 9, 70_000, &mut out);
            assert_eq!(opened, Err(Unauthentic), "{profile:?}: byte {at}");
            assert_eq!(out, [0; 80], "{profile:?}: plaintext left behind");
        }
        // The wrong rollover counter is a changed packet too.
        assert_eq!(
            opener.open_rtp(&packet[..len], 12, 9, 70_000 - 65_536, &mut out),
            Err(Unauthentic)
        );
        assert_eq!(opener.open_rtp(&packet[..len], 12, 9, 70_000, &mut out), Ok(40));
    }
}

#[test]
fn any_changed_byte_of_rtcp_is_noticed_and_moves_no_window() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = session(profile);
        let mut packet = [0; 80];
        let len = sealer.seal_rtcp(&hex(RTCP), &mut packet).unwrap();
        let mut out = [0; 80];
        for at in 0..len {
            let mut forged = packet;
            forged[at] ^= 0x10;
            assert!(opener.open_rtcp(&forged[..len], &mut out).is_err(), "{profile:?}: byte {at}");
        }
        assert_eq!(opener.open_rtcp(&packet[..len], &mut out), Ok(hex(RTCP).len()));
    }
}

#[test]
fn replayed_srtcp_is_refused() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = session(profile);
        let (mut first, mut second, mut out) = ([0; 80], [0; 80], [0; 80]);
        let len = sealer.seal_rtcp(&hex(RTCP), &mut first).unwrap();
        sealer.seal_rtcp(&hex(RTCP), &mut second).unwrap();
        assert!(opener.open_rtcp(&second[..len], &mut out).is_ok());
        assert!(opener.open_rtcp(&first[..len], &mut out).is_ok(), "reordering is no replay");
        for packet in [first, second] {
            assert_eq!(opener.open_rtcp(&packet[..len], &mut out), Err(RtcpFault::Replayed));
        }
    }
}

#[test]
fn srtcp_indexes_run_out_rather_than_wrap() {
    let keys = rfc_7714_keys(Profile::AeadAes128Gcm);
    let mut sealer = Sealer::from_session_keys(&keys, u32::MAX >> 1);
    assert!(sealer.seal_rtcp(&hex(RTCP), &mut [0; 128]).is_some());
    assert!(sealer.seal_rtcp(&hex(RTCP), &mut [0; 128]).is_none());
    assert!(sealer.seal_rtcp(&hex(RTCP), &mut [0; 128]).is_none());
}

#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "sealed twice")]
fn sealing_an_index_twice_is_noticed_in_debug_builds() {
    let (sealer, _) = session(Profile::AeadAes128Gcm);
    sealer.seal_rtp(&mut [0; 64], 12, &[0; 10], 1, 5);
    sealer.seal_rtp(&mut [0; 64], 12, &[0; 10], 1, 5);
}

#[test]
fn packets_too_short_and_buffers_too_small_are_refused() {
    for profile in PROFILES {
        let (mut sealer, mut opener) = session(profile);
        let mut packet = [0; 80];
        let len = sealer.seal_rtcp(&hex(RTCP)[..8], &mut packet).unwrap();
        for short in 0..len {
            let refused = opener.open_rtcp(&packet[..short], &mut [0; 80]);
            assert_eq!(refused, Err(RtcpFault::Truncated));
            assert!(opener.open_rtp(&packet[..short], 12, 1, 1, &mut [0; 80]).is_err());
        }
        assert_eq!(opener.open_rtcp(&packet[..len], &mut [0; 7]), Err(RtcpFault::Unauthentic));
        assert_eq!(opener.open_rtcp(&packet[..len], &mut [0; 8]), Ok(8));
    }
}

#[test]
fn debug_of_sealer_and_opener_shows_the_profile_only() {
    let (sealer, opener) = session(Profile::AeadAes256Gcm);
    assert_eq!(format!("{sealer:?}"), "Sealer { profile: AeadAes256Gcm, .. }");
    assert_eq!(format!("{opener:?}"), "Opener { profile: AeadAes256Gcm, .. }");
    sealer.prefetch();
}

proptest! {
    #[test]
    fn rtp_comes_back_as_it_was(
        profile in prop::sample::select(&PROFILES[..]),
        header in prop::collection::vec(any::<u8>(), 12..90),
        payload in prop::collection::vec(any::<u8>(), 0..1300),
        ssrc: u32,
        index in 0u64..1 << 48,
        in_place: bool,
    ) {
        let (sealer, opener) = session(profile);
        let mut packet = header.clone();
        packet.resize(1500, 0);
        let len = if in_place {
            packet[header.len()..][..payload.len()].copy_from_slice(&payload);
            sealer.seal_rtp_in_place(&mut packet, header.len(), payload.len(), ssrc, index)
        } else {
            sealer.seal_rtp(&mut packet, header.len(), &payload, ssrc, index)
        };
        prop_assert_eq!(&packet[..header.len()], &header[..]);
        prop_assert_eq!(len, header.len() + payload.len() + profile.tag_len());
        prop_assert!(packet[len..].iter().all(|&byte| byte == 0));
        let mut out = vec![0; 1500];
        let opened = opener.open_rtp(&packet[..len], header.len(), ssrc, index, &mut out);
        prop_assert_eq!(opened, Ok(payload.len()));
        prop_assert_eq!(&out[..payload.len()], &payload[..]);
    }

    #[test]
    fn rtcp_comes_back_as_it_was(
        profile in prop::sample::select(&PROFILES[..]),
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 8..400), 1..5),
    ) {
        let (mut sealer, mut opener) = session(profile);
        for plain in packets {
            let (mut sealed, mut out) = ([0; 500], [0; 500]);
            let len = sealer.seal_rtcp(&plain, &mut sealed).unwrap();
            prop_assert_eq!(opener.open_rtcp(&sealed[..len], &mut out), Ok(plain.len()));
            prop_assert_eq!(&out[..plain.len()], &plain[..]);
        }
    }

    #[test]
    fn garbage_is_refused(
        profile in prop::sample::select(&PROFILES[..]),
        packet in prop::collection::vec(any::<u8>(), 0..200),
        header_len in 0usize..220,
    ) {
        let (_, mut opener) = session(profile);
        let mut out = [0; 200];
        prop_assert!(opener.open_rtp(&packet, header_len, 1, 1, &mut out).is_err());
        prop_assert!(opener.open_rtcp(&packet, &mut out).is_err());
    }
}

/// What the client sends with, and what the server opens that with.
fn session(profile: Profile) -> (Sealer, Opener) {
    let bytes: Vec<u8> = (0..profile.keying_material_len()).map(|n| n as u8 ^ 0x5A).collect();
    let material = KeyingMaterial::new(profile, &bytes).unwrap();
    (Sealer::new(&material.split(true).0), Opener::new(&material.split(false).1))
}

/// The RFC gives session keys; nothing is derived.
fn rfc_7714_keys(profile: Profile) -> SessionKeys {
    let mut keys = SessionKeys {
        profile,
        key: Zeroizing::new([0; 32]),
        auth: Zeroizing::new([0; 20]),
        salt: Zeroizing::new([0; 14]),
    };
    for (n, byte) in (0u8..).zip(&mut keys.key[..profile.key_len()]) {
        *byte = n;
    }
    keys.salt[..12].copy_from_slice(b"Quid pro quo");
    keys
}

pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|digit| digit as u8).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
