//! What a machine's processor runs: an instruction that halts it, for ever.

use alloc::vec;
use alloc::vec::Vec;

/// Firmware of a PC: 64 KiB that end at 4 GiB, with the first instruction 16 bytes before the end.
pub(super) fn pc() -> Vec<u8> {
    const HLT: u8 = 0xF4;
    let mut rom = vec![HLT; 0x1_0000];
    // cli; hlt; jmp to the hlt.
    put(&mut rom, 0xFFF0, &[0xFA, HLT, 0xEB, 0xFD]);
    rom
}

/// Firmware of g3beige: 4 MiB that end at 4 GiB, with the first instruction at 0xFFF00100. It allows the processor to
/// doze and sets it to power saving with interrupts off; a shorter image would spin.
pub(super) fn g3beige() -> Vec<u8> {
    // lis r3,0x80; mtspr HID0,r3; lis r4,4; mtmsr r4; b .; b .
    const NAP: [u32; 6] = [0x3C60_0080, 0x7C70_FBA6, 0x3C80_0004, 0x7C80_0124, 0x4800_0000, 0x4800_0000];
    let stay = 0x4800_0000u32.to_be_bytes();
    let mut rom: Vec<u8> = stay.iter().copied().cycle().take(4 << 20).collect();
    let code: Vec<u8> = NAP.iter().flat_map(|word| word.to_be_bytes()).collect();
    let at = rom.len().saturating_sub(0xF_FF00);
    put(&mut rom, at, &code);
    rom
}

/// The beginning of an m68k machine's RAM: without firmware it starts at address 0.
pub(super) fn m68k() -> Vec<u8> {
    // stop #0x2700; bra to the stop.
    vec![0x4E, 0x72, 0x27, 0x00, 0x60, 0xFA]
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    for (to, from) in to.iter_mut().skip(at).zip(bytes) {
        *to = *from;
    }
}
