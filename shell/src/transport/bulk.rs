//! Big transfers, each over a connection of its own, so that they never delay a heartbeat.
//!
//! The side that begins a transfer dials, sends a header that only the two nodes understand, then bytes; the other
//! side answers on the same stream whenever it wants. The connection is closed when the side that dialled has dropped
//! both halves of its stream: it does so when the other has confirmed what it must, since closing drops what is still
//! on its way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn::{Connection, RecvStream, SendStream, VarInt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::dial::{ConnectError, Expected, Greeted, close};
use super::hello::{MESSAGE_BYTES_MAX, MessageError, Purpose, read_bytes};
use super::peer::PeerHandle;
use super::shared::Shared;

/// A transfer in both directions.
#[derive(Debug)]
pub struct BulkStream {
    /// What this side sends.
    pub sender: BulkSender,
    /// What the other side sends.
    pub receiver: BulkReceiver,
}

/// The sending half of a transfer. Dropped without [`BulkSender::finish`], it ends like a finished one, so the length
/// of what is sent belongs into the header.
#[derive(Debug)]
pub struct BulkSender {
    stream: SendStream,
    _owner: Arc<Owner>,
}

/// The receiving half of a transfer. Dropped early, it makes the other side's writes fail.
#[derive(Debug)]
pub struct BulkReceiver {
    stream: RecvStream,
    _owner: Arc<Owner>,
}

/// Keeps the connection of a transfer, and closes it on the side that dialled.
#[derive(Debug)]
struct Owner {
    connection: Connection,
    dialled: bool,
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.dialled {
            self.connection.close(VarInt::from_u32(close::DONE), b"");
        }
    }
}

impl BulkStream {
    pub(super) fn new(
        connection: Connection,
        send: SendStream,
        receive: RecvStream,
        dialled: bool,
    ) -> BulkStream {
        let owner = Arc::new(Owner { connection, dialled });
        BulkStream {
            sender: BulkSender {
                stream: send,
                _owner: Arc::clone(&owner),
            },
            receiver: BulkReceiver {
                stream: receive,
                _owner: owner,
            },
        }
    }
}

impl BulkSender {
    /// Sends `bytes` without copying them; waits while the other side does not take them.
    ///
    /// # Errors
    /// When the connection broke or the other side dropped its receiving half.
    pub async fn write_chunk(&mut self, bytes: Bytes) -> io::Result<()> {
        Ok(self.stream.write_chunk(bytes).await?)
    }

    /// Sends `message` with its length in front, for [`BulkReceiver::read_message`] on the other side.
    ///
    /// # Errors
    /// When the message is longer than 1 MiB, the connection broke, or the other side dropped its receiving half.
    pub async fn write_message(&mut self, message: &[u8]) -> io::Result<()> {
        let length = u32::try_from(message.len())
            .ok()
            .filter(|length| *length as usize <= MESSAGE_BYTES_MAX)
            .ok_or_else(|| {
                let text = format!(
                    "a message of {} bytes is longer than the {MESSAGE_BYTES_MAX} allowed",
                    message.len()
                );
                io::Error::new(io::ErrorKind::InvalidInput, text)
            })?;
        let mut bytes = Vec::with_capacity(4 + message.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(message);
        self.write_chunk(Bytes::from(bytes)).await
    }

    /// Says that nothing more comes.
    pub fn finish(&mut self) {
        // Fails only when the stream has ended already.
        let _ = self.stream.finish();
    }
}

impl BulkReceiver {
    /// The next bytes in the order sent, without copying them; none when the other side has finished.
    ///
    /// # Errors
    /// When the connection broke.
    pub async fn read_chunk(&mut self) -> io::Result<Option<Bytes>> {
        let chunk = self.stream.read_chunk(usize::MAX, true).await?;
        Ok(chunk.map(|chunk| chunk.bytes))
    }

    /// The next message that [`BulkSender::write_message`] sent.
    ///
    /// # Errors
    /// When the connection broke or the stream ended, or a message longer than 1 MiB is announced.
    pub async fn read_message(&mut self) -> io::Result<Vec<u8>> {
        self.read_header().await.map_err(|error| {
            let kind = match error {
                MessageError::Ended(_) => io::ErrorKind::UnexpectedEof,
                MessageError::TooLong { .. } | MessageError::Decode(_) => io::ErrorKind::InvalidData,
            };
            io::Error::new(kind, error)
        })
    }

    pub(super) async fn read_header(&mut self) -> Result<Vec<u8>, MessageError> {
        read_bytes(&mut self.stream, MESSAGE_BYTES_MAX).await
    }
}

impl AsyncWrite for BulkSender {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.stream), context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl AsyncRead for BulkReceiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.stream), context, buffer)
    }
}

impl Shared {
    /// Begins a transfer to `peer`.
    pub(super) async fn open_bulk(
        self: &Arc<Shared>,
        peer: &PeerHandle,
        header: &[u8],
    ) -> Result<BulkStream, ConnectError> {
        let address = peer.address();
        let Greeted {
            connection,
            send,
            receive,
            ..
        } = self
            .dial(&address, Expected::Member(&peer.peer), Purpose::Bulk)
            .await?;
        self.tell_linked(&connection, peer.peer.id);
        let mut stream = BulkStream::new(connection, send, receive, true);
        match stream.sender.write_message(header).await {
            Ok(()) => Ok(stream),
            Err(error) => Err(ConnectError::Broken {
                address,
                reason: error.to_string(),
            }),
        }
    }
}
