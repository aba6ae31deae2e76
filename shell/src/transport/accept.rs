//! Being dialled: from a first packet to a peer's link, a transfer or a question.

use std::sync::Arc;

use quinn::{Connection, Incoming, RecvStream, SendStream, VarInt};
use tokio::sync::oneshot;
use tracing::debug;

use super::bulk::BulkStream;
use super::dial::close;
use super::event::{Event, Refusal, RefusedBy, Responder};
use super::hello::{
    Hello, HelloAnswer, Invitation, MessageError, Purpose, RefusalCode, Refused, read_message, write_message,
};
use super::link::{self, Link};
use super::shared::Shared;
use super::{ANSWER_TIME, GOODBYE, GREETING_TIME};
use crate::planted::PlantedBug;

/// Takes connections until the endpoint is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    while let Some(incoming) = shared.endpoint.accept().await {
        // Held until the connection has become a peer's link or has ended.
        let Ok(room) = Arc::clone(&shared.visitors).try_acquire_owned() else {
            debug!(remote = %incoming.remote_address(), "too many connections at once");
            incoming.refuse();
            continue;
        };
        let task = Arc::clone(&shared);
        shared.spawn(async move {
            task.receive(incoming).await;
            drop(room);
            if task.ports.planted.is(PlantedBug::TaskOutlivesConnection) {
                std::future::pending::<()>().await;
            }
        });
    }
}

impl Shared {
    async fn receive(self: &Arc<Shared>, incoming: Incoming) {
        let remote = incoming.remote_address();
        let config = self.settings.server(remote);
        let connecting = match incoming.accept_with(config) {
            Ok(connecting) => connecting,
            Err(error) => {
                debug!(%remote, "cannot take the connection: {error}");
                return;
            }
        };
        let connection = match self.within(GREETING_TIME, connecting).await {
            Some(Ok(connection)) => connection,
            Some(Err(error)) => {
                let error = self.broken(error, remote, None);
                debug!(%remote, "the handshake failed: {error}");
                return;
            }
            None => {
                debug!(%remote, "the handshake took too long");
                return;
            }
        };
        let served = self.serve(&connection).await;
        if let Err(error) = served {
            self.failed(&connection, error);
        }
    }

    /// What becomes of a connection that failed before it was of use.
    fn failed(&self, connection: &Connection, error: ServeError) {
        let remote = connection.remote_address();
        match error {
            ServeError::TooSlow => {
                debug!(%remote, "the other side said nothing in time");
                connection.close(VarInt::from_u32(close::DONE), b"too slow");
            }
            ServeError::Message { error, name } => {
                if let Some(reason) = connection.close_reason() {
                    let error = self.broken(reason, remote, name.as_deref());
                    debug!(%remote, "the connection broke: {error}");
                } else if matches!(error, MessageError::Ended(_)) {
                    debug!(%remote, "the connection broke: {error}");
                    connection.close(VarInt::from_u32(close::DONE), b"");
                } else {
                    let refusal = self.malformed(connection, name.as_deref(), &error);
                    self.refuse(connection, refusal);
                }
            }
        }
    }

    async fn serve(self: &Arc<Shared>, connection: &Connection) -> Result<(), ServeError> {
        let greeting = async {
            let (send, mut receive) = connection
                .accept_bi()
                .await
                .map_err(|error| MessageError::Ended(error.to_string()))?;
            let hello: Hello = read_message(&mut receive).await?;
            Ok((send, receive, hello))
        };
        let greeted = self
            .within(GREETING_TIME, greeting)
            .await
            .ok_or(ServeError::TooSlow)?;
        let (mut send, receive, hello) = greeted.map_err(|error| ServeError::message(error, None))?;
        let epoch = self.identity().epoch;
        let known = self
            .check_names(connection, &hello)
            .and_then(|()| self.check_not_removed(connection, &hello));
        if known.is_ok() {
            self.greeted(&hello);
        }
        let judgement = match hello.purpose {
            Purpose::Ask => known.map(|()| None),
            Purpose::Peer | Purpose::Bulk => known
                .and_then(|()| self.check_caller(connection, &hello))
                .map(Some),
        };
        let peer = match judgement {
            Ok(peer) => peer,
            Err(refusal) => return self.turn_away(connection, send, receive, hello, refusal).await,
        };
        let name = hello.name.clone();
        let failed = |error| ServeError::message(error, Some(name.clone()));
        let welcome = HelloAnswer::Welcome(self.hello(hello.purpose));
        write_message(&mut send, &welcome).await.map_err(failed)?;
        match (hello.purpose, peer) {
            (Purpose::Peer, Some(peer)) => {
                let other = self
                    .within(GREETING_TIME, link::accept_second(connection))
                    .await
                    .ok_or(ServeError::TooSlow)?
                    .map_err(failed)?;
                peer.arrive(Link {
                    connection: connection.clone(),
                    consensus: (send, receive),
                    other,
                    epoch,
                });
                Ok(())
            }
            (Purpose::Bulk, Some(peer)) => {
                let stream = BulkStream::new(connection.clone(), send, receive, false);
                self.take_bulk(connection, peer.peer.id, stream)
                    .await
                    .map_err(failed)
            }
            (Purpose::Ask, _) => self.answer(connection, send, receive, hello).await,
            // Only questions are let in without a peer.
            (Purpose::Peer | Purpose::Bulk, None) => Ok(()),
        }
    }

