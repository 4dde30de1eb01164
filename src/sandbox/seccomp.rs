//! The system call filter of a step.
//!
//! Mounting, loading modules, setting clocks and the like already fail because a step lacks the capabilities. What
//! is left, and refused here as Docker's profile refuses it, is what the kernel offers to everybody: new user
//! namespaces (which would give the capabilities back), key rings (which know no namespaces), BPF, performance
//! events, io_uring, and VM sockets. `clone3` does not exist for a step, because its flags lie in memory that a filter
//! cannot read; C libraries then use `clone`.
//!
//! The filter knows the native numbers and those of the 32-bit mode of the same machine.

use std::io;

use libc::sock_filter;

use super::sys;

/// Which filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// What Docker refuses, as far as capabilities do not.
    Default,
    /// The same; and changes of owner, user and group appear to work, because only one id exists here.
    SingleId,
    /// Nothing but what keeps a step off the network where it has no network namespace: no sockets but Unix ones, and
    /// netlink, which reaches nobody outside either.
    NoNetwork,
    /// Nothing but what keeps a step from setting limits of other processes, which ends them as a signal does.
    OwnLimits,
}

/// When a rule applies.
#[derive(Debug, Clone, Copy)]
enum When {
    Always,
    /// Argument `.0` has one of the bits of `.1`.
    AnyBit(u32, u32),
    /// Argument `.0` is neither `.1` nor `.2`.
    Neither(u32, u32, u32),
    /// Argument `.0` masked with `.1` is `.2`.
    Masked(u32, u32, u32),
    /// Neither argument `.0`, of 32 bits, nor argument `.1`, a pointer, is 0.
    Both(u32, u32),
}

/// A system call and what it returns instead of being made; errno 0 means success.
#[derive(Debug, Clone, Copy)]
struct Rule {
    number: u32,
    when: When,
    errno: u32,
}

const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;
const EAFNOSUPPORT: u32 = libc::EAFNOSUPPORT as u32;

/// All flags of `clone` and `unshare` that make a namespace.
const NAMESPACE_FLAGS: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u32;

/// `AUDIT_ARCH_*` of linux/audit.h: the machine's own number and that of its 32-bit mode.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: (u32, Option<u32>) = (0xc000_003e, Some(0x4000_0003));
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: (u32, Option<u32>) = (0xc000_00b7, Some(0x4000_0028));
#[cfg(target_arch = "riscv64")]
const ARCHITECTURES: (u32, Option<u32>) = (0xc000_00f3, None);

/// On x86-64, numbers from here on belong to the x32 interface.
#[cfg(target_arch = "x86_64")]
const X32: u32 = 0x4000_0000;

/// System call numbers by what the filter does with them.
struct Numbers {
    refused: &'static [u32],
    clone: u32,
    unshare: u32,
    clone3: u32,
    socket: u32,
    /// The older call that makes sockets, by flags in memory, on machines that have it.
    socketcall: Option<u32>,
    /// Makes a ring through which sockets could be made.
    io_uring_setup: u32,
    /// Changes of owner, user and group.
    owners: &'static [u32],
    /// `mknod` and where its mode is.
    mknod: &'static [(u32, u32)],
    prlimit: u32,
}

const NATIVE: Numbers = Numbers {
    refused: &[
        libc::SYS_add_key as u32,
        libc::SYS_request_key as u32,
        libc::SYS_keyctl as u32,
        libc::SYS_bpf as u32,
        libc::SYS_perf_event_open as u32,
        libc::SYS_userfaultfd as u32,
        libc::SYS_io_uring_setup as u32,
        libc::SYS_io_uring_enter as u32,
        libc::SYS_io_uring_register as u32,
        libc::SYS_syslog as u32,
        libc::SYS_setns as u32,
        libc::SYS_open_by_handle_at as u32,
    ],
    clone: libc::SYS_clone as u32,
    unshare: libc::SYS_unshare as u32,
    clone3: libc::SYS_clone3 as u32,
    socket: libc::SYS_socket as u32,
    socketcall: None,
    io_uring_setup: libc::SYS_io_uring_setup as u32,
    owners: &[
        #[cfg(target_arch = "x86_64")]
        {
            libc::SYS_chown as u32
        },
        #[cfg(target_arch = "x86_64")]
        {
            libc::SYS_lchown as u32
        },
        libc::SYS_fchown as u32,
        libc::SYS_fchownat as u32,
        libc::SYS_setgroups as u32,
        libc::SYS_setuid as u32,
        libc::SYS_setgid as u32,
        libc::SYS_setreuid as u32,
        libc::SYS_setregid as u32,
        libc::SYS_setresuid as u32,
        libc::SYS_setresgid as u32,
    ],
    mknod: &[
        #[cfg(target_arch = "x86_64")]
        {
            (libc::SYS_mknod as u32, 1)
        },
        (libc::SYS_mknodat as u32, 2),
    ],
    prlimit: libc::SYS_prlimit64 as u32,
};

