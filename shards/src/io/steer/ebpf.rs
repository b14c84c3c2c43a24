//! Steering by eBPF: a map from peers to shards, then STUN by ufrag, then the kernel's hash; and
//! in all cases what can wait apart.
//!
//! Raw bpf(2), no library: two kinds of map, one program of a few hundred instructions.
//!
//! Invariants: the program passes every datagram to a socket of its choice, as long as that is open.
//! It chooses by the kernel's hash itself, because the kernel would choose among the sockets for
//! what can wait as well. The peers' map is the kernel's LRU map, so it is bounded and never full.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::ebpf_asm::{Assembler, Helper, If, Instruction, Label, Reg, Width};
use super::{
    ATTRIBUTES_MAX, Group, LETTER_RANGES, PATIENT, Patient, SHARDS_MAX, STUN_BINDING_REQUEST,
    STUN_COOKIE, STUN_HEADER_BYTES, STUN_USERNAME,
};
use crate::ids::ShardId;

/// Peers remembered: two addresses for each of 64 thousand sessions, about 12 MiB of the
/// kernel's memory. A peer forgotten too early only takes the detour of a stray.
const FLOWS_MAX: u32 = 128 * 1024;

/// A peer as the map's key: address (IPv4 in the first four bytes), port, family.
const KEY_BYTES: usize = 20;
const KEY_PORT: usize = 16;
const KEY_FAMILY: usize = 18;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// The map of peers. Shared by all shards: every operation is one atomic system call.
#[derive(Debug)]
pub(super) struct FlowMap {
    fd: OwnedFd,
}

impl FlowMap {
    fn create() -> io::Result<Self> {
        let fd = create_map(MAP_LRU_HASH, KEY_BYTES as u32, 4, FLOWS_MAX)?;
        Ok(Self { fd })
    }

    pub(super) fn learn(&self, source: SocketAddr, shard: ShardId) -> io::Result<()> {
        let mut value = u32::from(shard.0).to_ne_bytes();
        element(MAP_UPDATE, &self.fd, &key(source), &mut value)
    }

    /// Not atomic: if the peer moves to another shard in between, that entry is lost, and
    /// learnt again with the peer's next check.
    pub(super) fn forget(&self, source: SocketAddr, shard: ShardId) -> io::Result<()> {
        let mut value = [0; 4];
        element(MAP_LOOKUP, &self.fd, &key(source), &mut value)?;
        if u32::from_ne_bytes(value) != u32::from(shard.0) {
            return Err(io::ErrorKind::NotFound.into());
        }
        element(MAP_DELETE, &self.fd, &key(source), &mut value)
    }
}

/// Puts a program into force for each group, a group being sockets that share an address.
pub(super) fn attach(groups: &[Group<'_>]) -> io::Result<FlowMap> {
    let flows = FlowMap::create()?;
    for group in groups {
        let Some(first) = group.urgent.first() else { continue };
        let sockets = create_map(MAP_SOCKARRAY, 4, 8, 2 * SHARDS_MAX as u32)?;
        let patient =
            group.patient.iter().enumerate().map(|(at, socket)| (SHARDS_MAX + at, socket));
        for (index, socket) in group.urgent.iter().enumerate().chain(patient) {
            let mut value = (socket.as_fd().as_raw_fd() as u64).to_ne_bytes();
            element(MAP_UPDATE, &sockets, &(index as u32).to_ne_bytes(), &mut value)?;
        }
        let apart = !group.patient.is_empty();
        let code = program(flows.fd.as_raw_fd(), sockets.as_raw_fd(), group.urgent.len(), apart);
        let program = load(&code)?;
        let fd = program.as_raw_fd();
        // SAFETY: `fd` is a live c_int of the size given, which the kernel only reads.
        let status = unsafe {
            libc::setsockopt(
                first.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_REUSEPORT_EBPF,
                (&raw const fd).cast(),
                size_of_val(&fd) as libc::socklen_t,
            )
        };
        if status != 0 {
            return Err(io::Error::last_os_error());
        }
        // The group keeps the program, and the program its maps: our descriptors may go.
    }
    Ok(flows)
}

/// Whether the program would be let in.
pub(super) fn probe() -> io::Result<()> {
    let flows = create_map(MAP_LRU_HASH, KEY_BYTES as u32, 4, 1)?;
    let sockets = create_map(MAP_SOCKARRAY, 4, 8, 1)?;
    load(&program(flows.as_raw_fd(), sockets.as_raw_fd(), 1, true)).map(drop)
}

fn key(source: SocketAddr) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    match source {
        SocketAddr::V4(v4) => key[..4].copy_from_slice(&v4.ip().octets()),
        SocketAddr::V6(v6) => key[..16].copy_from_slice(&v6.ip().octets()),
    }
    key[KEY_PORT..KEY_FAMILY].copy_from_slice(&source.port().to_be_bytes());
    key[KEY_FAMILY] = if source.is_ipv4() { FAMILY_V4 } else { FAMILY_V6 };
    key
}

