//! What a worker allows itself, enforced by the system; and how it tells that one was reached.

use std::process::ExitStatus;

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
    // Without memory the system ends workers first: they are started again.
    let _ = std::fs::write("/proc/self/oom_score_adj", "800");
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

/// How a worker ended that somebody killed without a word to us.
pub const KILLED: &str = "it was ended by SIGKILL";

/// How a worker ended, in words for operators and clients.
pub fn described(status: ExitStatus, limits: Limits) -> String {
    use std::os::unix::process::ExitStatusExt;
    // Numbers of signals on Linux (signal(7)).
    let name = match status.signal() {
        None => return "it ended by itself".to_owned(),
        Some(4) => "SIGILL",
        Some(6) => "SIGABRT",
        Some(7) => "SIGBUS",
        Some(8) => "SIGFPE",
        Some(9) => return KILLED.to_owned(),
        Some(11) => "SIGSEGV",
        Some(24) => return format!("it took more than {} seconds of processor time", limits.seconds),
        Some(other) => return format!("it was ended by signal {other}"),
    };
    format!("it was ended by {name}")
}