/// Numbers of i386 (arch/x86/entry/syscalls/syscall_32.tbl).
#[cfg(target_arch = "x86_64")]
const COMPAT: Numbers = Numbers {
    refused: &[286, 287, 288, 357, 336, 374, 425, 426, 427, 103, 346, 342],
    clone: 120,
    unshare: 310,
    clone3: 435,
    socket: 359,
    socketcall: Some(102),
    io_uring_setup: 425,
    owners: &[
        182, 212, 95, 207, 16, 198, 298, 81, 206, 23, 213, 46, 214, 70, 203, 71, 204, 164, 208, 170, 210,
    ],
    mknod: &[(14, 1), (297, 2)],
    prlimit: 340,
};

/// Numbers of 32-bit ARM, EABI (arch/arm/tools/syscall.tbl).
#[cfg(not(target_arch = "x86_64"))]
const COMPAT: Numbers = Numbers {
    refused: &[309, 310, 311, 386, 364, 388, 425, 426, 427, 103, 375, 371],
    clone: 120,
    unshare: 337,
    clone3: 435,
    socket: 281,
    socketcall: Some(102),
    io_uring_setup: 425,
    owners: &[
        182, 212, 95, 207, 16, 198, 325, 81, 206, 23, 213, 46, 214, 70, 203, 71, 204, 164, 208, 170, 210,
    ],
    mknod: &[(14, 1), (324, 2)],
    prlimit: 369,
};

/// Keeps this process and what it starts off the network. Without SYS_ADMIN that takes `no_new_privs`: setuid programs
/// then give nothing to who is not root already.
pub(super) fn refuse_network() -> io::Result<()> {
    match sys::install_filter(&mut program(Profile::NoNetwork)) {
        Err(error) if error.raw_os_error() == Some(libc::EACCES) => {
            rustix::thread::set_no_new_privs(true)?;
            sys::install_filter(&mut program(Profile::NoNetwork))
        }
        other => other,
    }
}

/// Installs the filter for this process and what it starts; needs SYS_ADMIN in its user namespace.
pub(super) fn install(profile: Profile) -> io::Result<()> {
    match sys::install_filter(&mut program(profile)) {
        // A kernel without seccomp: the capabilities and namespaces are still there.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => Ok(()),
        other => other,
    }
}

/// Keeps this process and what it starts from setting limits of other processes; needs what [`install`] needs, or
/// `no_new_privs`.
pub(super) fn keep_limits_inside() -> io::Result<()> {
    install(Profile::OwnLimits)
}

fn rules(numbers: &Numbers, profile: Profile) -> Vec<Rule> {
    if profile == Profile::OwnLimits {
        return vec![Rule { number: numbers.prlimit, when: When::Both(0, 2), errno: EPERM }];
    }
    if profile == Profile::NoNetwork {
        let local = When::Neither(0, libc::AF_UNIX as u32, libc::AF_NETLINK as u32);
        let mut rules = vec![
            Rule { number: numbers.socket, when: local, errno: EAFNOSUPPORT },
            Rule { number: numbers.io_uring_setup, when: When::Always, errno: EPERM },
        ];
        rules.extend(numbers.socketcall.map(|number| Rule { number, when: When::Always, errno: ENOSYS }));
        return rules;
    }
    let mut rules: Vec<Rule> = vec![
        Rule { number: numbers.clone, when: When::AnyBit(0, NAMESPACE_FLAGS), errno: EPERM },
        Rule { number: numbers.unshare, when: When::AnyBit(0, NAMESPACE_FLAGS), errno: EPERM },
        Rule { number: numbers.clone3, when: When::Always, errno: ENOSYS },
        Rule { number: numbers.socket, when: When::Masked(0, u32::MAX, libc::AF_VSOCK as u32), errno: EPERM },
    ];
    rules.extend(numbers.refused.iter().map(|number| Rule {
        number: *number,
        when: When::Always,
        errno: EPERM,
    }));
    if profile == Profile::SingleId {
        rules.extend(numbers.owners.iter().map(|number| Rule {
            number: *number,
            when: When::Always,
            errno: 0,
        }));
        // S_IFCHR and S_IFBLK are what has 0o020000 and neither 0o100000 nor 0o010000: FIFOs can really be made.
        rules.extend(numbers.mknod.iter().map(|(number, mode)| Rule {
            number: *number,
            when: When::Masked(*mode, 0o130_000, 0o020_000),
            errno: 0,
        }));
    }
    rules
}

