//! The one table from what failed to what each protocol says.

use http::StatusCode;
use tonic::Code;

use crate::error::{ErrorKind, ServeError};

/// The answer's codes on both protocols.
pub fn codes(kind: ErrorKind) -> (StatusCode, Code) {
    match kind {
        ErrorKind::InvalidArgument => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
        ErrorKind::UnknownModel => (StatusCode::BAD_REQUEST, Code::InvalidArgument),
        ErrorKind::NotFound => (StatusCode::NOT_FOUND, Code::NotFound),
        ErrorKind::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable),
        ErrorKind::Overloaded => (StatusCode::TOO_MANY_REQUESTS, Code::ResourceExhausted),
        ErrorKind::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, Code::DeadlineExceeded),
        ErrorKind::Cancelled => (client_closed_request(), Code::Cancelled),
        ErrorKind::Conflict => (StatusCode::CONFLICT, Code::FailedPrecondition),
        ErrorKind::Stale => (StatusCode::PRECONDITION_FAILED, Code::Aborted),
        ErrorKind::Unsupported => (StatusCode::NOT_IMPLEMENTED, Code::Unimplemented),
        ErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Code::InvalidArgument),
        ErrorKind::TooSlow => (StatusCode::REQUEST_TIMEOUT, Code::InvalidArgument),
        ErrorKind::UnsupportedEncoding => (StatusCode::UNSUPPORTED_MEDIA_TYPE, Code::Unimplemented),
        ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Code::Internal),
    }
}

/// 499, nginx' number for a client that went away.
fn client_closed_request() -> StatusCode {
    StatusCode::from_u16(499).expect("499 is within the range of status codes")
}

impl From<ServeError> for tonic::Status {
    fn from(error: ServeError) -> Self {
        let (_, code) = codes(error.kind());
        tonic::Status::new(code, error.message())
    }
}