    async fn take_bulk(
        &self,
        connection: &Connection,
        peer: quorate_core::raft::NodeId,
        mut stream: BulkStream,
    ) -> Result<(), MessageError> {
        let header = stream.receiver.read_header().await?;
        self.tell_linked(connection, peer);
        self.events.put(Event::Bulk { peer, header, stream }).await;
        // The connection counts as a visitor until its dialler closes it.
        connection.closed().await;
        Ok(())
    }

    async fn answer(
        &self,
        connection: &Connection,
        mut send: SendStream,
        mut receive: RecvStream,
        from: Hello,
    ) -> Result<(), ServeError> {
        let name = from.name.clone();
        let failed = |error| ServeError::message(error, Some(name.clone()));
        let ask = self
            .within(GREETING_TIME, read_message(&mut receive))
            .await
            .ok_or(ServeError::TooSlow)?
            .map_err(failed)?;
        let (sender, receiver) = oneshot::channel();
        let answer = Responder(sender);
        let asking = async {
            self.events.put(Event::Ask { from, ask, answer }).await;
            receiver.await.ok()
        };
        let answer = tokio::select! {
            biased;
            answer = asking => answer,
            _ = connection.closed() => None,
            () = self.sleep(ANSWER_TIME) => None,
        };
        if let Some(answer) = answer {
            write_message(&mut send, &answer).await.map_err(failed)?;
        }
        // The one who asked closes when it has the answer, or sees that none comes.
        let _ = send.finish();
        self.within(GOODBYE, connection.closed()).await;
        connection.close(VarInt::from_u32(close::DONE), b"");
        Ok(())
    }

    /// Refuses with an answer that both sides can log, and takes an invitation from a cluster that this node, without
    /// its data, should return to.
    async fn turn_away(
        &self,
        connection: &Connection,
        mut send: SendStream,
        mut receive: RecvStream,
        hello: Hello,
        refusal: Refusal,
    ) -> Result<(), ServeError> {
        self.report(&refusal);
        let name = hello.name.clone();
        let stranger = matches!(refusal.code, RefusalCode::NotMember | RefusalCode::Identity);
        let refused = Refused {
            code: refusal.code,
            message: refusal.message.clone(),
            hello: self.hello(hello.purpose),
            invitation: if stranger { self.invitation() } else { None },
        };
        if stranger {
            self.events.put(Event::Stranger { hello }).await;
        }
        let failed = |error| ServeError::message(error, Some(name.clone()));
        let answer = HelloAnswer::Refused(Box::new(refused));
        write_message(&mut send, &answer).await.map_err(failed)?;
        let _ = send.finish();
        if refusal.code == RefusalCode::Blank {
            let invitation = self.within(GREETING_TIME, read_message::<Invitation>(&mut receive));
            if let Some(Ok(Invitation { lineage, members })) = invitation.await {
                self.events.put(Event::Invited { lineage, members }).await;
            }
        } else {
            // Closing at once could overtake the refusal.
            self.within(GOODBYE, connection.closed()).await;
        }
        let code = close::REFUSED + refusal.code as u32;
        connection.close(VarInt::from_u32(code), refusal.message.as_bytes());
        debug_assert_eq!(refusal.by, RefusedBy::Us);
        Ok(())
    }
}

/// Why a connection was of no use.
enum ServeError {
    Message {
        error: MessageError,
        name: Option<String>,
    },
    TooSlow,
}

impl ServeError {
    fn message(error: MessageError, name: Option<String>) -> ServeError {
        ServeError::Message { error, name }
    }
}
