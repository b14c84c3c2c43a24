//! Steering by classic BPF: STUN requests by ufrag, everything else by the kernel's hash; or, on
//! a port of one shard, what can wait apart.
//!
//! The program sees the UDP payload from offset 0 and returns the index of a socket; any index
//! that no socket has makes the kernel use its hash.
//!
//! Invariants: every load is preceded by a check of the length, because a load out of bounds
//! ends the program with 0, which would be shard 0.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use super::super::socket::Socket;
use super::{
    ATTRIBUTES_MAX, LETTER_RANGES, LINK_BITS, LINK_VALUE, PATIENT, Patient, STUN_BINDING_REQUEST,
    STUN_COOKIE, STUN_HEADER_BYTES, STUN_USERNAME,
};

/// Which of a shared port's sockets gets what: in force for all sockets that share the address
/// of `member`.
pub(super) fn steer(member: &Socket) -> io::Result<()> {
    attach(member, by_ufrag())
}

/// What can wait to the second of the two sockets that share the address of `member`, everything else
/// to the first.
pub(super) fn part(member: &Socket) -> io::Result<()> {
    attach(member, patient_apart())
}

/// What comes over links to the shard that it names, the rest to the first socket.
pub(super) fn links(member: &Socket) -> io::Result<()> {
    attach(member, links_apart())
}

