use super::*;
use crate::backend::fake::FakeSession;
use crate::batch::{BatchingPolicy, LevelPolicy, TimeoutAction};
use crate::event::InferEvent;
use crate::tensor::{DataType, Shape};
use std::sync::mpsc;

/// Remembers the rows and requests of each session call.
#[derive(Default)]
struct Calls(Mutex<Vec<(usize, usize, bool)>>);

impl ServableSink for Calls {
    fn infer(&self, _: &InferEvent<'_>) {}
    fn batch(&self, event: &BatchEvent) {
        self.0.lock().unwrap().push((event.requests, event.rows, event.succeeded));
    }
}

fn batching(size_max: usize) -> Batching {
    let policy = BatchingPolicy {
        rows_max: 8,
        merging: true,
        delay_max: Duration::ZERO,
        preferred_rows: vec![],
        levels: vec![LevelPolicy {
            size_max,
            timeout: None,
            timeout_action: TimeoutAction::Reject,
            timeout_override: true,
        }],
        default_level: 1,
        objective: None,
        call_max: None,
    };
    Batching { policy, costs: Arc::new(Costs::new(8)) }
}

fn job(values: &[f32], limits: Limits) -> (Box<Job>, oneshot::Receiver<Answer>) {
    let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shape = Shape::from_dims([values.len() as i64, 1]).unwrap();
    let inputs: TensorRow =
        [Some(Tensor::new(DataType::Fp32, shape, data.into()).unwrap())].into_iter().collect();
    let (reply, answer) = oneshot::channel();
    let job = Box::new(Job {
        key: ShapeKey::of(&inputs, true),
        text: None,
        inputs,
        outputs: SmallVec::from_slice(&[0]),
        rows: values.len(),
        limits,
        queued: Instant::now(),
        presence: Arc::default(),
        reply,
    });
    (job, answer)
}

/// A scheduler whose session stands still in its first call until it is let go.
struct Held {
    scheduler: Scheduler,
    calls: Arc<Calls>,
    entered: mpsc::Receiver<()>,
    let_go: mpsc::Sender<()>,
}

fn held(size_max: usize) -> Held {
    let (enter, entered) = mpsc::channel();
    let (let_go, gate) = mpsc::channel();
    let gate = Mutex::new(Some(gate));
    let session = FakeSession::identity(move |inputs| {
        enter.send(()).unwrap();
        if let Some(gate) = gate.lock().unwrap().take() {
            gate.recv().unwrap();
        }
        match inputs[0].parts[0].first() {
            Some(&13) => panic!("thirteen"),
            Some(&14) => Err(RunError::Stopped("fourteen".to_owned())),
            _ => Ok(()),
        }
    });
    let calls = Arc::new(Calls::default());
    let sink: Arc<dyn ServableSink> = Arc::clone(&calls) as _;
    let scheduler =
        Scheduler::start("held", vec![Arc::new(session)], batching(size_max), Urgency::Answering, sink)
            .unwrap();
    Held { scheduler, calls, entered, let_go }
}

impl Held {
    /// From here on its batches are known to be short.
    fn is_quick(&self) {
        self.scheduler.shared.batch_ns.store(1, Ordering::Relaxed);
        self.scheduler.shared.costs.seed(&[(Size { rows: 1, bytes: 4 }, Duration::from_nanos(1))]);
    }
}

fn values(answer: oneshot::Receiver<Answer>) -> Vec<f32> {
    let (tensors, _) = answer.blocking_recv().unwrap().unwrap();
    tensors[0].data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn an_instance_that_frees_takes_all_that_waits() {
    let held = held(10);
    let (first, first_answer) = job(&[1.0], Limits::default());
    held.scheduler.submit(first, false).unwrap();
    held.entered.recv().unwrap();
    let answers: Vec<_> = [[2.0, 3.0], [4.0, 5.0]]
        .iter()
        .map(|values| {
            let (job, answer) = job(values, Limits::default());
            held.scheduler.submit(job, false).unwrap();
            answer
        })
        .collect();
    assert_eq!(held.scheduler.depth(), 2);
    held.let_go.send(()).unwrap();
    assert_eq!(values(first_answer), [1.0]);
    assert_eq!(answers.into_iter().map(values).collect::<Vec<_>>(), [[2.0, 3.0], [4.0, 5.0]]);
    held.scheduler.close();
    held.scheduler.join();
    assert_eq!(*held.calls.0.lock().unwrap(), [(1, 1, true), (2, 4, true)]);
}

#[test]
fn expired_and_cancelled_work_never_reaches_a_session() {
    let held = held(10);
    let (first, first_answer) = job(&[1.0], Limits::default());
    held.scheduler.submit(first, false).unwrap();
    held.entered.recv().unwrap();
    let (gone, dropped) = job(&[2.0], Limits::default());
    held.scheduler.submit(gone, false).unwrap();
    drop(dropped);
    let late = Limits { deadline: Some(Instant::now()), ..Limits::default() };
    let (late, late_answer) = job(&[3.0], late);
    held.scheduler.submit(late, false).unwrap();
    held.let_go.send(()).unwrap();
    let refused = late_answer.blocking_recv().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::DeadlineExceeded);
    assert_eq!(values(first_answer), [1.0]);
    held.scheduler.close();
    held.scheduler.join();
    assert_eq!(*held.calls.0.lock().unwrap(), [(1, 1, true)]);
}

#[test]
fn whoever_waits_runs_short_batches_on_the_spot() {
    let held = held(10);
    held.let_go.send(()).unwrap();
    let (measured, answer) = job(&[1.0], Limits::default());
    assert!(
        !held.scheduler.submit(measured, true).unwrap().on_the_spot,
        "nothing is known of the session yet"
    );
    assert_eq!(values(answer), [1.0]);
    // The instance answers before it lets go of its place.
    while held.scheduler.shared.lock().running > 0 {
        std::thread::yield_now();
    }
    held.is_quick();
    let (first, first_answer) = job(&[2.0], Limits::default());
    let (second, second_answer) = job(&[3.0], Limits::default());
    let picked = Arc::clone(&second.presence);
    for job in [first, second] {
        assert!(held.scheduler.submit(job, true).unwrap().on_the_spot);
    }
    held.scheduler.run_on_the_spot(&picked);
    assert_eq!(held.scheduler.depth(), 0);
    assert_eq!((values(first_answer), values(second_answer)), (vec![2.0], vec![3.0]));
    assert_eq!(*held.calls.0.lock().unwrap(), [(1, 1, true), (2, 2, true)]);
}

#[test]
fn no_more_calls_run_than_there_are_instances() {
    let held = held(10);
    let (first, first_answer) = job(&[1.0], Limits::default());
    held.scheduler.submit(first, false).unwrap();
    held.entered.recv().unwrap();
    held.is_quick();
    let (second, second_answer) = job(&[2.0], Limits::default());
    let picked = Arc::clone(&second.presence);
    assert!(held.scheduler.submit(second, true).unwrap().on_the_spot);
    held.scheduler.run_on_the_spot(&picked);
    assert_eq!(held.scheduler.depth(), 1, "the only instance is taken");
    held.let_go.send(()).unwrap();
    assert_eq!((values(first_answer), values(second_answer)), (vec![1.0], vec![2.0]));
}

#[test]
fn what_instances_must_run_is_not_run_on_the_spot() {
    let held = held(10);
    let (first, first_answer) = job(&[1.0], Limits::default());
    held.scheduler.submit(first, false).unwrap();
    held.entered.recv().unwrap();
    held.is_quick();
    let (long, long_answer) = job(&[2.0], Limits::default());
    held.scheduler.submit(long, false).unwrap();
    let (short, short_answer) = job(&[3.0], Limits::default());
    let picked = Arc::clone(&short.presence);
    assert!(held.scheduler.submit(short, true).unwrap().on_the_spot);
    // As if there were a second instance: the long job is the head of the queue, and not this thread's to run.
    held.scheduler.shared.lock().instances = 2;
    held.scheduler.run_on_the_spot(&picked);
    assert_eq!(held.scheduler.depth(), 2);
    held.let_go.send(()).unwrap();
    for (answer, value) in [(first_answer, 1.0), (long_answer, 2.0), (short_answer, 3.0)] {
        assert_eq!(values(answer), [value]);
    }
}

#[test]
fn what_whoever_was_to_run_it_leaves_behind_does_not_stay() {
    let held = held(10);
    held.let_go.send(()).unwrap();
    held.is_quick();
    let (gone, answer) = job(&[1.0], Limits::default());
    assert!(held.scheduler.submit(gone, true).unwrap().on_the_spot);
    drop(answer);
    let (left, left_answer) = job(&[2.0], Limits::default());
    assert!(held.scheduler.submit(left, true).unwrap().on_the_spot);
    held.scheduler.leave_to_instances();
    assert_eq!(values(left_answer), [2.0]);
    assert_eq!(held.scheduler.depth(), 0);
    assert_eq!(*held.calls.0.lock().unwrap(), [(1, 1, true)]);
}

#[test]
fn instances_see_to_all_that_waits_once_they_are_called() {
    let held = held(10);
    held.let_go.send(()).unwrap();
    held.is_quick();
    // A full batch, for which somebody will come; what comes after it is for an instance, which finds both.
    let (full, full_answer) = job(&[1.0; 8], Limits::default());
    assert!(held.scheduler.submit(full, true).unwrap().on_the_spot);
    let (next, next_answer) = job(&[2.0], Limits::default());
    held.scheduler.submit(next, false).unwrap();
    assert_eq!((values(full_answer), values(next_answer)), (vec![1.0; 8], vec![2.0]));
}

#[test]
fn whoever_runs_them_all_jobs_are_answered() {
    let session: Arc<dyn Session> = Arc::new(FakeSession::identity(|_| Ok(())));
    let sink: Arc<dyn ServableSink> = Arc::new(Calls::default());
    let sessions = vec![Arc::clone(&session), session];
    let scheduler = Scheduler::start("all", sessions, batching(1000), Urgency::Answering, sink).unwrap();
    scheduler.shared.costs.seed(&[(Size { rows: 1, bytes: 4 }, Duration::from_nanos(1))]);
    std::thread::scope(|scope| {
        for asker in 0..4 {
            let scheduler = &scheduler;
            scope.spawn(move || {
                for round in 0..500 {
                    // As if the machine were slow at times.
                    let quick = (round / 3 + asker) % 4 != 0;
                    scheduler.shared.batch_ns.store(if quick { 1 } else { NOT_MEASURED }, Ordering::Relaxed);
                    let asked: Vec<_> = (0..12).map(|_| job(&[round as f32], Limits::default())).collect();
                    let mut waited_for = Vec::new();
                    for (job, answer) in asked {
                        let picked = Arc::clone(&job.presence);
                        waited_for.push((scheduler.submit(job, true).unwrap().on_the_spot, picked, answer));
                    }
                    for (on_the_spot, picked, _) in &waited_for {
                        if *on_the_spot {
                            scheduler.run_on_the_spot(picked);
                        }
                    }
                    for (.., answer) in waited_for {
                        assert_eq!(values(answer), [round as f32]);
                    }
                }
            });
        }
    });
}

#[test]
fn what_nobody_came_to_run_is_answered_when_the_scheduler_closes() {
    let held = held(10);
    held.let_go.send(()).unwrap();
    held.is_quick();
    let (left, answer) = job(&[1.0], Limits::default());
    assert!(held.scheduler.submit(left, true).unwrap().on_the_spot);
    held.scheduler.close();
    held.scheduler.join();
    assert_eq!(values(answer), [1.0]);
}

#[test]
fn what_cannot_be_in_time_any_more_is_told_so_and_never_reaches_a_session() {
    let calls = Arc::new(Calls::default());
    let Batching { policy, costs } = batching(10);
    let policy = BatchingPolicy { objective: Some(Duration::from_millis(1)), ..policy };
    let session = Arc::new(FakeSession::identity(|_| Ok(())));
    let sink: Arc<dyn ServableSink> = Arc::clone(&calls) as _;
    let batching = Batching { policy, costs };
    let scheduler = Scheduler::start("late", vec![session], batching, Urgency::Answering, sink).unwrap();
    let (job, answer) = job(&[1.0], Limits::default());
    let earlier = job.queued.checked_sub(Duration::from_millis(2)).unwrap();
    scheduler.submit(Box::new(Job { queued: earlier, ..*job }), false).unwrap();
    let refused = answer.blocking_recv().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(calls.0.lock().unwrap().is_empty());
}

#[test]
fn a_panic_fails_its_batch_and_the_next_one_is_served() {
    let held = held(10);
    held.let_go.send(()).unwrap();
    let unlucky = f32::from_le_bytes([13, 0, 0, 0]);
    let (job_13, answer_13) = job(&[unlucky], Limits::default());
    held.scheduler.submit(job_13, false).unwrap();
    assert_eq!(answer_13.blocking_recv().unwrap().unwrap_err().kind(), ErrorKind::Internal);
    let (next, answer) = job(&[2.0], Limits::default());
    held.scheduler.submit(next, false).unwrap();
    assert_eq!(values(answer), [2.0]);
}

#[test]
fn one_requests_failure_never_fails_its_neighbours() {
    let held = held(10);
    let (first, _first_answer) = job(&[1.0], Limits::default());
    held.scheduler.submit(first, false).unwrap();
    held.entered.recv().unwrap();
    let unlucky = f32::from_le_bytes([13, 0, 0, 0]);
    let mut answers: Vec<_> = [unlucky, 2.0, 3.0]
        .map(|value| {
            let (job, answer) = job(&[value], Limits::default());
            held.scheduler.submit(job, false).unwrap();
            answer
        })
        .into();
    held.let_go.send(()).unwrap();
    let refused = answers.remove(0).blocking_recv().unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Internal);
    assert_eq!(answers.into_iter().map(values).collect::<Vec<_>>(), [[2.0], [3.0]]);
    held.scheduler.close();
    held.scheduler.join();
    let calls = held.calls.0.lock().unwrap();
    assert_eq!(calls[1..], [(3, 3, false), (1, 1, false), (1, 1, true), (1, 1, true)]);
}

