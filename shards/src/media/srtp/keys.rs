//! From DTLS keying material to session keys (RFC 5764 §4.2, RFC 3711 §4.3, RFC 7714 §11).
//!
//! Invariants: every buffer that held a key is wiped when dropped; no `Debug` shows one.
//!
//! Not here: the expanded key schedules that are used per packet (`gcm`, `cm`).

use super::Profile;
use aes::cipher::{BlockEncrypt, KeyInit};
use std::fmt;
use zeroize::Zeroizing;

/// What DTLS exported for SRTP, both directions.
pub struct KeyingMaterial {
    profile: Profile,
    bytes: Zeroizing<[u8; MATERIAL_LEN_MAX]>,
}

impl KeyingMaterial {
    /// `None` unless `bytes` has exactly the length of the profile.
    pub fn new(profile: Profile, bytes: &[u8]) -> Option<Self> {
        if bytes.len() != profile.keying_material_len() {
            return None;
        }
        let mut owned = Zeroizing::new([0; MATERIAL_LEN_MAX]);
        owned[..bytes.len()].copy_from_slice(bytes);
        Some(Self { profile, bytes: owned })
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// The master keys of what we send and of what we receive, in that order. `we_are_client`
    /// is our role in the DTLS handshake.
    pub fn split(&self, we_are_client: bool) -> (MasterKey, MasterKey) {
        let (key_len, salt_len) = (self.profile.key_len(), self.profile.salt_len());
        // RFC 5764 §4.2: client key, server key, client salt, server salt.
        let (keys, salts) = self.bytes.split_at(2 * key_len);
        let (client_key, server_key) = keys.split_at(key_len);
        let (client_salt, server_salt) = salts[..2 * salt_len].split_at(salt_len);
        let client = MasterKey::new(self.profile, client_key, client_salt);
        let server = MasterKey::new(self.profile, server_key, server_salt);
        if we_are_client { (client, server) } else { (server, client) }
    }
}

impl fmt::Debug for KeyingMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyingMaterial").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The master key and salt of one direction.
pub struct MasterKey {
    profile: Profile,
    key: Zeroizing<[u8; KEY_LEN_MAX]>,
    /// Left-aligned and zero-padded. RFC 7714 §11 pads a 96-bit salt to the 112 bits of
    /// RFC 3711 in just this way, so the derivation below needs no case for it.
    salt: Zeroizing<[u8; SALT_LEN_MAX]>,
}

impl MasterKey {
    fn new(profile: Profile, key: &[u8], salt: &[u8]) -> Self {
        let mut owned = Self {
            profile,
            key: Zeroizing::new([0; KEY_LEN_MAX]),
            salt: Zeroizing::new([0; SALT_LEN_MAX]),
        };
        owned.key[..profile.key_len()].copy_from_slice(key);
        owned.salt[..profile.salt_len()].copy_from_slice(salt);
        owned
    }

    pub fn profile(&self) -> Profile {
        self.profile
    }

    pub(super) fn derive_rtp(&self) -> SessionKeys {
        self.derive(0)
    }

    pub(super) fn derive_rtcp(&self) -> SessionKeys {
        self.derive(3)
    }

    /// RFC 3711 §4.3.2: the labels are encryption, authentication, salt, in that order.
    fn derive(&self, first_label: u8) -> SessionKeys {
        let mut keys = SessionKeys {
            profile: self.profile,
            key: Zeroizing::new([0; KEY_LEN_MAX]),
            auth: Zeroizing::new([0; AUTH_LEN]),
            salt: Zeroizing::new([0; SALT_LEN_MAX]),
        };
        self.expand(first_label, &mut keys.key[..self.profile.key_len()]);
        self.expand(first_label + 1, &mut *keys.auth);
        self.expand(first_label + 2, &mut keys.salt[..self.profile.salt_len()]);
        keys
    }