// The program's stack, below R10.
const KEY: i16 = -(KEY_BYTES as i16) - 4; // -24..-4
const SHARD: i16 = KEY - 4;
const HEADER: i16 = SHARD - 20; // a STUN header, then attributes' heads

/// `R6` is the context (`struct sk_reuseport_md`) throughout, `R7` the offset in the datagram,
/// whose byte 0 is the UDP header's; when the shard is known, `R7` is the socket's index.
fn program(flows: i32, sockets: i32, shards: usize, apart: bool) -> Vec<Instruction> {
    let mut p = Assembler::default();
    let [stun, found, select, hash, whole] = std::array::from_fn(|_| p.label());
    p.copy(Reg::R6, Reg::R1);
    build_key(&mut p, hash);
    p.load_map(Reg::R1, flows);
    stack_address(&mut p, Reg::R2, KEY);
    p.call(Helper::MapLookup);
    p.jump_if(Reg::R0, If::Equal, 0, stun);
    p.load(Width::B4, Reg::R1, Reg::R0, 0);
    p.jump(select);

    p.bind(stun);
    find_username(&mut p, found, hash);
    p.bind(found);
    shard_of_letter(&mut p, shards, select, hash);

    p.bind(hash);
    p.load(Width::B4, Reg::R1, Reg::R6, CONTEXT_HASH);
    p.modulo(Reg::R1, shards as i32);

    // The shard is in R1.
    p.bind(select);
    p.copy(Reg::R7, Reg::R1);
    if apart {
        tell_patient(&mut p, whole);
    }
    p.bind(whole);
    p.store(Width::B4, Reg::R10, SHARD, Reg::R7);
    p.copy(Reg::R1, Reg::R6);
    p.load_map(Reg::R2, sockets);
    stack_address(&mut p, Reg::R3, SHARD);
    p.set(Reg::R4, 0);
    p.call(Helper::SkSelectReuseport);
    // A shard that has closed its sockets has no use for what comes. The kernel would choose among
    // all that are left, for whatever they are.
    let chosen = p.label();
    p.jump_if(Reg::R0, If::Equal, 0, chosen);
    p.set(Reg::R0, SK_DROP);
    p.exit();
    p.bind(chosen);
    p.set(Reg::R0, SK_PASS);
    p.exit();
    p.finish()
}

/// The sender's address and port, as [`key`] lays them out.
fn build_key(p: &mut Assembler, hash: Label) {
    let [v4, port] = std::array::from_fn(|_| p.label());
    p.store_value(Width::B8, Reg::R10, KEY, 0);
    p.store_value(Width::B8, Reg::R10, KEY + 8, 0);
    p.store_value(Width::B4, Reg::R10, KEY + 16, 0);
    p.load(Width::B4, Reg::R1, Reg::R6, CONTEXT_ETH_PROTOCOL);
    p.jump_if(Reg::R1, If::Equal, in_packet_16(libc::ETH_P_IP as u16), v4);
    p.jump_if(Reg::R1, If::NotEqual, in_packet_16(libc::ETH_P_IPV6 as u16), hash);
    load_bytes(p, Some(START_AT_NETWORK_HEADER), 8, KEY, 16, hash);
    p.store_value(Width::B1, Reg::R10, KEY + KEY_FAMILY as i16, FAMILY_V6.into());
    p.jump(port);
    p.bind(v4);
    load_bytes(p, Some(START_AT_NETWORK_HEADER), 12, KEY, 4, hash);
    p.store_value(Width::B1, Reg::R10, KEY + KEY_FAMILY as i16, FAMILY_V4.into());
    p.bind(port);
    load_bytes(p, None, 0, KEY + KEY_PORT as i16, 2, hash);
}

