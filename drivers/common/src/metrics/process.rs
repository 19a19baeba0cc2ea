//! What the kernel counts of this process: memory, CPU time, open files. Only Linux tells it in files; on
//! other systems there is nothing.

use std::fs;

/// What the kernel says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Process {
    /// CPU time, in user space and in the kernel, in seconds.
    pub cpu_secs: f64,
    /// Memory that is in use, in bytes.
    pub resident_bytes: u64,
    /// Open files.
    pub open_files: u64,
    /// When it was started, in seconds since 1970.
    pub started: f64,
}

impl Process {
    /// As it is now.
    #[must_use]
    pub fn read() -> Option<Self> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        // Its own folder is open while it is read.
        let open_files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as u64;
        let kernel = fs::read_to_string("/proc/stat").ok()?;
        let boot = kernel.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())?;
        let (ticks, page) = (rustix::param::clock_ticks_per_second(), rustix::param::page_size());
        Self::parse(&stat, open_files, boot, (ticks as f64, page as u64))
    }

    /// From a line as proc_pid_stat(5) describes it. `boot`: in seconds since 1970. `units`: ticks of a
    /// second, and bytes of a page.
    fn parse(stat: &str, open_files: u64, boot: u64, units: (f64, u64)) -> Option<Self> {
        // The name of the program may have blanks and parentheses in it.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
        // The third field is the first here.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let (user, system, started, pages) = (field(14)?, field(15)?, field(22)?, field(24)?);
        Some(Self {
            cpu_secs: (user + system) as f64 / units.0,
            resident_bytes: pages * units.1,
            open_files,
            started: boot as f64 + started as f64 / units.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_counted_from_behind_the_name() {
        let stat = "4242 (a) (b c) S 1 4242 4242 0 -1 4194560 7000 0 3 0 150 50 0 0 20 0 5 0 123400 90000000 2048 18446744073709551615 1 1";
        let process = Process::parse(stat, 12, 1_795_000_000, (100.0, 4096)).expect("a line");
        assert_eq!(
            process,
            Process {
                cpu_secs: 2.0,
                resident_bytes: 8 << 20,
                open_files: 12,
                started: 1_795_000_000.0 + 1234.0
            }
        );
        for bad in ["", "1 (a", "1 (a) S 1 2", "1 (a) S 1 4242 4242 0 -1 4194560 7000 0 3 0 x 50 0 0"] {
            assert_eq!(Process::parse(bad, 0, 0, (100.0, 4096)), None, "{bad}");
        }
    }

    #[test]
    fn this_process_uses_memory_and_files() {
        let process = Process::read().expect("a system with /proc");
        assert!(process.resident_bytes > 100_000 && process.open_files >= 3, "{process:?}");
        let now = crate::clock::wall().unix_secs as f64;
        assert!(process.started <= now + 1.0 && process.started > now - 86_400.0, "{process:?} at {now}");
    }
}
