//! ICE, DTLS and BUNDLE as descriptions tell them: one transport for all m-lines.
//!
//! Invariants: this side is an ICE-lite agent, and the DTLS server unless the
//! client insists on being it; the client's
//! certificate never changes; candidates stand in the BUNDLE-tagged section only, where every
//! client looks for them (RFC 8843, 7.1.3).
//!
//! Not here: ICE and DTLS themselves.

use std::net::SocketAddr;

use super::description::{Description, Section, Setup, Transport};
use super::error::{BadTransport, SdpError};

/// Our end of the transport.
#[derive(Debug, Clone, Copy)]
pub struct LocalTransport<'a> {
    pub ufrag: &'a str,
    pub pwd: &'a str,
    /// As SDP has it: `sha-256 AA:BB…`.
    pub fingerprint: &'a str,
    /// Host candidates over UDP, best first.
    pub candidates: &'a [SocketAddr],
}

/// The client's end of the transport.
#[derive(Clone, PartialEq, Eq)]
pub struct RemoteTransport {
    pub ufrag: String,
    pub pwd: String,
    /// SHA-256 of the client's certificate.
    pub fingerprint: [u8; 32],
    /// The credentials differ from those negotiated before.
    pub ice_restart: bool,
    /// We are the DTLS client: the other side would only be the server.
    pub we_are_dtls_client: bool,
}

/// Without the password.
impl std::fmt::Debug for RemoteTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteTransport")
            .field("ufrag", &self.ufrag)
            .field("ice_restart", &self.ice_restart)
            .finish_non_exhaustive()
    }
}

/// The transport of the tagged section, and the `a=setup` that answers its own.
pub(super) fn read(
    section: &Section,
    previous: Option<&RemoteTransport>,
) -> Result<(RemoteTransport, Setup), SdpError> {
    let Transport { ufrag: Some(ufrag), pwd: Some(pwd), .. } = &section.transport else {
        return Err(BadTransport::MissingIce.into());
    };
    let well_formed = |text: &str, least| {
        (least..=256).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
    };
    if !well_formed(ufrag, 4) {
        return Err(BadTransport::Ice("a=ice-ufrag").into());
    }
    if !well_formed(pwd, 22) {
        return Err(BadTransport::Ice("a=ice-pwd").into());
    }
    let fingerprint = fingerprint(&section.transport.fingerprints)?;
    if previous.is_some_and(|previous| previous.fingerprint != fingerprint) {
        return Err(BadTransport::FingerprintChanged.into());
    }
    let same = |previous: &RemoteTransport| previous.ufrag == *ufrag && previous.pwd == *pwd;
    let ice_restart = previous.is_some_and(|previous| !same(previous));
    let we_are_dtls_client = match (previous, section.transport.setup) {
        // RFC 8842, 5.5: the association that is up stays as it is, whatever is said of it.
        (Some(previous), _) => previous.we_are_dtls_client,
        // RFC 4145, 4.1: saying nothing means active.
        (None, Some(Setup::ActPass | Setup::Active) | None) => false,
        (None, Some(Setup::Passive)) => true,
        (None, Some(setup @ Setup::HoldConn)) => {
            return Err(BadTransport::DtlsRole(setup.name()).into());
        }
    };
    // What is answered must complement what was said, also where nothing comes of it.
    let reply = match section.transport.setup {
        Some(Setup::Passive) => Setup::Active,
        Some(Setup::Active) => Setup::Passive,
        _ if we_are_dtls_client => Setup::Active,
        _ => Setup::Passive,
    };
    let (ufrag, pwd) = (ufrag.clone(), pwd.clone());
    let remote = RemoteTransport { ufrag, pwd, fingerprint, ice_restart, we_are_dtls_client };
    Ok((remote, reply))
}

/// The only algorithm DTLS checks here is SHA-256, which every client offers.
fn fingerprint(lines: &[String]) -> Result<[u8; 32], SdpError> {
    let digest = lines.iter().find_map(|line| {
        let (algorithm, digest) = line.split_once(' ')?;
        algorithm.eq_ignore_ascii_case("sha-256").then(|| digest.trim())
    });
    let digest = digest.ok_or(BadTransport::MissingFingerprint)?;
    let mut bytes = [0; 32];
    let mut parts = digest.split(':');
    for byte in &mut bytes {
        let part = parts.next().filter(|part| part.len() == 2);
        let part = part.filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
        let value = part.and_then(|part| u8::from_str_radix(part, 16).ok());
        *byte = value.ok_or(BadTransport::Fingerprint)?;
    }
    if parts.next().is_some() {
        return Err(BadTransport::Fingerprint.into());
    }
    Ok(bytes)
}

/// Checks that all live lines share one transport, `mids` being those of the sections and
/// `live` telling which are not stopped.
pub(super) fn check_bundle(
    description: &Description,
    mids: &[String],
    live: &[bool],
) -> Result<(), SdpError> {
    let group = description.bundle.as_deref().unwrap_or_default();
    if let Some(unknown) = group.iter().find(|mid| !mids.contains(mid)) {
        return Err(BadTransport::UnknownBundled(SdpError::shown(unknown)).into());
    }
    let count = live.iter().filter(|&&live| live).count();
    if description.bundle.is_none() {
        // RFC 8843 needs a group even for one line, but for one line it changes nothing.
        return if count <= 1 { Ok(()) } else { Err(BadTransport::MissingBundle.into()) };
    }
    match mids.iter().zip(live).find(|(mid, live)| **live && !group.contains(mid)) {
        Some((mid, _)) => Err(BadTransport::NotBundled(mid.clone()).into()),
        None => Ok(()),
    }
}

/// Tells our transport in a description whose sections are otherwise complete. `bundle` are
/// the mids of the live sections in BUNDLE order; without a group, there is one such section.
pub(super) fn tell(
    description: &mut Description,
    bundle: &[String],
    grouped: bool,
    setup: Setup,
    local: &LocalTransport<'_>,
) {
    description.ice_lite = true;
    description.bundle = grouped.then(|| bundle.to_vec());
    let tagged = bundle.first();
    for section in description.sections.iter_mut().filter(|section| section.port != 0) {
        section.transport = Transport {
            ufrag: Some(local.ufrag.to_owned()),
            pwd: Some(local.pwd.to_owned()),
            fingerprints: vec![local.fingerprint.to_owned()],
            setup: Some(setup),
        };
        if section.mid.as_ref() == tagged {
            section.candidates = candidates(local.candidates);
        }
    }
}

/// RFC 8839, 5.1 with the priorities of RFC 8445, 5.1.2.1, in the order given.
fn candidates(addresses: &[SocketAddr]) -> Vec<String> {
    let line = |(rank, address): (u16, &SocketAddr)| {
        let priority = 126_u32 << 24 | u32::from(u16::MAX - rank) << 8 | 255;
        let (ip, port) = (address.ip(), address.port());
        format!("{} 1 udp {priority} {ip} {port} typ host", rank + 1)
    };
    (0..u16::MAX).zip(addresses).map(line).collect()
}
