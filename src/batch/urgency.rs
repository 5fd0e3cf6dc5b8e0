//! How threads stand against each other.

use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};

/// Whether a thread's work can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Urgency {
    /// Somebody waits for it.
    #[default]
    Answering,
    /// It runs when nothing else wants the processor, yet is not starved: loading.
    Loading,
    /// It runs on what processors would idle away: shadows.
    Idle,
}

impl Urgency {
    /// Puts the calling thread there, for good: a thread may lower itself without any privilege, not raise itself.
    pub fn take(self) {
        let (priority, policy) = match self {
            Self::Answering => return,
            Self::Loading => (ThreadPriority::Min, NormalThreadSchedulePolicy::Batch),
            Self::Idle => (ThreadPriority::Min, NormalThreadSchedulePolicy::Idle),
        };
        let policy = ThreadSchedulePolicy::Normal(policy);
        if let Err(error) = set_thread_priority_and_policy(thread_native_id(), priority, policy) {
            tracing::debug!("a thread keeps its ordinary priority: {error:?}");
        }
    }
}