#[test]
fn what_did_not_come_to_an_end_runs_again_alone_for_a_short_time() {
    let held = held(10);
    let (first, _first_answer) = job(&[1.0], Limits::default());
    held.scheduler.submit(first, false).unwrap();
    held.entered.recv().unwrap();
    let endless = f32::from_le_bytes([14, 0, 0, 0]);
    let [again, good] = [endless, 2.0].map(|value| {
        let (job, answer) = job(&[value], Limits::default());
        held.scheduler.submit(job, false).unwrap();
        answer
    });
    held.let_go.send(()).unwrap();
    let reason =
        |answer: oneshot::Receiver<Answer>| answer.blocking_recv().unwrap().unwrap_err().message().to_owned();
    let told = reason(again);
    assert!(told.ends_with("within 100ms"), "{told}");
    assert_eq!(values(good), [2.0]);
    let (alone, answer) = job(&[endless], Limits::default());
    held.scheduler.submit(alone, false).unwrap();
    let told = reason(answer);
    assert!(told.ends_with("within 3s"), "{told}");
}

#[test]
fn a_full_queue_answers_at_once_and_a_closed_one_finishes_what_waits() {
    let held = held(1);
    let (first, first_answer) = job(&[1.0], Limits::default());
    held.scheduler.submit(first, false).unwrap();
    held.entered.recv().unwrap();
    let (second, second_answer) = job(&[2.0], Limits::default());
    held.scheduler.submit(second, false).unwrap();
    let (third, _answer) = job(&[3.0], Limits::default());
    assert_eq!(held.scheduler.submit(third, false).unwrap_err(), SubmitError::Full { size_max: 1 });
    held.scheduler.close();
    let (fourth, _answer) = job(&[4.0], Limits::default());
    assert_eq!(held.scheduler.submit(fourth, false).unwrap_err(), SubmitError::Closed);
    held.let_go.send(()).unwrap();
    held.scheduler.join();
    assert_eq!((values(first_answer), values(second_answer)), (vec![1.0], vec![2.0]));
}
