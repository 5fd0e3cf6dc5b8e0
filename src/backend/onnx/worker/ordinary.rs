//! A thread of ordinary priority, for what inherits it.
//!
//! Models are loaded by threads that give way to those that answer. A process that such a thread starts would give way
//! for as long as it lives: nobody may raise itself again.

use std::sync::{Mutex, PoisonError, mpsc};

type Work = Box<dyn FnOnce() + Send>;

pub struct Ordinary(Mutex<mpsc::Sender<Work>>);

impl Ordinary {
    /// Call it on a thread of ordinary priority. Without a thread of its own, work is done where it is asked for.
    pub fn start() -> Self {
        let (work, works) = mpsc::channel::<Work>();
        let run = move || works.into_iter().for_each(|work| work());
        if let Err(error) = std::thread::Builder::new().name("workers".to_owned()).spawn(run) {
            tracing::warn!("worker processes inherit the priority of loading: {error}");
        }
        Self(Mutex::new(work))
    }

    /// Does it there, one after the other, and waits for it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = mpsc::channel();
        let work: Work = Box::new(move || _ = tell.send(work()));
        let sent = self.0.lock().unwrap_or_else(PoisonError::into_inner).send(work);
        if let Err(mpsc::SendError(work)) = sent {
            work();
        }
        told.recv().expect("what was sent is done")
    }

    /// Whether the calling thread's priority is ordinary already.
    pub fn is_here() -> bool {
        rustix::process::getpriority_process(None).is_ok_and(|nice| nice <= 0)
    }
}