/// Finds USERNAME in a STUN binding request and jumps to `found` with its head, and the first
/// byte of its value, on the stack.
fn find_username(p: &mut Assembler, found: Label, hash: Label) {
    load_bytes(p, None, UDP_HEADER_BYTES, HEADER, STUN_HEADER_BYTES, hash);
    p.load(Width::B2, Reg::R1, Reg::R10, HEADER);
    p.jump_if(Reg::R1, If::NotEqual, in_packet_16(STUN_BINDING_REQUEST), hash);
    p.load(Width::B4, Reg::R1, Reg::R10, HEADER + 4);
    p.jump_if(Reg::R1, If::NotEqual, STUN_COOKIE.to_be() as i32, hash);
    p.set(Reg::R7, UDP_HEADER_BYTES + STUN_HEADER_BYTES);
    for _ in 0..ATTRIBUTES_MAX {
        p.copy(Reg::R2, Reg::R7);
        load_bytes_at_r2(p, None, HEADER, 5, hash);
        p.load(Width::B2, Reg::R1, Reg::R10, HEADER);
        p.jump_if(Reg::R1, If::Equal, in_packet_16(STUN_USERNAME), found);
        // On to the next: padded to four bytes.
        p.load(Width::B2, Reg::R1, Reg::R10, HEADER + 2);
        p.network_to_number_16(Reg::R1);
        p.add(Reg::R1, 4 + 3);
        p.and(Reg::R1, !3);
        p.add_register(Reg::R7, Reg::R1);
    }
    p.jump(hash);
}

/// From the first letter of USERNAME to the shard, in R1.
fn shard_of_letter(p: &mut Assembler, shards: usize, select: Label, hash: Label) {
    p.load(Width::B1, Reg::R1, Reg::R10, HEADER + 4);
    for (first, last, shard) in LETTER_RANGES {
        let beyond = p.label();
        p.jump_if(Reg::R1, If::Below, first.into(), hash);
        p.jump_if(Reg::R1, If::Above, last.into(), beyond);
        p.add(Reg::R1, i32::from(shard) - i32::from(first));
        p.jump_if(Reg::R1, If::Above, shards as i32 - 1, hash);
        p.jump(select);
        p.bind(beyond);
    }
    p.jump(hash);
}

/// Adds to R7 what leads to the shard's socket for what can wait, if the datagram can.
fn tell_patient(p: &mut Assembler, whole: Label) {
    load_bytes(p, None, UDP_HEADER_BYTES, HEADER, 4, whole);
    for Patient { bits, value, unit, rest } in PATIENT {
        let other = p.label();
        p.load(Width::B2, Reg::R1, Reg::R10, HEADER);
        p.and(Reg::R1, in_packet_16(bits));
        p.jump_if(Reg::R1, If::NotEqual, in_packet_16(value), other);
        p.load(Width::B2, Reg::R1, Reg::R10, HEADER + 2);
        p.network_to_number_16(Reg::R1);
        p.shift_left(Reg::R1, unit);
        p.add(Reg::R1, i32::from(rest) + UDP_HEADER_BYTES);
        p.load(Width::B4, Reg::R2, Reg::R6, CONTEXT_LENGTH);
        p.jump_if_above(Reg::R2, Reg::R1, whole);
        p.add(Reg::R7, SHARDS_MAX as i32);
        p.jump(whole);
        p.bind(other);
    }
}

fn load_bytes(p: &mut Assembler, from: Option<i32>, at: i32, to: i16, len: i32, hash: Label) {
    p.set(Reg::R2, at);
    load_bytes_at_r2(p, from, to, len, hash);
}

