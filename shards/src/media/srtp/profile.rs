//! The SRTP protection profiles that DTLS may negotiate (RFC 5764 §4.1.2, RFC 7714 §14.2).
//!
//! Not here: their algorithms (`gcm`, `cm`); their order of preference, which is the DTLS
//! implementation's.

use std::fmt;

/// An SRTP protection profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    AeadAes256Gcm,
    AeadAes128Gcm,
    Aes128CmSha1_80,
}

impl Profile {
    /// The length of a master key and of an encryption key derived from it.
    pub const fn key_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm => 32,
            Self::AeadAes128Gcm | Self::Aes128CmSha1_80 => 16,
        }
    }

    /// The length of a master salt and of a salt derived from it.
    pub const fn salt_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 12,
            Self::Aes128CmSha1_80 => 14,
        }
    }

    /// What DTLS has to export: a key and a salt for either direction (RFC 5764 §4.2).
    pub const fn keying_material_len(self) -> usize {
        2 * (self.key_len() + self.salt_len())
    }

    /// How much longer a protected RTP packet is than a plain one.
    pub const fn tag_len(self) -> usize {
        match self {
            Self::AeadAes256Gcm | Self::AeadAes128Gcm => 16,
            Self::Aes128CmSha1_80 => 10,
        }
    }
}

impl TryFrom<dimpl::SrtpProfile> for Profile {
    type Error = UnknownProfile;

    fn try_from(profile: dimpl::SrtpProfile) -> Result<Self, UnknownProfile> {
        match profile {
            dimpl::SrtpProfile::AEAD_AES_256_GCM => Ok(Self::AeadAes256Gcm),
            dimpl::SrtpProfile::AEAD_AES_128_GCM => Ok(Self::AeadAes128Gcm),
            dimpl::SrtpProfile::AES128_CM_SHA1_80 => Ok(Self::Aes128CmSha1_80),
            _ => Err(UnknownProfile),
        }
    }
}

/// DTLS negotiated a profile that is not implemented here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownProfile;

impl fmt::Display for UnknownProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("unknown SRTP protection profile")
    }
}

impl std::error::Error for UnknownProfile {}
