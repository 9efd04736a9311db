//! The system calls that the kernel serves, taken from its own table, so that what the tool says
//! about them is what the kernel does.

/// Names of the calls that have an arm of their own in `dispatch.rs`, sorted.
///
/// `rt_sigreturn` is served before the table is looked at.
pub fn implemented(dispatch: &str) -> Vec<String> {
    let mut names = vec!["rt_sigreturn".to_owned()];
    for line in dispatch.lines() {
        let Some((arm, result)) = line.trim().split_once("=>") else { continue };
        if result.trim().starts_with("Err(Errno::ENOSYS)") {
            continue;
        }
        let calls = arm.split('|').filter_map(|call| call.trim().strip_prefix("__NR_"));
        names.extend(calls.map(|call| call.split(' ').next().unwrap_or(call).to_owned()));
    }
    names.sort();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::implemented;

    #[test]
    fn arms_are_read() {
        let source = "        __NR_read => fs_io::read(i(0)),\n        __NR_getpgid | __NR_x => {\n\
                      __NR_no => Err(Errno::ENOSYS),\n        _ => unimplemented(number),\n";
        assert_eq!(implemented(source), ["getpgid", "read", "rt_sigreturn", "x"]);
    }

    #[test]
    fn the_kernel_s_own_table_is_understood() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../src/syscall/dispatch.rs");
        let calls = implemented(&std::fs::read_to_string(path).unwrap());
        assert!(calls.len() > 250, "{}", calls.len());
        for call in ["openat", "execve", "futex", "epoll_pwait2"] {
            assert!(calls.iter().any(|found| found == call), "{call}");
        }
    }
}
