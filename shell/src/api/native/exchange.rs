//! One request on a stream of its own: long ones, and those whose answers are long or have no end.

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http_body_util::BodyExt;
use quinn::RecvStream;
use quorate_api::Problem;
use quorate_api::native::{self, Answer, Malformed, REQUEST_BYTES_MAX, take_frame};
use tower_service::Service;

use super::{Broken, GREETING_TIME, Native, Sending, headers_of, problem_answer, request_of, within};

/// Bytes that are taken out of the stream at a time.
const READ_BYTES: usize = 64 << 10;

impl Native {
    /// Answers one request. The answer ends early when its client does not want it any more or the node must not wait.
    pub(super) async fn serve_exchange(
        mut self,
        send: Sending,
        mut receive: RecvStream,
    ) -> Result<(), Broken> {
        let mut unread = BytesMut::new();
        let head = within(&*self.clock, GREETING_TIME, read_head(&mut receive, &mut unread)).await;
        let Some(head) = head else {
            return Ok(());
        };
        let request = request_of(head?, body(unread.freeze(), receive));
        let unwanted = send.unwanted();
        let mut phases = self.phases.clone();
        tokio::select! {
            biased;
            () = phases.closed() => Ok(()),
            () = unwanted => Ok(()),
            result = self.answer(request, send) => result,
        }
    }

    async fn answer(
        &mut self,
        request: Result<http::Request<Body>, Box<Problem>>,
        mut send: Sending,
    ) -> Result<(), Broken> {
        let (status, headers, mut body) = match request {
            Ok(request) => {
                let Ok(answer): Result<Response, Infallible> = self.router.call(request).await;
                let (head, body) = answer.into_parts();
                (head.status.as_u16(), headers_of(&head.headers), body)
            }
            Err(problem) => {
                let Answer {
                    status,
                    headers,
                    body,
                    ..
                } = problem_answer(0, &problem);
                (status, headers, Body::from(body))
            }
        };
        let head = Answer {
            id: 0,
            status,
            headers,
            body: Bytes::new(),
        };
        let mut frame = BytesMut::new();
        head.encode(&mut frame);
        send.write(&*self.clock, frame.freeze()).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Broken::Answer)?;
            if let Ok(bytes) = frame.into_data() {
                send.write(&*self.clock, bytes).await?;
            }
        }
        send.finish(&*self.clock).await;
        Ok(())
    }
}

/// The frame with which an exchange begins; what came of the body is left in `unread`.
async fn read_head(receive: &mut RecvStream, unread: &mut BytesMut) -> Result<native::Request, Broken> {
    loop {
        if let Some(frame) = take_frame(unread, REQUEST_BYTES_MAX)? {
            let request = native::Request::decode(frame)?;
            return match request.body.is_empty() {
                true => Ok(request),
                false => Err(Broken::Malformed("the frame of an exchange has a body")),
            };
        }
        match receive.read_chunk(READ_BYTES, true).await? {
            Some(chunk) => unread.extend_from_slice(&chunk.bytes),
            None => return Err(Malformed("a stream ends before its request").into()),
        }
    }
}

/// What follows the frame, to the end of the stream.
fn body(begin: Bytes, receive: RecvStream) -> Body {
    let parts = unfold((Some(begin), receive), |(begin, mut receive)| async move {
        if let Some(begin) = begin.filter(|begin| !begin.is_empty()) {
            return Some((Ok(begin), (None, receive)));
        }
        match receive.read_chunk(READ_BYTES, true).await {
            Ok(Some(chunk)) => Some((Ok(chunk.bytes), (None, receive))),
            Ok(None) => None,
            Err(error) => Some((Err(error), (None, receive))),
        }
    });
    // Whoever reads on after the end finds it again.
    Body::from_stream(parts.fuse())
}
