//! Memory in use after load, against a process with ONNX Runtime and the model alone.

use weir::bench::Protocol;

use crate::children::resident_megabytes;
use crate::contest::{Server, floats};
use crate::models::{self, WIDE};
use crate::options::Options;
use crate::session::Bare;
use crate::table::{Table, Target};

const CONNECTIONS: usize = 32;

pub fn measure(options: &Options, table: &mut Table) {
    let model = models::wide_model();
    let (mut over, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let weir = super::weir(options, &model.repository);
        let server = Server::weir(&weir, Protocol::Grpc, &floats(WIDE.0, WIDE.1));
        server.closed(options, CONNECTIONS);
        // The sweep has run the largest batches, as the server may have.
        let bare = Bare::start(options, &model.file);
        let (served, alone) = (resident_megabytes(weir.id()), resident_megabytes(bare.id()));
        over.push(served - alone);
        sizes.push(served);
    }
    table.add("memory", "more than ONNX Runtime and the model alone, MB", over, Target::AtMost(20.0));
    table.add("memory", "in use, MB", sizes, Target::None);
}
