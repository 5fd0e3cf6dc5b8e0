//! A model of the user's, `model=DIR`.

use weir::bench::{Metadata, Protocol, Target as Asked};

use crate::contest::{Contest, Measured, Server};
use crate::options::Options;
use crate::session::Bare;
use crate::support::repository::Repository;
use crate::table::{Table, Target};

const CONNECTIONS: [usize; 2] = [8, 32];

pub fn measure(options: &Options, table: &mut Table) {
    let folder = options.model.as_ref().expect("heavy needs model=DIR");
    let repository = Repository::new();
    repository.copy(folder.to_str().expect("a path that is text"), "m");
    let file = version_file(&repository);
    let weir = super::weir(options, &repository);
    let request = metadata(weir.grpc.to_string(), options.length);
    let mut bare = Bare::start(options, &file);
    table.note(format!("heavy: the session at its best has {}", bare.described()));
    let server = Server::weir(&weir, Protocol::Grpc, &request);
    for connections in CONNECTIONS {
        let bare = &mut bare;
        let contest = Contest::hold(
            options.rounds,
            vec![
                ("session", Box::new(|| bare.measure(options.time))),
                ("grpc", Box::new(|| server.closed(options, connections))),
            ],
        );
        let rate = contest.ratios("grpc", "session", |measured: &Measured| measured.rate);
        let cpu = contest.ratios("grpc", "session", |measured: &Measured| measured.cpu_us);
        let by = format!("{connections} x grpc: ");
        table.add("heavy", by.clone() + "rate by bare session calls", rate, Target::AtLeast(0.97));
        table.add("heavy", by + "CPU by bare session calls", cpu, Target::AtMost(1.05));
    }
}

/// The file of the highest version.
fn version_file(repository: &Repository) -> std::path::PathBuf {
    let folders = std::fs::read_dir(repository.path("m")).expect("it was copied").map_while(Result::ok);
    let versions = folders.filter_map(|folder| folder.file_name().to_str()?.parse::<u64>().ok());
    let highest = versions.max().expect("a model's folder has versions");
    repository.path(&format!("m/{highest}/model.onnx"))
}

/// The model's inputs, with open dimensions but for the batch set to `length`.
fn metadata(grpc: String, length: i64) -> Metadata {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is epoll");
    let target = Asked { grpc, ..Asked::new("m", "") };
    let asked = runtime.block_on(async { target.reach(Protocol::Grpc).await?.metadata().await });
    let mut metadata = asked.unwrap_or_else(|error| panic!("{error}"));
    for input in &mut metadata.inputs {
        input.shape.iter_mut().skip(1).filter(|size| **size < 0).for_each(|size| *size = length);
    }
    metadata
}