    /// The pseudo-random function of RFC 3711 §4.3.3, with a key derivation rate of 0: AES in
    /// counter mode under the master key, from (label ‖ 0) XOR master salt.
    fn expand(&self, label: u8, out: &mut [u8]) {
        let mut input = Zeroizing::new([0u8; 16]);
        input[..SALT_LEN_MAX].copy_from_slice(&*self.salt);
        // The label is the top octet of the 56-bit key_id, which is right-aligned in 112 bits.
        input[7] ^= label;
        for (counter, piece) in (0u8..).zip(out.chunks_mut(16)) {
            input[15] = counter;
            let mut block = Zeroizing::new(*input);
            let block_ref = (&mut *block).into();
            match self.profile {
                Profile::AeadAes256Gcm => {
                    aes::Aes256Enc::new((&*self.key).into()).encrypt_block(block_ref);
                }
                Profile::AeadAes128Gcm | Profile::Aes128CmSha1_80 => {
                    aes::Aes128Enc::new(self.key[..16].into()).encrypt_block(block_ref);
                }
            }
            piece.copy_from_slice(&block[..piece.len()]);
        }
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MasterKey").field("profile", &self.profile).finish_non_exhaustive()
    }
}

/// The keys of SRTP or of SRTCP in one direction, on their way into a key schedule.
pub(super) struct SessionKeys {
    pub(super) profile: Profile,
    pub(super) key: Zeroizing<[u8; KEY_LEN_MAX]>,
    /// Used by the HMAC profile only.
    pub(super) auth: Zeroizing<[u8; AUTH_LEN]>,
    pub(super) salt: Zeroizing<[u8; SALT_LEN_MAX]>,
}

const KEY_LEN_MAX: usize = 32;
const SALT_LEN_MAX: usize = 14;
/// HMAC-SHA1's key (RFC 3711 §8.2).
const AUTH_LEN: usize = 20;
const MATERIAL_LEN_MAX: usize = Profile::AeadAes256Gcm.keying_material_len();

#[cfg(test)]
mod tests {
    use super::super::tests::hex;
    use super::*;

    #[test]
    fn derivation_matches_rfc_3711_b3() {
        let key = hex("E1F97A0D3E018BE0D64FA32C06DE4139");
        let salt = hex("0EC675AD498AFEEBB6960B3AABE6");
        let keys = MasterKey::new(Profile::Aes128CmSha1_80, &key, &salt).derive_rtp();
        assert_eq!(keys.key[..16], hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(keys.salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(keys.auth[..], hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA4"));
    }

    #[test]
    fn each_side_sends_with_the_key_the_other_receives_with() {
        let profile = Profile::AeadAes128Gcm;
        let bytes: Vec<u8> = (0..profile.keying_material_len() as u8).collect();
        let material = KeyingMaterial::new(profile, &bytes).unwrap();
        let (client_tx, client_rx) = material.split(true);
        let (server_tx, server_rx) = material.split(false);
        assert_eq!(*client_tx.key, *server_rx.key);
        assert_eq!(*client_rx.salt, *server_tx.salt);
        assert_eq!(client_tx.key[..16], bytes[..16]);
        assert_eq!(server_tx.key[..16], bytes[16..32]);
        assert_eq!(client_tx.salt[..12], bytes[32..44]);
        assert_eq!(server_tx.salt[..12], bytes[44..56]);
    }

    #[test]
    fn material_of_another_length_is_refused() {
        assert!(KeyingMaterial::new(Profile::AeadAes256Gcm, &[0; 87]).is_none());
        assert!(KeyingMaterial::new(Profile::AeadAes256Gcm, &[0; 88]).is_some());
        assert!(KeyingMaterial::new(Profile::Aes128CmSha1_80, &[0; 56]).is_none());
    }

    #[test]
    fn debug_shows_no_key() {
        let material = KeyingMaterial::new(Profile::AeadAes128Gcm, &[0xAB; 56]).unwrap();
        let shown = format!("{material:?} {:?}", material.split(true).0);
        assert!(!shown.contains("171") && !shown.to_lowercase().contains("ab, "));
        assert!(shown.contains("AeadAes128Gcm"));
    }
}