fn attach(member: &Socket, mut code: Vec<libc::sock_filter>) -> io::Result<()> {
    let program = libc::sock_fprog { len: code.len() as u16, filter: code.as_mut_ptr() };
    // SAFETY: `program` and the instructions it points to are live, its length is right,
    // and the kernel copies them.
    let status = unsafe {
        libc::setsockopt(
            member.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn patient_apart() -> Vec<libc::sock_filter> {
    let mut p = Assembler::default();
    p.op(LOAD_LENGTH, 0);
    p.jump_unless(JUMP_GE, 4, Label::Urgent);
    p.op(STORE, LENGTH);
    for (kind, Patient { bits, value, unit, rest }) in PATIENT.into_iter().enumerate() {
        let other = Label::OtherThan(kind);
        p.op(LOAD_16, 0);
        p.op(AND, bits.into());
        p.jump_unless(JUMP_EQ, value.into(), other);
        p.op(LOAD_16, 2);
        p.op(SHIFT_LEFT, unit.into());
        p.op(ADD, rest.into());
        p.op(A_TO_X, 0);
        p.op(LOAD, LENGTH);
        p.jump_if(JUMP_GT_X, 0, Label::Urgent);
        p.op(RETURN, 1);
        p.bind(other);
    }
    p.bind(Label::Urgent);
    p.op(RETURN, 0);
    p.finish()
}

fn links_apart() -> Vec<libc::sock_filter> {
    let mut p = Assembler::default();
    p.op(LOAD_LENGTH, 0);
    p.jump_unless(JUMP_GE, 2, Label::Urgent);
    p.op(LOAD_16, 0);
    p.op(AND, LINK_BITS.into());
    p.jump_unless(JUMP_EQ, LINK_VALUE.into(), Label::Urgent);
    p.op(LOAD_16, 0);
    p.op(AND, 0xff);
    p.op(ADD, 1);
    p.op(RETURN_A, 0);
    p.bind(Label::Urgent);
    p.op(RETURN, 0);
    p.finish()
}

fn by_ufrag() -> Vec<libc::sock_filter> {
    let mut p = Assembler::default();
    let header = STUN_HEADER_BYTES as u32;
    p.op(LOAD_LENGTH, 0);
    p.jump_unless(JUMP_GE, header + 8, Label::Hash);
    p.op(STORE, LENGTH);
    p.op(LOAD_16, 0);
    p.jump_unless(JUMP_EQ, u32::from(STUN_BINDING_REQUEST), Label::Hash);
    p.op(LOAD_32, 4);
    p.jump_unless(JUMP_EQ, STUN_COOKIE, Label::Hash);
    p.op(X_IMMEDIATE, header);
    for _ in 0..ATTRIBUTES_MAX {
        // X is at an attribute: is there its head and one byte of value?
        p.op(X_TO_A, 0);
        p.op(ADD, 5);
        p.op(A_TO_X, 0);
        p.op(LOAD, LENGTH);
        p.jump_unless(JUMP_GE_X, 0, Label::Hash);
        p.op(X_TO_A, 0);
        p.op(SUB, 5);
        p.op(A_TO_X, 0);
        p.op(LOAD_16_AT_X, 0);
        p.jump_if(JUMP_EQ, u32::from(STUN_USERNAME), Label::Username);
        // On to the next: padded to four bytes.
        p.op(LOAD_16_AT_X, 2);
        p.op(ADD, 3);
        p.op(AND, !3);
        p.op(ADD_X, 0);
        p.op(ADD, 4);
        p.op(A_TO_X, 0);
    }
    p.jump(Label::Hash);
    p.bind(Label::Username);
    p.op(LOAD_8_AT_X, 4);
    for (first, last, shard) in LETTER_RANGES {
        p.jump_unless(JUMP_GE, u32::from(first), Label::Hash);
        // Past this range: over its two instructions.
        p.code.push(filter(JUMP_GT, 2, 0, u32::from(last)));
        p.op(ADD, u32::from(shard).wrapping_sub(u32::from(first)));
        p.op(RETURN_A, 0);
    }
    p.bind(Label::Hash);
    p.op(RETURN, u32::MAX);
    p.finish()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Username,
    Hash,
    Urgent,
    /// Past what is for one kind of [`PATIENT`].
    OtherThan(usize),
}

/// Conditional jumps reach only 255 instructions far, so each conditional one is made to
/// skip, or not, an unconditional one that reaches everywhere.
#[derive(Default)]
struct Assembler {
    code: Vec<libc::sock_filter>,
    jumps: Vec<(usize, Label)>,
    bound: Vec<(Label, usize)>,
}

impl Assembler {
    fn op(&mut self, code: u16, k: u32) {
        self.code.push(filter(code, 0, 0, k));
    }

    fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.op(JUMP, 0);
    }

    fn jump_if(&mut self, condition: u16, k: u32, to: Label) {
        self.code.push(filter(condition, 0, 1, k));
        self.jump(to);
    }

    fn jump_unless(&mut self, condition: u16, k: u32, to: Label) {
        self.code.push(filter(condition, 1, 0, k));
        self.jump(to);
    }

    fn bind(&mut self, label: Label) {
        self.bound.push((label, self.code.len()));
    }

    fn finish(mut self) -> Vec<libc::sock_filter> {
        for (at, label) in self.jumps {
            let target = self.bound.iter().find(|(bound, _)| *bound == label);
            let target = target.expect("every label is bound").1;
            self.code[at].k = (target - at - 1) as u32;
        }
        self.code
    }
}

fn filter(code: u16, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// The scratch cell that keeps the payload's length.
const LENGTH: u32 = 0;

// linux/bpf_common.h, linux/filter.h: class, then size and mode, or operation and operand.
const LOAD_32: u16 = 0x20;
const LOAD_16: u16 = 0x28;
const LOAD_16_AT_X: u16 = 0x48;
const LOAD_8_AT_X: u16 = 0x50;
const LOAD_LENGTH: u16 = 0x80;
const LOAD: u16 = 0x60;
const STORE: u16 = 0x02;
const X_IMMEDIATE: u16 = 0x01;
const A_TO_X: u16 = 0x07;
const X_TO_A: u16 = 0x87;
const ADD: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const SUB: u16 = 0x14;
const AND: u16 = 0x54;
const SHIFT_LEFT: u16 = 0x64;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;
const JUMP_GT_X: u16 = 0x2d;
const JUMP_GE_X: u16 = 0x3d;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
