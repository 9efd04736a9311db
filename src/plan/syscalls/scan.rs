//! Finds `syscall` instructions, the number that is in EAX at each, and which functions lead
//! there.
//!
//! The code is decoded once from end to end. A function is everything from its start to the next
//! one's; starts come from symbols, from the unwind table (`.eh_frame_hdr`), and from the targets
//! of calls. A function whose address is taken, in code or in data, counts as called by whoever
//! takes it.

use std::collections::{BTreeSet, HashMap};

use elf::abi::PF_X;
use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

use crate::plan::elf::Object;

/// Calls and addresses taken that are remembered in one file.
const MAX_EDGES: usize = 4_000_000;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sites {
    /// Numbers of calls.
    pub numbers: BTreeSet<u32>,
    /// Sites whose number is not a constant.
    pub unknown: usize,
}

/// One file's code.
#[derive(Default)]
pub struct Code {
    /// Places of calls and their numbers.
    sites: Vec<(u64, Option<u32>)>,
    /// From where, to where.
    edges: Vec<(u64, u64)>,
    /// Starts of functions, sorted.
    starts: Vec<u64>,
    /// Functions that data points to.
    pointed: Vec<u64>,
    /// Calls through the slot of a symbol, by the slot's address: where, EDI if constant.
    through: Vec<(u64, u64, Option<u32>)>,
    /// Symbols of slots.
    slots: HashMap<u64, String>,
}

impl Code {
    /// Decodes a file.
    pub fn read(bytes: &[u8], object: &Object) -> Code {
        let mut code = Code::default();
        let executable: Vec<(u64, u64)> = object
            .segments
            .iter()
            .filter(|segment| segment.p_flags & PF_X != 0)
            .map(|segment| (segment.p_vaddr, segment.p_vaddr.saturating_add(segment.p_filesz)))
            .collect();
        let within =
            |address: u64| executable.iter().any(|(start, end)| (*start..*end).contains(&address));
        code.slots = object.slots.iter().cloned().collect();
        for segment in object.segments.iter().filter(|segment| segment.p_flags & PF_X != 0) {
            let (Ok(start), Ok(len)) =
                (usize::try_from(segment.p_offset), usize::try_from(segment.p_filesz))
            else {
                continue;
            };
            let Some(text) = start.checked_add(len).and_then(|end| bytes.get(start..end)) else {
                continue;
            };
            code.sweep(text, segment.p_vaddr, &within);
        }
        code.starts.extend(object.functions.iter().map(|function| function.address));
        code.starts.extend(object.unwind_starts.iter());
        code.pointed = object.pointers.iter().copied().filter(|&address| within(address)).collect();
        code.starts.extend(&code.pointed);
        code.starts.sort_unstable();
        code.starts.dedup();
        code
    }

    fn sweep(&mut self, text: &[u8], address: u64, within: &dyn Fn(u64) -> bool) {
        let mut decoder = Decoder::with_ip(64, text, address, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let (mut eax, mut edi) = (None, None);
        // Slots that stubs of the procedure linkage table jump through, by the stub's address.
        let mut stubs: HashMap<u64, u64> = HashMap::new();
        let mut calls: Vec<(u64, u64, Option<u32>)> = Vec::new();
        let mut stub_start = address;
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let at = instruction.ip();
            match instruction.mnemonic() {
                Mnemonic::Syscall => {
                    self.sites.push((at, eax));
                    eax = None;
                }
                Mnemonic::Call | Mnemonic::Jmp => {
                    let call = instruction.mnemonic() == Mnemonic::Call;
                    if instruction.op0_kind() == OpKind::NearBranch64 {
                        let target = instruction.near_branch_target();
                        if within(target) && self.edges.len() < MAX_EDGES {
                            self.edges.push((at, target));
                            if call {
                                // A jump may lead to another function, but need not.
                                self.starts.push(target);
                            }
                            calls.push((at, target, edi));
                        }
                    } else if instruction.is_ip_rel_memory_operand() {
                        let slot = instruction.ip_rel_memory_address();
                        if call {
                            self.through.push((at, slot, edi));
                        } else {
                            stubs.insert(stub_start, slot);
                            stubs.insert(at, slot);
                        }
                    }
                    (eax, edi) = (None, None);
                    stub_start = instruction.next_ip();
                }
                Mnemonic::Endbr64 => stub_start = at,
                Mnemonic::Ret => {
                    (eax, edi) = (None, None);
                    stub_start = instruction.next_ip();
                }
                Mnemonic::Nop => stub_start = instruction.next_ip(),
                Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => {
                    let target = instruction.ip_rel_memory_address();
                    if within(target) && self.edges.len() < MAX_EDGES {
                        self.edges.push((at, target));
                        self.starts.push(target);
                    }
                    forget(&instruction, &mut eax, &mut edi);
                }
                Mnemonic::Mov | Mnemonic::Xor => {
                    let value = constant(&instruction);
                    match instruction.op0_register() {
                        Register::EAX | Register::RAX => eax = value,
                        Register::EDI | Register::RDI => edi = value,
                        _ => forget(&instruction, &mut eax, &mut edi),
                    }
                }
                _ if instruction.op_count() == 1
                    && instruction.op0_kind() == OpKind::NearBranch64 =>
                {
                    // A condition that leads to another function.
                    let target = instruction.near_branch_target();
                    if within(target) && self.edges.len() < MAX_EDGES {
                        self.edges.push((at, target));
                    }
                }
                _ => forget(&instruction, &mut eax, &mut edi),
            }
        }
        for (at, target, edi) in calls {
            if let Some(&slot) = stubs.get(&target) {
                self.through.push((at, slot, edi));
            }
        }
    }

