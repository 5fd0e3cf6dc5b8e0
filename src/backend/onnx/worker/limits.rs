//! What a worker allows itself, enforced by the system; and how it tells that one was reached.

use std::process::ExitStatus;

use landlock::{
    ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus,
    path_beneath_rules,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::packets::Limits;

/// Takes the limits of a trial on. Errors of single limits are no reason to go without the others.
pub fn take_on(limits: Limits) {
    // What a broken model leaves behind interests nobody, and may be large.
    set(Resource::Core, 0);
    set(Resource::Cpu, limits.seconds);
    set(Resource::Data, limits.memory_bytes);
    // No program that this one starts may become another user.
    let _ = rustix::thread::set_no_new_privs(true);
    ignore_requests_to_end();
    // A place without anything in it: relative paths lead nowhere.
    let _ = std::env::set_current_dir("/proc/self/fdinfo");
    // Without memory the system ends workers first: they are started again.
    let _ = std::fs::write("/proc/self/oom_score_adj", "800");
}

/// What ONNX Runtime may read once a model is open: the rules of languages (operators on strings), and which processors
/// there are.
const READABLE: [&str; 4] =
    ["/usr/lib/locale", "/usr/share/locale", "/sys/devices/system/cpu", "/proc/cpuinfo"];

/// Opens no other file from here on and no TCP connection: not this thread, and none that it starts. Whatever a model
/// makes ONNX Runtime do, it reads nothing of this machine's by it.
///
/// Gives whether the system sees to that: Linux since 5.13, if it is configured so.
pub fn close_off() -> bool {
    let close = || -> Result<_, RulesetError> {
        Ruleset::default()
            .handle_access(AccessFs::from_all(ABI::V5))?
            .handle_access(AccessNet::from_all(ABI::V5))?
            .create()?
            .add_rules(path_beneath_rules(READABLE, AccessFs::from_read(ABI::V5)))?
            .restrict_self()
    };
    close().is_ok_and(|status| status.ruleset != RulesetStatus::NotEnforced)
}

/// A supervisor may ask every process of a service to end; a worker ends when its server does.
fn ignore_requests_to_end() {
    // SAFETY: ignoring a signal runs no code of ours.
    unsafe {
        libc::signal(libc::SIGTERM, libc::SIG_IGN);
        libc::signal(libc::SIGINT, libc::SIG_IGN);
    }
}

/// Time counts no more, and memory may be what serving takes.
pub fn serve(memory_bytes: u64) {
    let most = getrlimit(Resource::Cpu).maximum;
    let _ = setrlimit(Resource::Cpu, Rlimit { current: most, maximum: most });
    set(Resource::Data, memory_bytes);
}

/// The soft limit alone: it can be raised again when the trial is over.
fn set(resource: Resource, value: u64) {
    let maximum = getrlimit(resource).maximum;
    let value = maximum.map_or(value, |most| value.min(most));
    let _ = setrlimit(resource, Rlimit { current: Some(value), maximum });
}

/// The most memory that a process has had in use, in bytes, by its number or `self`; 0 where the system does not tell.
pub fn peak_bytes(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).map_or(0, |kb| kb << 10)
}

/// How a worker ended that somebody killed without a word to us.
pub const KILLED: &str = "it was killed from outside";

/// How a worker ended, in words for clients; operators find the signal in the log.
pub fn described(status: ExitStatus, limits: Limits) -> String {
    use std::os::unix::process::ExitStatusExt;
    tracing::info!("a model's process ended: {status}");
    // Numbers of signals on Linux (signal(7)).
    match status.signal() {
        None => "it ended by itself".to_owned(),
        Some(9) => KILLED.to_owned(),
        Some(24) => format!("it took more than {} seconds of processor time", limits.seconds),
        Some(_) => "it crashed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::ErrorKind;

    #[test]
    fn a_thread_that_is_closed_off_opens_no_file() {
        let file = std::env::current_exe().unwrap();
        let read = || std::fs::File::open(&file).map(drop).map_err(|e| e.kind());
        let inherits = || std::thread::scope(|scope| scope.spawn(read).join().unwrap());
        let closed = std::thread::scope(|scope| {
            let closed =
                || close_off().then(|| (read(), inherits(), std::fs::File::open("/proc/cpuinfo").is_ok()));
            scope.spawn(closed).join().unwrap()
        });
        // Kernels that know nothing of it go on without.
        if let Some(closed) = closed {
            let refused = Err(ErrorKind::PermissionDenied);
            assert_eq!(closed, (refused, refused, true));
        }
        assert_eq!(read(), Ok(()), "the rest of the process is as it was");
    }
}
