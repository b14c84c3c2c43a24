//! An assembler for as much eBPF as steering needs.
//!
//! Invariants: jumps go to labels and are resolved once, at the end. Safe code only: what
//! comes out is bytes, and the kernel's verifier judges them.

/// A register. `R0` results, `R1`-`R5` arguments (lost in calls), `R6`-`R9` kept, `R10` stack.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R10 = 10,
}

/// How wide a load or store is.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum Width {
    B4 = 0x00,
    B2 = 0x08,
    B1 = 0x10,
    B8 = 0x18,
}

/// What a conditional jump compares a register with a number for.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum If {
    Equal = 0x15,
    Above = 0x25,
    NotEqual = 0x55,
    Below = 0xa5,
}

/// The kernel's functions we call, by number (`enum bpf_func_id`).
#[derive(Debug, Clone, Copy)]
#[repr(i32)]
pub(super) enum Helper {
    MapLookup = 1,
    SkbLoadBytes = 26,
    SkbLoadBytesRelative = 68,
    SkSelectReuseport = 82,
}

/// `struct bpf_insn`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Instruction {
    code: u8,
    /// Destination in the low half, source in the high.
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// A place to jump to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Label(usize);

#[derive(Debug, Default)]
pub(super) struct Assembler {
    code: Vec<Instruction>,
    labels: Vec<Option<usize>>,
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    pub(super) fn copy(&mut self, to: Reg, from: Reg) {
        self.emit(0xbf, to, from as u8, 0, 0);
    }

    pub(super) fn set(&mut self, to: Reg, value: i32) {
        self.emit(0xb7, to, 0, 0, value);
    }

    pub(super) fn add(&mut self, to: Reg, value: i32) {
        self.emit(0x07, to, 0, 0, value);
    }

    pub(super) fn add_register(&mut self, to: Reg, from: Reg) {
        self.emit(0x0f, to, from as u8, 0, 0);
    }

    pub(super) fn modulo(&mut self, to: Reg, value: i32) {
        self.emit(0x97, to, 0, 0, value);
    }

    pub(super) fn and(&mut self, to: Reg, value: i32) {
        self.emit(0x57, to, 0, 0, value);
    }

    pub(super) fn shift_left(&mut self, of: Reg, bits: u8) {
        self.emit(0x67, of, 0, 0, bits.into());
    }

    /// Turns the 16 bits just loaded from a packet into a number.
    pub(super) fn network_to_number_16(&mut self, of: Reg) {
        self.emit(0xdc, of, 0, 0, 16);
    }

    /// `to = *(from + offset)`.
    pub(super) fn load(&mut self, width: Width, to: Reg, from: Reg, offset: i16) {
        self.emit(0x61 | width as u8, to, from as u8, offset, 0);
    }

    /// `*(to + offset) = from`.
    pub(super) fn store(&mut self, width: Width, to: Reg, offset: i16, from: Reg) {
        self.emit(0x63 | width as u8, to, from as u8, offset, 0);
    }

    /// `*(to + offset) = value`.
    pub(super) fn store_value(&mut self, width: Width, to: Reg, offset: i16, value: i32) {
        self.emit(0x62 | width as u8, to, 0, offset, value);
    }

    /// `to = ` the map behind descriptor `fd`: two instructions, one of 64 bits.
    pub(super) fn load_map(&mut self, to: Reg, fd: i32) {
        const PSEUDO_MAP_FD: u8 = 1;
        self.emit(0x18, to, PSEUDO_MAP_FD, 0, fd);
        self.emit(0x00, Reg::R0, 0, 0, 0);
    }

    pub(super) fn call(&mut self, helper: Helper) {
        self.emit(0x85, Reg::R0, 0, 0, helper as i32);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(0x05, Reg::R0, 0, 0, 0);
    }

    pub(super) fn jump_if(&mut self, of: Reg, condition: If, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(condition as u8, of, 0, 0, value);
    }

    /// If the number in `of` is above that in `than`.
    pub(super) fn jump_if_above(&mut self, of: Reg, than: Reg, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.emit(0x2d, of, than as u8, 0, 0);
    }

    pub(super) fn exit(&mut self) {
        self.emit(0x95, Reg::R0, 0, 0, 0);
    }

    pub(super) fn finish(mut self) -> Vec<Instruction> {
        for (at, label) in self.jumps {
            let target = self.labels[label.0].expect("every label is bound");
            self.code[at].offset = (target as i64 - at as i64 - 1) as i16;
        }
        self.code
    }

    fn emit(&mut self, code: u8, to: Reg, from: u8, offset: i16, immediate: i32) {
        let registers = to as u8 | from << 4;
        self.code.push(Instruction { code, registers, offset, immediate });
    }
}