    /// Every site.
    pub fn all(&self) -> Sites {
        self.collect(&|_| true)
    }

    /// Sites that can be reached from the functions that others import, from what runs when the
    /// library is loaded, and from what its data points to.
    pub fn reachable(&self, object: &Object, imported: &BTreeSet<&str>) -> Sites {
        let mut reached = vec![false; self.starts.len()];
        let index = |address: u64| self.starts.partition_point(|&start| start <= address);
        let mut stack: Vec<usize> = Vec::new();
        let wanted = object
            .functions
            .iter()
            .filter(|function| imported.contains(function.name.as_str()))
            .map(|function| function.address);
        let roots = wanted
            .chain(object.initialisers.iter().copied())
            .chain(self.pointed.iter().copied())
            .chain(Some(object.entry).filter(|&entry| entry != 0));
        for address in roots {
            if let Some(at) = index(address).checked_sub(1)
                && !std::mem::replace(&mut reached[at], true)
            {
                stack.push(at);
            }
        }
        // Edges by the function that they leave.
        let mut edges: Vec<(usize, usize)> = self
            .edges
            .iter()
            .filter_map(|&(from, to)| {
                Some((index(from).checked_sub(1)?, index(to).checked_sub(1)?))
            })
            .collect();
        edges.sort_unstable();
        edges.dedup();
        while let Some(at) = stack.pop() {
            let start = edges.partition_point(|&(from, _)| from < at);
            for &(from, to) in &edges[start..] {
                if from != at {
                    break;
                }
                if !std::mem::replace(&mut reached[to], true) {
                    stack.push(to);
                }
            }
        }
        self.collect(&|address| match index(address).checked_sub(1) {
            Some(at) => reached[at],
            None => true,
        })
    }

    fn collect(&self, keep: &dyn Fn(u64) -> bool) -> Sites {
        let mut sites = Sites::default();
        for &(_, number) in self.sites.iter().filter(|(at, _)| keep(*at)) {
            match number {
                Some(number) => drop(sites.numbers.insert(number)),
                None => sites.unknown += 1,
            }
        }
        // syscall(2) takes the number as its first argument.
        for (at, slot, edi) in &self.through {
            let is_syscall = self.slots.get(slot).is_some_and(|name| name == "syscall");
            if is_syscall && keep(*at) {
                match edi {
                    Some(number) => drop(sites.numbers.insert(*number)),
                    None => sites.unknown += 1,
                }
            }
        }
        sites
    }
}

/// The constant that an instruction puts into its first operand.
fn constant(instruction: &Instruction) -> Option<u32> {
    match instruction.mnemonic() {
        Mnemonic::Mov => match instruction.op1_kind() {
            OpKind::Immediate32 | OpKind::Immediate32to64 | OpKind::Immediate64 => {
                u32::try_from(instruction.immediate(1)).ok()
            }
            _ => None,
        },
        Mnemonic::Xor
            if instruction.op1_kind() == OpKind::Register
                && instruction.op0_register() == instruction.op1_register() =>
        {
            Some(0)
        }
        _ => None,
    }
}

/// Forgets what an instruction may have overwritten.
fn forget(instruction: &Instruction, eax: &mut Option<u32>, edi: &mut Option<u32>) {
    if instruction.op_count() == 0 || instruction.op0_kind() != OpKind::Register {
        return;
    }
    if matches!(instruction.mnemonic(), Mnemonic::Cmp | Mnemonic::Test | Mnemonic::Push) {
        return;
    }
    match instruction.op0_register() {
        Register::RAX | Register::EAX | Register::AX | Register::AL => *eax = None,
        Register::RDI | Register::EDI | Register::DI | Register::DIL => *edi = None,
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn constants_before_syscalls_are_found() {
        let text = [
            0xb8, 0x3c, 0, 0, 0, // mov eax, 60
            0x31, 0xff, // xor edi, edi
            0x0f, 0x05, // syscall
            0x89, 0xd8, // mov eax, ebx
            0x0f, 0x05, // syscall
            0x31, 0xc0, // xor eax, eax
            0x48, 0x89, 0xce, // mov rsi, rcx
            0x0f, 0x05, // syscall
            0xc3,
        ];
        let mut code = Code::default();
        code.sweep(&text, 0x1000, &|_| true);
        assert_eq!(code.all(), Sites { numbers: [0, 60].into(), unknown: 1 });
    }

    #[test]
    fn of_the_system_s_c_library_only_what_is_asked_for_is_reached() {
        let bytes = std::fs::read("/lib/x86_64-linux-gnu/libc.so.6")
            .or_else(|_| std::fs::read("/lib64/libc.so.6"))
            .unwrap();
        let object = Object::parse(&bytes).unwrap();
        let code = Code::read(&bytes, &object);
        let all = code.all();
        let number = |name| dock2uni_format::syscalls::number(name).unwrap() as u32;
        for name in ["read", "swapon", "init_module", "epoll_wait", "setns"] {
            assert!(all.numbers.contains(&number(name)), "{name}");
        }
        let few = code.reachable(&object, &["epoll_wait", "getpid"].into());
        assert!(few.numbers.contains(&number("epoll_wait")));
        assert!(few.numbers.contains(&number("getpid")));
        for name in ["swapon", "init_module", "setns", "reboot"] {
            assert!(!few.numbers.contains(&number(name)), "{name}");
        }
        assert!(
            few.numbers.len() < all.numbers.len() / 2,
            "{} of {}",
            few.numbers.len(),
            all.numbers.len()
        );
    }
}
