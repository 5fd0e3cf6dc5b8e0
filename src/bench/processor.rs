//! How much processor a process used, as Linux tells it.

use std::time::Duration;

/// Ticks of `/proc/PID/stat` in a second: `USER_HZ`, which is 100 on every Linux that people run.
const TICKS_PER_SECOND: f64 = 100.0;

/// A process of this machine.
#[derive(Debug, Clone, Copy)]
pub struct Processor {
    process: u32,
}

impl Processor {
    /// Errors: why its usage cannot be read, as a sentence.
    pub fn of(process: u32) -> Result<Self, String> {
        let processor = Self { process };
        match processor.used() {
            Some(_) => Ok(processor),
            None => Err(format!(
                "/proc/{process}/stat cannot be read; is there a process {process} on this machine?"
            )),
        }
    }

    /// This process. None where the system does not tell.
    pub fn own() -> Option<Self> {
        Self::of(std::process::id()).ok()
    }

    /// User and system time since it began; none when it is gone. To a hundredth of a second.
    pub fn used(self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process)).ok()?;
        used(&stat)
    }
}

/// Fields 14 and 15 of proc_pid_stat(5). The name, field 2, is in brackets and may hold anything.
fn used(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut times = behind_name.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u64>().ok();
    let ticks = ticks()? + ticks()?;
    Some(Duration::from_secs_f64(ticks as f64 / TICKS_PER_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_brackets_does_not_shift_the_fields() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 10 0 0 0 250 50 9 9 20 0 4 0 100 1 1";
        assert_eq!(used(stat), Some(Duration::from_secs(3)));
        assert_eq!(used("7 (a) S 1"), None);
        assert_eq!(used(""), None);
    }

    #[test]
    fn a_process_that_is_not_there_is_told_as_such() {
        assert!(Processor::of(u32::MAX).unwrap_err().contains("is there a process"));
    }
}