/// Assembles the filter (linux/filter.h; the data is struct seccomp_data of linux/seccomp.h).
fn program(profile: Profile) -> Vec<sock_filter> {
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    let native = section(&rules(&NATIVE, profile), true);
    let compat = section(&rules(&COMPAT, profile), false);
    let mut program = vec![load(ARCHITECTURE), jump(libc::BPF_JEQ, ARCHITECTURES.0, 1, 0)];
    // Jumps that skip a section are too far for a conditional jump's eight bits.
    program.push(statement(libc::BPF_JMP | libc::BPF_JA, native.len() as u32 + 1));
    program.push(load(NUMBER));
    program.extend(native);
    if let Some(architecture) = ARCHITECTURES.1 {
        program.push(jump(libc::BPF_JEQ, architecture, 1, 0));
        program.push(refuse(ENOSYS));
        program.push(load(NUMBER));
        program.extend(compat);
    } else {
        program.push(refuse(ENOSYS));
    }
    program
}

/// Returns the instructions that decide on the number in the accumulator; they end in every case.
fn section(rules: &[Rule], native: bool) -> Vec<sock_filter> {
    let mut out = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if native {
        out.extend([jump(libc::BPF_JGE, X32, 0, 1), refuse(ENOSYS)]);
    }
    let _ = native;
    for rule in rules {
        let half = |index: u32, is_low: bool| {
            load(16 + 8 * index + if cfg!(target_endian = "big") == is_low { 4 } else { 0 })
        };
        let argument = |index: u32| half(index, true);
        let body = match rule.when {
            When::Always => vec![refuse(rule.errno)],
            When::AnyBit(index, bits) => {
                vec![argument(index), jump(libc::BPF_JSET, bits, 0, 1), refuse(rule.errno), allow()]
            }
            When::Neither(index, one, other) => vec![
                argument(index),
                jump(libc::BPF_JEQ, one, 2, 0),
                jump(libc::BPF_JEQ, other, 1, 0),
                refuse(rule.errno),
                allow(),
            ],
            When::Masked(index, mask, value) => vec![
                argument(index),
                statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask),
                jump(libc::BPF_JEQ, value, 0, 1),
                refuse(rule.errno),
                allow(),
            ],
            When::Both(number, pointer) => vec![
                argument(number),
                jump(libc::BPF_JEQ, 0, 4, 0),
                argument(pointer),
                jump(libc::BPF_JEQ, 0, 0, 3),
                half(pointer, false),
                jump(libc::BPF_JEQ, 0, 0, 1),
                allow(),
                refuse(rule.errno),
            ],
        };
        out.push(jump(libc::BPF_JEQ, rule.number, 0, body.len() as u8));
        out.extend(body);
    }
    out.push(allow());
    out
}

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

fn jump(test: u32, k: u32, if_true: u8, if_false: u8) -> sock_filter {
    sock_filter { code: (libc::BPF_JMP | test | libc::BPF_K) as u16, jt: if_true, jf: if_false, k }
}

fn load(offset: u32) -> sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn refuse(errno: u32) -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno)
}

