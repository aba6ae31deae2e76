//! Keys that only one client writes, each once: what was acknowledged must be there, was done once, and can be read back.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::PutAnswer;

use super::super::client::Answer;
use super::worker::Worker;
use super::{OWN, found, path, text};

/// How long a client waits before it makes such a request again.
const AGAIN: Duration = Duration::from_millis(50);
/// How often a request with an idempotency key is made at the most.
const ATTEMPTS: u64 = 4;

impl Worker {
    /// Writes a key that nobody else writes; whether that was acknowledged.
    pub(super) async fn write_own(&mut self) -> bool {
        let value = self.new_value();
        let key = format!("{OWN}{}/{value}", self.number);
        let body = text(value);
        match self.ask(Method::PUT, &path(&key), body).await {
            Answer::Done(body) => self.own_written(key, value, &body),
            _ => false,
        }
    }

    /// Writes a key that nobody else writes, and asks again, of other nodes too, when it is not known whether that was
    /// done.
    pub(super) async fn write_own_until_answered(&mut self) {
        // It is busy between two attempts, too.
        self.clients.record().under_way += 1;
        self.attempt_to_write_own().await;
        self.clients.record().under_way -= 1;
    }

    async fn attempt_to_write_own(&mut self) {
        let value = self.new_value();
        let key = format!("{OWN}{}/{value}", self.number);
        let body = text(value);
        for _ in 0..ATTEMPTS {
            let answer = self
                .ask_once(Method::PUT, &path(&key), body.clone(), Some(&key))
                .await;
            match answer {
                Answer::Done(body) => {
                    self.own_written(key, value, &body);
                    return;
                }
                Answer::Other(code) => return self.surprise(format!("a put of {key} is answered {code}")),
                // Without a pause the others would not have noticed either what ails this node.
                Answer::Nothing(_) | Answer::Unknown(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }

    /// Asks some node for what this client's last write of its own left, and for nothing older.
    pub(super) async fn read_own(&mut self) {
        let Some((key, (value, revision))) = self.last_own.clone() else {
            return;
        };
        let path = format!("{}?consistency=serializable&min_revision={revision}", path(&key));
        match self.ask(Method::GET, &path, Bytes::new()).await {
            Answer::Done(body) if found(&body) == Some((value, revision)) => {
                self.clients.record().reads += 1;
            }
            Answer::Done(body) => self.surprise(format!(
                "{key} = {value} was acknowledged with revision {revision}; as of then or later it is {body:?}"
            )),
            Answer::Other(code) if self.clients.record().lineage_ended.is_none() => self.surprise(format!(
                "{key} = {value} was acknowledged with revision {revision}; as of then or later: {code}"
            )),
            Answer::Other(_) | Answer::Nothing(_) | Answer::Unknown(_) => {}
        }
    }

    /// A write of a key that nobody else writes was answered; whether that makes sense.
    fn own_written(&mut self, key: String, value: u64, body: &Bytes) -> bool {
        match serde_json::from_slice::<PutAnswer>(body) {
            Ok(answer) => {
                let written = (value, answer.revision);
                let mut record = self.clients.record();
                record.acknowledged += 1;
                record.own.insert(key.clone(), written);
                drop(record);
                self.last_own = Some((key, written));
                true
            }
            Err(error) => {
                self.surprise(format!("a put of {key} is answered {body:?}: {error}"));
                false
            }
        }
    }
}
