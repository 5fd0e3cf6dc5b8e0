//! Wakes a task at a moment, finer than the runtime's own timers, which count milliseconds.

use std::time::Duration;

#[cfg(target_os = "linux")]
pub use fine::Alarm;

#[cfg(target_os = "linux")]
mod fine {
    use std::io;
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::Duration;

    /// A timer of the kernel, as a file that becomes readable; none where this process may have no more files.
    pub struct Alarm(Option<AsyncFd<OwnedFd>>);

    impl Alarm {
        /// Inside a runtime.
        pub fn new() -> Self {
            Self(timer().ok())
        }

        /// Returns after that time, to some ten microseconds.
        pub async fn after(&self, wait: Duration) {
            let rung = match &self.0 {
                Some(timer) => ring(timer, wait).await,
                None => Err(io::ErrorKind::Unsupported.into()),
            };
            if rung.is_err() {
                tokio::time::sleep(wait).await;
            }
        }
    }

    #[allow(deprecated, reason = "its successor is unsafe; an `OwnedFd` keeps what that asks for")]
    fn timer() -> io::Result<AsyncFd<OwnedFd>> {
        AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?)
    }

    async fn ring(timer: &AsyncFd<OwnedFd>, wait: Duration) -> io::Result<()> {
        // A setting of zero would turn the timer off.
        let nanos = wait.as_nanos().clamp(1, i64::MAX as u128) as i64;
        let once = Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        // Setting it also takes back what an earlier setting made readable.
        let setting = Itimerspec { it_interval: never, it_value: once };
        timerfd_settime(timer.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
        timer.readable().await?.clear_ready();
        Ok(())
    }
}

/// The runtime's own timer.
#[cfg(not(target_os = "linux"))]
pub struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub fn new() -> Self {
        Self
    }

    /// Returns after that time, to a millisecond.
    pub async fn after(&self, wait: Duration) {
        tokio::time::sleep(wait).await;
    }
}
