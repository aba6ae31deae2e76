//! Requests that follow each other on one stream, answered in the order in which they are done.

use axum::Router;
use axum::body::{Body, HttpBody};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::future::FutureExt;
use futures_util::stream::FuturesUnordered;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Response};
use http_body_util::BodyExt;
use quinn::{RecvStream, VarInt};
use quorate_api::native::{self, Answer, REQUEST_BYTES_MAX, close, take_frame};
use quorate_api::{Problem, ProblemCode, headers};
use tower_service::Service;

use super::{Broken, IDLE_TIMEOUT, Native, Sending, headers_of, problem_answer, request_of};
use crate::planted::{Planted, PlantedBug};

/// Requests that may be under way: so many, of so many bytes and one more.
const UNDER_WAY_MAX: usize = 4_096;
const UNDER_WAY_BYTES_MAX: usize = 4 << 20;
/// Answers that are ready leave together, about so many bytes of them.
const BATCH_BYTES: usize = 64 << 10;
/// Bytes that are taken out of the stream at a time.
const READ_BYTES: usize = 64 << 10;

/// What is under way on a pipeline.
struct Pipeline<F> {
    unread: BytesMut,
    under_way: FuturesUnordered<F>,
    /// Bytes of the requests under way.
    bytes: usize,
}

impl<F: Future<Output = (Answer, usize)>> Pipeline<F> {
    fn has_room(&self) -> bool {
        self.under_way.len() < UNDER_WAY_MAX && self.bytes < UNDER_WAY_BYTES_MAX
    }

    /// Begins the requests that have come whole, as long as there is room.
    fn begin(&mut self, begin: impl Fn(Bytes) -> F) -> Result<(), Broken> {
        while self.has_room()
            && let Some(frame) = take_frame(&mut self.unread, REQUEST_BYTES_MAX)?
        {
            self.bytes += frame.len();
            self.under_way.push(begin(frame));
        }
        Ok(())
    }

    /// The answers that are ready, at least one, as bytes.
    fn encode(&mut self, first: (Answer, usize)) -> Bytes {
        let mut batch = BytesMut::new();
        let mut next = Some(first);
        while let Some((answer, bytes)) = next {
            self.bytes -= bytes;
            answer.encode(&mut batch);
            next = match batch.len() < BATCH_BYTES {
                true => self.under_way.next().now_or_never().flatten(),
                false => None,
            };
        }
        batch.freeze()
    }
}

impl Native {
    /// Answers requests until the client ends its side or the node stops, and then what is under way.
    pub(super) async fn serve_pipeline(
        mut self,
        mut send: Sending,
        mut receive: RecvStream,
    ) -> Result<(), Broken> {
        let mut pipeline = Pipeline {
            unread: BytesMut::new(),
            under_way: FuturesUnordered::new(),
            bytes: 0,
        };
        let (mut reads, mut begins) = (true, true);
        loop {
            if begins {
                pipeline.begin(|frame| answer(self.router.clone(), self.planted, frame))?;
            }
            if !reads && pipeline.under_way.is_empty() {
                break;
            }
            let idle = self.clock.sleep_until(self.clock.now() + IDLE_TIMEOUT);
            tokio::select! {
                biased;
                Some(first) = pipeline.under_way.next() => {
                    let mut batch = pipeline.encode(first);
                    if self.planted.is(PlantedBug::PipelineAnswersAreSwapped) {
                        batch = swapped(batch);
                    }
                    send.write(&*self.clock, batch).await?;
                }
                chunk = receive.read_chunk(READ_BYTES, true), if reads && pipeline.has_room() => match chunk? {
                    Some(chunk) => pipeline.unread.extend_from_slice(&chunk.bytes),
                    None => reads = false,
                },
                () = self.phases.draining(), if begins => {
                    (reads, begins) = (false, false);
                    // The client may have ended its side already.
                    let _ = receive.stop(VarInt::from_u32(close::STOPPING));
                    if self.planted.is(PlantedBug::PipelineEndsUnanswered) {
                        break;
                    }
                }
                () = idle, if pipeline.under_way.is_empty() => break,
            }
        }
        send.finish(&*self.clock).await;
        Ok(())
    }
}

/// The answer to the request in a frame, and how long the frame is.
async fn answer(router: Router, planted: Planted, frame: Bytes) -> (Answer, usize) {
    let length = frame.len();
    let (id, answered) = match native::Request::decode(frame) {
        Ok(mut request) => {
            let (id, body) = (request.id, std::mem::take(&mut request.body));
            if planted.is(PlantedBug::PipelineDropsRequestKey) {
                let is_key = |name: &Bytes| name == headers::IDEMPOTENCY_KEY.as_bytes();
                request.headers.retain(|(name, _)| !is_key(name));
            }
            if planted.is(PlantedBug::PipelinedRequestIsMadeTwice) {
                let _ = ask(router.clone(), request.clone(), body.clone()).await;
            }
            (id, ask(router, request, body).await)
        }
        Err(native::Malformed(what)) => {
            let problem = Problem::new(
                ProblemCode::BadRequest,
                what,
                "nothing was done; mend the request",
            );
            (0, Err(Box::new(problem)))
        }
    };
    let answer = match answered {
        Ok((status, headers, body)) => Answer {
            id,
            status,
            headers,
            body,
        },
        Err(problem) => problem_answer(id, &problem),
    };
    (answer, length)
}

/// Answers of which the first two have each other's ids: a mistake that can be planted.
fn swapped(batch: Bytes) -> Bytes {
    let mut unread = BytesMut::from(batch);
    let mut answers = Vec::new();
    while let Ok(Some(frame)) = take_frame(&mut unread, usize::MAX) {
        answers.extend(Answer::decode(frame));
    }
    if let [first, second, ..] = &mut *answers {
        std::mem::swap(&mut first.id, &mut second.id);
    }
    let mut batch = BytesMut::new();
    answers.iter().for_each(|answer| answer.encode(&mut batch));
    batch.freeze()
}

type Answered = (u16, native::Headers, Bytes);

async fn ask(mut router: Router, request: native::Request, body: Bytes) -> Result<Answered, Box<Problem>> {
    // What is under way is counted by what it says of its length.
    let length = HeaderValue::from(body.len());
    let mut request = request_of(request, Body::from(body))?;
    request.headers_mut().insert(CONTENT_LENGTH, length);
    let Ok(answer) = router.call(request).await;
    let (head, body) = whole(answer).await?;
    Ok((head.status.as_u16(), headers_of(&head.headers), body))
}

/// The answer with all of its body, if that has an end that is known.
async fn whole(answer: Response<Body>) -> Result<(http::response::Parts, Bytes), Box<Problem>> {
    let (head, body) = answer.into_parts();
    if body.size_hint().exact().is_none() {
        return Err(Box::new(Problem::new(
            ProblemCode::BadRequest,
            "the answer has no end, and others would wait behind it",
            "ask on a stream of its own (an exchange)",
        )));
    }
    let broken = |error: axum::Error| {
        Box::new(Problem::new(
            ProblemCode::Internal,
            error.to_string(),
            "report this as a bug",
        ))
    };
    Ok((head, body.collect().await.map_err(broken)?.to_bytes()))
}
