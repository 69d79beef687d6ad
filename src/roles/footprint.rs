//! Gives back memory that only the start needed.

/// Lets go of the program's code, its libraries' included: what runs is mapped again from the page cache as it is called, what only the
/// start ran is not. About 10 MiB of resident memory; does nothing where the kernel does not tell what is mapped.
pub(super) fn let_go_of_code() {
    #[cfg(target_os = "linux")]
    for code in std::fs::read_to_string("/proc/self/maps").unwrap_or_default().lines().filter_map(code_of_a_file) {
        // SAFETY: nobody writes to code, so each page is as its file has it, and comes back as it was.
        let _stays_resident = unsafe { rustix::mm::madvise(code.start as *mut _, code.len(), rustix::mm::Advice::LinuxDontNeed) };
    }
}

/// The addresses of a line of `/proc/self/maps`, where that is code read from a file.
#[cfg(target_os = "linux")]
fn code_of_a_file(line: &str) -> Option<std::ops::Range<usize>> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let from_file = fields.next()? == "r-xp" && fields.nth(3)?.starts_with('/');
    let address = |hexadecimal| usize::from_str_radix(hexadecimal, 16).ok();
    from_file.then_some(address(start)?..address(end)?)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_code_from_a_file_is_let_go_of() {
        let line = |permissions, path| format!("1000-3000 {permissions} 00002000 fe:00 1234    {path}");
        assert_eq!(code_of_a_file(&line("r-xp", "/usr/bin/worker")), Some(0x1000..0x3000));
        assert_eq!(code_of_a_file(&line("r-xp", "[vdso]")), None);
        assert_eq!(code_of_a_file(&line("r-xp", "")), None);
        assert_eq!(code_of_a_file(&line("r--p", "/usr/bin/worker")), None);
        assert_eq!(code_of_a_file(&line("rwxp", "/usr/bin/worker")), None);
    }

    #[test]
    fn code_runs_after_it_was_let_go_of() {
        let_go_of_code();
        assert_eq!(format!("{:?}", "1.5".parse::<f64>()), "Ok(1.5)");
    }
}