fn allow() -> sock_filter {
    statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel would.
    fn verdict(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(architecture.to_ne_bytes());
        data.extend(0u64.to_ne_bytes());
        for argument in arguments {
            data.extend(argument.to_ne_bytes());
        }
        let (mut accumulator, mut at) = (0u32, 0usize);
        loop {
            let instruction = program[at];
            at += 1;
            let code = u32::from(instruction.code);
            let k = instruction.k;
            let mut branch = |taken: bool| {
                at += usize::from(if taken { instruction.jt } else { instruction.jf });
            };
            if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS {
                let at = k as usize;
                accumulator = u32::from_ne_bytes(data[at..at + 4].try_into().unwrap());
            } else if code == libc::BPF_ALU | libc::BPF_AND | libc::BPF_K {
                accumulator &= k;
            } else if code == libc::BPF_JMP | libc::BPF_JA {
                at += k as usize;
            } else if code == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K {
                branch(accumulator == k);
            } else if code == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K {
                branch(accumulator >= k);
            } else if code == libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K {
                branch(accumulator & k != 0);
            } else if code == libc::BPF_RET | libc::BPF_K {
                return k;
            } else {
                panic!("unknown instruction {code:#x}");
            }
        }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const PERM: u32 = libc::SECCOMP_RET_ERRNO | EPERM;

    #[test]
    fn namespaces_are_refused_and_threads_are_not() {
        let program = program(Profile::Default);
        let run = |number: i64, first: i32| {
            verdict(&program, ARCHITECTURES.0, number as u32, [first as u64, 0, 0, 0, 0, 0])
        };
        assert_eq!(run(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD), PERM);
        assert_eq!(run(libc::SYS_clone, libc::CLONE_VM | libc::CLONE_THREAD), ALLOW);
        assert_eq!(run(libc::SYS_unshare, libc::CLONE_NEWNS), PERM);
        assert_eq!(run(libc::SYS_unshare, libc::CLONE_FS), ALLOW);
        assert_eq!(run(libc::SYS_clone3, 0), libc::SECCOMP_RET_ERRNO | ENOSYS);
        assert_eq!(run(libc::SYS_socket, libc::AF_VSOCK), PERM);
        assert_eq!(run(libc::SYS_socket, libc::AF_INET6), ALLOW);
        assert_eq!(run(libc::SYS_keyctl, 0), PERM);
        assert_eq!(run(libc::SYS_fchown, 0), ALLOW);
        assert_eq!(run(libc::SYS_openat, 0), ALLOW);
    }

    #[test]
    fn a_single_id_pretends_that_owners_change() {
        let program = program(Profile::SingleId);
        let run = |number: i64, mode: u64| {
            verdict(&program, ARCHITECTURES.0, number as u32, [0, mode, mode, 0, 0, 0])
        };
        let success = libc::SECCOMP_RET_ERRNO;
        assert_eq!(run(libc::SYS_fchownat, 0), success);
        assert_eq!(run(libc::SYS_mknodat, 0o020_666), success);
        assert_eq!(run(libc::SYS_mknodat, 0o060_666), success);
        for kind in [0o010_666, 0o100_666, 0o140_666, 0] {
            assert_eq!(run(libc::SYS_mknodat, kind), ALLOW, "{kind:o}");
        }
    }

    #[test]
    fn without_a_network_there_are_local_sockets_only() {
        let program = program(Profile::NoNetwork);
        let run = |architecture: u32, number: u32, domain: i32| {
            verdict(&program, architecture, number, [domain as u64, 0, 0, 0, 0, 0])
        };
        let refused = libc::SECCOMP_RET_ERRNO | EAFNOSUPPORT;
        for domain in [libc::AF_INET, libc::AF_INET6, libc::AF_PACKET, libc::AF_VSOCK, libc::AF_BLUETOOTH] {
            assert_eq!(run(ARCHITECTURES.0, libc::SYS_socket as u32, domain), refused, "{domain}");
        }
        for domain in [libc::AF_UNIX, libc::AF_NETLINK] {
            assert_eq!(run(ARCHITECTURES.0, libc::SYS_socket as u32, domain), ALLOW, "{domain}");
        }
        assert_eq!(run(ARCHITECTURES.0, libc::SYS_socketpair as u32, libc::AF_UNIX), ALLOW);
        assert_eq!(run(ARCHITECTURES.0, libc::SYS_io_uring_setup as u32, 0), PERM);
        assert_eq!(run(ARCHITECTURES.0, libc::SYS_clone3 as u32, 0), ALLOW);
        if let Some(compat) = ARCHITECTURES.1 {
            assert_eq!(run(compat, COMPAT.socket, libc::AF_INET), refused);
            assert_eq!(run(compat, 102, 1), libc::SECCOMP_RET_ERRNO | ENOSYS);
        }
    }

    #[test]
    fn a_step_sets_its_own_limits_only() {
        let program = program(Profile::OwnLimits);
        let run = |pid: u64, new: u64| {
            verdict(&program, ARCHITECTURES.0, libc::SYS_prlimit64 as u32, [pid, 7, new, 0, 0, 0])
        };
        for new in [0x1000, 0x7fff_0000_0000] {
            assert_eq!((run(0, new), run(5, new)), (ALLOW, PERM), "{new:x}");
        }
        assert_eq!((run(0, 0), run(5, 0)), (ALLOW, ALLOW));
        if let Some(compat) = ARCHITECTURES.1 {
            assert_eq!(verdict(&program, compat, COMPAT.prlimit, [5, 7, 1, 0, 0, 0]), PERM);
        }
    }

    #[test]
    fn the_other_interfaces_of_the_machine_are_no_way_around() {
        let program = program(Profile::Default);
        if let Some(compat) = ARCHITECTURES.1 {
            assert_eq!(verdict(&program, compat, COMPAT.unshare, [0x1000_0000, 0, 0, 0, 0, 0]), PERM);
            assert_eq!(verdict(&program, compat, 4, [0; 6]), ALLOW);
        }
        #[cfg(target_arch = "x86_64")]
        assert_eq!(
            verdict(&program, ARCHITECTURES.0, X32 | libc::SYS_unshare as u32, [0; 6]),
            libc::SECCOMP_RET_ERRNO | ENOSYS
        );
        assert_eq!(verdict(&program, 0x1234, 4, [0; 6]), libc::SECCOMP_RET_ERRNO | ENOSYS);
    }
}
