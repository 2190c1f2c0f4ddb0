//! What a response below tells the layers above it, beside what HTTP says: as extensions of the response.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};

use crate::error::Error;
use crate::error::calls::CallsMade;
use crate::error::cause::Cause;
use crate::observe::metrics::CacheOutcome;
use crate::reply::Reply;

/// What metrics, access line and trace say of a response.
#[derive(Clone, Default)]
pub struct Summary {
    pub client: Option<Arc<str>>,
    pub outcome: Option<CacheOutcome>,
    pub calls: Option<CallsMade>,
    pub error: Option<Failed>,
}

/// What they say of an error.
#[derive(Clone)]
pub struct Failed {
    pub kind: &'static str,
    pub cause: Option<Cause>,
    pub concerns: Option<Arc<str>>,
    pub detail: Option<String>,
}

impl Summary {
    pub fn of(error: &Error) -> Self {
        Self {
            client: error.client.clone(),
            outcome: None,
            calls: error.calls().cloned(),
            error: Some(Failed {
                kind: error.kind.as_str(),
                cause: error.reason(),
                concerns: error.concerns().cloned(),
                detail: error.cause(),
            }),
        }
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let Self { mut response, client, outcome, calls } = self;
        let summary = Summary { client: Some(client), outcome: Some(outcome), calls, error: None };
        response.extensions_mut().insert(summary);
        response
    }
}

impl IntoResponse for Error {
    /// Its status alone: what its caller reads, the exchange writes, for it knows the request's id.
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
