//! The account of one request: opened when it arrives, closed once, by an answer, an error, or its own end.
//!
//! Always (INV-08): each receipt tells exactly one outcome. One that is dropped open tells that its client went
//! away: that is the only way in which a request ends without an answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::admission::{Held, Permit};
use crate::error::ServeError;
use crate::event::{EventSink, InferEvent, Outcome, Protocol};
use crate::infer::{CacheLookup, Routing, Timings};
use crate::model::Servable;
use crate::tensor::Tensor;

/// Follows a request from its arrival.
pub struct Receipt {
    sink: Arc<dyn EventSink>,
    routed: Option<(Arc<Servable>, Routing)>,
    arrived: Instant,
    /// When it was about to be queued, if an answer in time was promised.
    promised: Option<Instant>,
    rows: usize,
    timings: Timings,
    lookup: Option<CacheLookup>,
    /// Position in the signature and the model's own tensor.
    predicted: SmallVec<[(usize, Tensor); 1]>,
    place: Option<Permit>,
    closed: bool,
}

impl Receipt {
    /// Counts the request as received.
    pub fn open(sink: Arc<dyn EventSink>, protocol: Protocol) -> Self {
        sink.received(protocol);
        Self {
            sink,
            routed: None,
            arrived: Instant::now(),
            promised: None,
            rows: 1,
            timings: Timings::default(),
            lookup: None,
            predicted: SmallVec::new(),
            place: None,
            closed: false,
        }
    }

    /// The request got a place, which is free again when the receipt goes.
    pub fn admitted(&mut self, place: Permit) {
        self.place = Some(place);
    }

    /// The account of its bytes. Call it for requests that have a place.
    pub fn held(&mut self) -> &mut Held {
        self.place.as_mut().expect("the request was admitted").held()
    }

    /// The request was routed: what follows is told of this servable.
    pub fn routed(&mut self, servable: &Arc<Servable>, routing: Routing) {
        self.routed = Some((Arc::clone(servable), routing));
    }

    pub fn counted(&mut self, rows: usize) {
        self.rows = rows;
    }

    /// Its answer was looked for among those that were kept.
    pub fn looked_up(&mut self, lookup: CacheLookup) {
        self.lookup = Some(lookup);
    }

    /// How long it took to keep its answer.
    pub fn kept(&mut self, took: Duration) {
        self.lookup.iter_mut().for_each(|lookup| lookup.took += took);
    }

    /// The request comes to the queue's door.
    pub fn queued(&mut self) {
        let promises = self.routed.as_ref().is_some_and(|(servable, _)| servable.promises());
        self.promised = promises.then(Instant::now);
    }

    /// The model answered, or had answered before.
    pub fn predicted(&mut self, outputs: impl Iterator<Item = (usize, Tensor)>, timings: Timings) {
        self.predicted = outputs.collect();
        self.timings = timings;
    }

    /// How long it took to write the answer in the protocol's form.
    pub fn encoded(&mut self, took: Duration) {
        self.timings.encode = took;
    }

    /// Closes with how the request ended.
    pub fn conclude<T>(mut self, answer: &Result<T, ServeError>) {
        self.close(answer.as_ref().map_or_else(|error| error.kind().into(), |_| Outcome::Ok));
    }

    fn close(&mut self, outcome: Outcome) {
        self.closed = true;
        let ended = Instant::now();
        self.timings.total = ended - self.arrived;
        match &self.routed {
            None => self.sink.stray(outcome),
            Some((servable, routing)) => {
                if let Some(queued) = self.promised.filter(|_| outcome == Outcome::Ok) {
                    servable.answered(ended - queued, &self.timings);
                }
                let predicted = if outcome == Outcome::Ok { self.predicted.as_slice() } else { &[] };
                let event = InferEvent {
                    outcome,
                    ended,
                    timings: self.timings,
                    routing,
                    rows: self.rows,
                    lookup: self.lookup,
                    predicted,
                };
                servable.sink().infer(&event);
            }
        }
    }
}

impl Drop for Receipt {
    fn drop(&mut self) {
        if !self.closed {
            self.close(Outcome::Cancelled);
        }
    }
}
