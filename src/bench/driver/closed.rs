//! A closed loop: every answer is followed by the next request.

use std::rc::Rc;

use tokio::task::JoinSet;

use super::{LAST_ANSWERS, Worker, all_of};
use crate::bench::plan::Protocol;

/// Keeps this thread's share of `concurrency` requests under way until the load stops.
pub async fn run(worker: Rc<Worker>, concurrency: usize) {
    let own = worker.share.part(concurrency);
    let connections = match worker.calls.protocol {
        Protocol::Grpc => {
            worker.effort.connections.map_or(own, |all| worker.share.part(all.min(concurrency)))
        }
        // Over HTTP/1.1 a connection carries one request at a time.
        Protocol::Json | Protocol::Binary => own,
    };
    let mut lines = worker.lines(connections);
    let mut tasks = JoinSet::new();
    for mut line in std::iter::repeat_with(&mut lines).take(own) {
        let worker = Rc::clone(&worker);
        tasks.spawn_local(async move {
            while !worker.stopped() {
                worker.ask(&mut line, None).await;
            }
        });
    }
    // They may see that the load has stopped before this does.
    worker.until_stopped(all_of(&mut tasks)).await;
    let _ = tokio::time::timeout(LAST_ANSWERS, all_of(&mut tasks)).await;
}
