//! Wakes a task at a moment, finer than the runtime's own timers, which count milliseconds.

use std::io;
use std::time::Duration;

#[cfg(target_os = "linux")]
pub use fine::Alarm;

#[cfg(target_os = "linux")]
mod fine {
    use std::os::fd::OwnedFd;

    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };
    use tokio::io::unix::AsyncFd;

    use super::{Duration, io};

    /// A timer of the kernel, as a file that becomes readable.
    pub struct Alarm(AsyncFd<OwnedFd>);

    impl Alarm {
        /// Inside a runtime. Errors: this process may have no more files.
        #[allow(deprecated, reason = "its successor is unsafe; an `OwnedFd` keeps what that asks for")]
        pub fn new() -> io::Result<Self> {
            let timer = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK)?;
            Ok(Self(AsyncFd::new(timer)?))
        }

        /// Returns after that time, to some ten microseconds.
        pub async fn after(&self, wait: Duration) -> io::Result<()> {
            // A setting of zero would turn the timer off.
            let nanos = wait.as_nanos().clamp(1, i64::MAX as u128) as i64;
            let once = Timespec { tv_sec: nanos / 1_000_000_000, tv_nsec: nanos % 1_000_000_000 };
            let never = Timespec { tv_sec: 0, tv_nsec: 0 };
            let setting = Itimerspec { it_interval: never, it_value: once };
            // Setting it also takes back what an earlier setting made readable.
            timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
            self.0.readable().await?.clear_ready();
            Ok(())
        }
    }
}

/// The runtime's own timer.
#[cfg(not(target_os = "linux"))]
pub struct Alarm;

#[cfg(not(target_os = "linux"))]
impl Alarm {
    pub fn new() -> io::Result<Self> {
        Ok(Self)
    }

    /// Returns after that time, to a millisecond.
    pub async fn after(&self, wait: Duration) -> io::Result<()> {
        tokio::time::sleep(wait).await;
        Ok(())
    }
}
