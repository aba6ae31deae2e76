//! Asking a question: one connection, one question, one answer.

use std::sync::Arc;

use quinn::VarInt;

use super::dial::{ConnectError, Expected, Greeted, close};
use super::hello::{Answer, Ask, MessageError, Purpose, read_message, write_message};
use super::shared::Shared;

impl Shared {
    /// Asks the node at `address`.
    pub(super) async fn ask(
        self: &Arc<Shared>,
        address: &str,
        expected_name: Option<&str>,
        ask: &Ask,
    ) -> Result<Answer, ConnectError> {
        let expected = expected_name.map_or(Expected::Anyone, Expected::Name);
        let Greeted {
            connection,
            mut send,
            mut receive,
            hello,
        } = self.dial(address, expected, Purpose::Ask).await?;
        let exchange = async {
            write_message(&mut send, ask).await?;
            read_message(&mut receive).await
        };
        let result = match exchange.await {
            Ok(answer) => Ok(answer),
            Err(MessageError::Ended(_)) => Err(match connection.close_reason() {
                Some(reason) => self.broken(reason, connection.remote_address(), Some(&hello.name)),
                None => ConnectError::Unanswered {
                    address: address.to_owned(),
                },
            }),
            Err(error) => {
                let refusal = self.malformed(&connection, Some(&hello.name), &error);
                Err(ConnectError::Refused(Box::new(self.refuse(&connection, refusal))))
            }
        };
        connection.close(VarInt::from_u32(close::DONE), b"");
        result
    }
}