/// Copies `len` bytes of the datagram to the stack, or jumps if there are not as many.
fn load_bytes_at_r2(p: &mut Assembler, from: Option<i32>, to: i16, len: i32, hash: Label) {
    p.copy(Reg::R1, Reg::R6);
    stack_address(p, Reg::R3, to);
    p.set(Reg::R4, len);
    match from {
        Some(header) => {
            p.set(Reg::R5, header);
            p.call(Helper::SkbLoadBytesRelative);
        }
        None => p.call(Helper::SkbLoadBytes),
    }
    p.jump_if(Reg::R0, If::NotEqual, 0, hash);
}

fn stack_address(p: &mut Assembler, to: Reg, offset: i16) {
    p.copy(to, Reg::R10);
    p.add(to, offset.into());
}

/// What a 16-bit field of a packet reads as when loaded.
fn in_packet_16(value: u16) -> i32 {
    value.to_be().into()
}

fn create_map(kind: u32, key: u32, value: u32, entries: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        key: u32,
        value: u32,
        entries: u32,
    }
    let attributes = Attributes { kind, key, value, entries };
    // SAFETY: MAP_CREATE reads the attributes, which hold no pointers.
    owned(unsafe { bpf(MAP_CREATE, &attributes) })
}

/// Updates, looks up or deletes. `value` is read or written as long as the map's values are.
fn element(command: i32, map: &OwnedFd, key: &[u8], value: &mut [u8]) -> io::Result<()> {
    #[repr(C)]
    struct Attributes {
        map: u64,
        key: u64,
        value: u64,
        flags: u64,
    }
    // A delete takes no value, and refuses attributes it does not know.
    let value = if command == MAP_DELETE { 0 } else { value.as_mut_ptr() as u64 };
    let map = map.as_raw_fd() as u64;
    let attributes = Attributes { map, key: key.as_ptr() as u64, value, flags: 0 };
    // SAFETY: every caller passes slices of exactly the sizes that the map was created with,
    // and both outlive the call. `map` is 32 bits and padding, in either byte order of ours.
    let status = unsafe { bpf(command, &attributes) };
    if status < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn load(code: &[Instruction]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_bytes: u32,
        log: u64,
    }
    // sk_select_reuseport is for programs under the GPL only; ours is these few lines.
    let license = c"GPL";
    let attempt = |log: &mut [u8]| {
        let attributes = Attributes {
            kind: PROGRAM_SK_REUSEPORT,
            instructions: code.len() as u32,
            code: code.as_ptr() as u64,
            license: license.as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_bytes: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
        };
        // SAFETY: code, license and log are live, and as long as stated.
        owned(unsafe { bpf(PROGRAM_LOAD, &attributes) })
    };
    attempt(&mut []).inspect_err(|refused| {
        if refused.raw_os_error() != Some(libc::EPERM) {
            // The verifier's reasons, for whoever changes the program.
            let mut log = vec![0; 1 << 16];
            let _ = attempt(&mut log);
            tracing::debug!(verifier = %String::from_utf8_lossy(&log), "eBPF program refused");
        }
    })
}

fn owned(fd: i64) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: bpf(2) just opened it for us (close-on-exec), and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// # Safety
/// `attributes` must be what `command` expects, and pointers in it valid as it demands.
unsafe fn bpf<T>(command: i32, attributes: &T) -> i64 {
    // SAFETY: the caller's promise. The kernel treats members we leave out as zero.
    unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) }
}

const _: () = assert!(cfg!(target_endian = "little"), "`element` pads a 32-bit descriptor");

// linux/bpf.h
const MAP_CREATE: i32 = 0;
const MAP_LOOKUP: i32 = 1;
const MAP_UPDATE: i32 = 2;
const MAP_DELETE: i32 = 3;
const PROGRAM_LOAD: i32 = 5;
const MAP_LRU_HASH: u32 = 9;
const MAP_SOCKARRAY: u32 = 20;
const PROGRAM_SK_REUSEPORT: u32 = 21;
const START_AT_NETWORK_HEADER: i32 = 1;
const SK_PASS: i32 = 1;
const SK_DROP: i32 = 0;
// Offsets in `struct sk_reuseport_md`.
/// From the UDP header on.
const CONTEXT_LENGTH: i16 = 16;
const CONTEXT_ETH_PROTOCOL: i16 = 20;
const CONTEXT_HASH: i16 = 32;
const UDP_HEADER_BYTES: i32 = 8;
