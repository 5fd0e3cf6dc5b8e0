//! Generated from `proto/`: messages, the gRPC service and their descriptors.
//!
//! Here and not under `api`, because a model's config file and an ONNX file are protobuf too. The service traits
//! are for `api::grpc` alone.

#![allow(clippy::all, missing_docs, rustdoc::all)]

/// The inference protocol and `config.pbtxt`.
pub mod inference {
    tonic::include_proto!("inference");
}

/// The control API; its messages are its JSON as well.
pub mod control {
    tonic::include_proto!("weir.control.v1");
}

/// The part of the ONNX format that is read here.
pub mod onnx {
    include!(concat!(env!("OUT_DIR"), "/onnx.rs"));
}

/// A serialised `FileDescriptorSet` of the control API, for reflection.
pub const CONTROL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/control_descriptors.bin"));

/// A serialised `FileDescriptorSet` of the inference protocol, for reflection and for protobuf text.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
