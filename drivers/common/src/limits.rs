//! The limit on the open files of this process.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit on open files before and after raising it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileLimit {
    /// Soft limit at the start; `None`: unlimited.
    pub before: Option<u64>,
    /// Soft limit now; `None`: unlimited.
    pub now: Option<u64>,
}

impl FileLimit {
    /// The soft limit now as a number of descriptors, a million if unlimited.
    #[must_use]
    pub fn files(self) -> usize {
        self.now.and_then(|n| usize::try_from(n).ok()).unwrap_or(1_000_000)
    }
}

/// Raises the soft limit on open files to the hard one, which needs no privilege. A failure leaves it as it
/// was.
#[must_use]
pub fn raise_files() -> FileLimit {
    let found = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: found.maximum, maximum: found.maximum };
    let raised = found.current != found.maximum && setrlimit(Resource::Nofile, wanted).is_ok();
    FileLimit { before: found.current, now: if raised { found.maximum } else { found.current } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lowered_soft_limit_comes_back_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        let low = hard.map_or(512, |h| h.min(512));
        setrlimit(Resource::Nofile, Rlimit { current: Some(low), maximum: hard })
            .expect("lowering is always allowed");
        let limit = raise_files();
        assert_eq!(limit, FileLimit { before: Some(low), now: hard });
        assert_eq!(getrlimit(Resource::Nofile).current, hard);
        assert!(limit.files() as u64 >= low);
    }
}
