//! What operators do through the client API, and how often clients ask.

use bytes::Bytes;
use http::Method;

use super::machine::name;
use super::requests::Order;
use super::workload::{Mood, PATIENCE};
use super::world::World;
use crate::consensus::plan::{Operation, OperationKind};

impl World {
    /// An operator does something.
    pub(super) fn operate(&mut self, operation: &Operation) {
        let now = self.now;
        match operation.kind {
            OperationKind::Burst { times, duration } => {
                let until = now + duration;
                self.clients.set_mood(Mood::Burst { times, until });
            }
            OperationKind::Quiet { duration } => {
                let until = now + duration;
                self.clients.set_mood(Mood::Quiet { until });
            }
            OperationKind::Transfer { to } => {
                let nodes = self.nodes();
                let target = to.map(|place| {
                    let place = usize::try_from(place % nodes.len() as u64).unwrap_or(0);
                    name(nodes[place])
                });
                let body = serde_json::json!({ "target_node": target });
                self.clients.requests.make(Order {
                    node: self.host(self.find(operation.asked)).client_address(),
                    method: Method::POST,
                    path: "/cluster/step-down".to_owned(),
                    body: Bytes::from(body.to_string()),
                    patience: PATIENCE,
                });
            }
            // Members stay the same here, and nodes purge their logs when they see fit.
            _ => {}
        }
    }
}
