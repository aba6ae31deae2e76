//! What a client still sends when its answer is there already.
//!
//! A handler that refuses a request has often not read all of its body. Were the connection closed then, the client
//! would find it broken while it sends, and might never see the answer. So a bounded rest is read and thrown away first.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};

use crate::port::Clock;

/// How much is read; who sends more finds the connection closed.
const REST_BYTES_MAX: usize = 64 << 20;
/// How long that may take, and how long the client may pause.
const REST_TIME: Duration = Duration::from_secs(5);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// Answers a request after its body was read to the end, whatever the handler left of it.
pub(super) async fn read_to_end(
    State(clock): State<Arc<dyn Clock>>,
    request: Request,
    next: Next,
) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let waits_for_leave = request.headers().contains_key(EXPECT);
    let (head, body) = request.into_parts();
    let shared = SharedBody(Arc::new(Mutex::new(Incoming { body, begun: false })));
    let answer = next
        .run(Request::from_parts(head, Body::new(shared.clone())))
        .await;
    // A client that waits for leave to send sends nothing when it is refused; one that was too slow will not hurry now.
    let never_comes =
        (waits_for_leave && !shared.has_begun()) || answer.status() == StatusCode::REQUEST_TIMEOUT;
    if !never_comes {
        shared.discard(&*clock).await;
    }
    answer
}

struct Incoming {
    body: Body,
    /// Whether any of it was asked for.
    begun: bool,
}

/// The body, for the handler and for reading what the handler leaves.
#[derive(Clone)]
struct SharedBody(Arc<Mutex<Incoming>>);

impl SharedBody {
    fn with<T>(&self, use_it: impl FnOnce(&mut Incoming) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn has_begun(&self) -> bool {
        self.with(|incoming| incoming.begun)
    }

    async fn discard(mut self, clock: &dyn Clock) {
        let deadline = clock.now() + REST_TIME;
        let mut bytes = 0;
        while bytes <= REST_BYTES_MAX {
            let until = deadline.min(clock.now() + PAUSE_MAX);
            tokio::select! {
                biased;
                frame = self.frame() => match frame {
                    Some(Ok(frame)) => bytes += frame.data_ref().map_or(0, Bytes::len),
                    Some(Err(_)) | None => return,
                },
                () = clock.sleep_until(until) => return,
            }
        }
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|incoming| {
            incoming.begun = true;
            Pin::new(&mut incoming.body).poll_frame(context)
        })
    }

    fn is_end_stream(&self) -> bool {
        self.with(|incoming| incoming.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|incoming| incoming.body.size_hint())
    }
}
