//! `breast_cancer` as a server has it, without the sockets.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use smallvec::SmallVec;
use weir::backend::onnx::{OnnxLoader, Runtime};
use weir::backend::{BatchInput, Folder, Session};
use weir::batch::BatchingPolicy;
use weir::cache::{CachePartition, ResponseCache};
use weir::control::Tallies;
use weir::event::{EventSink, Fanout, Protocol};
use weir::id::{ModelName, Version};
use weir::infer::{InferResponse, InputTensor, OutputTensor, RequestKeys, RouteReason, Routing, Timings};
use weir::model::config::Defaults;
use weir::model::{LoadRequest, Servable, VersionState, load, repository};
use weir::monitor::Monitor;
use weir::route::{Arm, Route, RouteSpec};
use weir::serve::{Admission, Pipeline, Receipt, Table};
use weir::tensor::Tensor;

use crate::wire;

pub const MODEL: &str = "breast_cancer";

/// Numbers in one row of the model's input.
const NUMBERS: usize = 30;

/// The model, loaded and measured.
pub struct Served {
    pub table: Arc<Table>,
    pub servable: Arc<Servable>,
    pub batching: BatchingPolicy,
    session: Arc<dyn Session>,
    sink: Arc<dyn EventSink>,
}

impl Served {
    pub fn load() -> Self {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        let name = ModelName::parse(MODEL).unwrap();
        let defaults = Defaults { instances: 1, ..Defaults::default() };
        let candidate = repository::found_at(Folder::new(models, MODEL), &name, None, &defaults);
        let loader = OnnxLoader::new(Runtime::open().unwrap());
        let version = Version::parse("1").unwrap();
        let loaded = load(&LoadRequest { candidate: &candidate, version, loader: &loader }).unwrap();
        let (session, batching) = (Arc::clone(loaded.session()), loaded.completed().batching.clone());
        let monitor = Arc::new(Monitor::new("1"));
        let sink: Arc<dyn EventSink> = Arc::new(Fanout(vec![Arc::new(Tallies::default()), monitor.clone()]));
        let servable = Arc::new(loaded.start(&*sink, &Arc::new(ResponseCache::new(0))).unwrap());
        let table = Arc::new(Table::default());
        table.publish_version(servable.id(), VersionState::Ready(Arc::clone(&servable)));
        // As in the server, or samples would pile up.
        let monitor = Arc::downgrade(&monitor);
        std::thread::spawn(move || {
            while let Some(monitor) = monitor.upgrade() {
                monitor.upkeep();
                drop(monitor);
                std::thread::sleep(Monitor::UPKEEP_INTERVAL);
            }
        });
        Self { table, servable, batching, session, sink }
    }

    /// With a route of two arms and a sticky key.
    pub fn with_arms() -> Self {
        let served = Self::load();
        let arm = |number: &str, weight| Arm { version: Version::parse(number).unwrap(), weight };
        let spec = RouteSpec {
            arms: vec![arm("1", 90.0), arm("2", 10.0)],
            sticky: Some(weir::route::Sticky::Header("x-user-id".to_owned())),
            ..RouteSpec::default()
        };
        let id = served.servable.id();
        let route = Arc::new(Route::new(&id.model, spec).unwrap());
        served.table.publish(|snapshot| {
            let entry = snapshot.entry(&id.model);
            let ready = VersionState::Ready(Arc::clone(&served.servable));
            entry.versions.insert(Version::parse("2").unwrap(), ready);
            entry.route = Some(route);
        });
        served
    }

    pub fn run(&self, batch: &BatchInput) -> Vec<Tensor> {
        let outputs: SmallVec<[usize; 4]> = (0..self.session.graph().outputs.len()).collect();
        self.session.run(std::slice::from_ref(batch), &outputs).unwrap()
    }

    /// What the model says of [`features`].
    pub fn answer(&self) -> InferResponse {
        let names = self.servable.signature().outputs.iter().map(|spec| Arc::clone(&spec.name));
        let outputs = names.zip(self.run(&batch(1))).map(|(name, tensor)| OutputTensor { name, tensor });
        let outputs = outputs.collect();
        InferResponse { servable: self.servable.id().clone(), reason: RouteReason::Latest, outputs }
    }

    /// Opens the account of a request, and closes it by that answer.
    pub fn account(&self, answer: &InferResponse) {
        let mut receipt = Receipt::open(Arc::clone(&self.sink), Protocol::Grpc);
        let routing = Routing { reason: RouteReason::Latest, revision: 0, unit: None, experiment: None };
        receipt.routed(&self.servable, routing);
        receipt.counted(1);
        let outputs = answer.outputs.iter().map(|output| output.tensor.clone()).enumerate();
        let timings = Timings { session: Duration::from_micros(10), ..Timings::default() };
        receipt.predicted(outputs, timings);
        receipt.conclude(&Ok(()));
    }

    pub fn pipeline(&self) -> Pipeline {
        Pipeline::new(Arc::clone(&self.table), Admission::new(8192, 1 << 30), Arc::clone(&self.sink))
    }
}

/// From a message to the bytes of its answer, counted as the server counts.
pub async fn predict(pipeline: &Pipeline, message: Bytes) -> SmallVec<[Bytes; 2]> {
    let mut receipt = pipeline.receive(Protocol::Grpc);
    pipeline.admit(&mut receipt).unwrap();
    let answer = pipeline.infer(wire::parse_message(message), &Sticky, &mut receipt).await.unwrap();
    let written = wire::encode_grpc(&answer);
    receipt.conclude(&Ok(()));
    written
}

/// One row for the model.
pub fn features() -> InputTensor {
    InputTensor { name: "features".to_owned(), tensor: wire::tensor(NUMBERS) }
}

/// So many of [`features`] in one session call.
pub fn batch(rows: usize) -> BatchInput {
    let one = features().tensor;
    BatchInput {
        index: 0,
        datatype: one.datatype(),
        shape: one.shape().with_first(rows as i64),
        parts: (0..rows).map(|_| one.data().clone()).collect(),
    }
}

/// A cache with room for everything.
pub fn partition() -> CachePartition {
    Arc::new(ResponseCache::new(64 << 20)).partition().unwrap()
}

/// A request with a sticky key.
pub struct Sticky;

impl RequestKeys for Sticky {
    fn header(&self, _: &str) -> Option<&[u8]> {
        Some(b"user-4711")
    }

    fn parameter(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }

    fn request_id(&self) -> Option<&str> {
        None
    }
}
