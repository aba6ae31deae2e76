//! Sessions, and where they go.

use bytes::Bytes;
use http::Method;
use quorate_api::{
    CapacityRequest, CreateSession, DrainAnswer, DrainRequest, NodeName, PlacementChanged, RebalanceAnswer,
    SessionEnded, SessionRoute, SessionView, SessionsAnswer, TouchSession,
};

use crate::client::{Client, json};
use crate::{Error, Fresh, Parameters};

/// Which sessions to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionList {
    /// Those of this node; all otherwise.
    pub node: Option<NodeName>,
    /// Those whose ids come after this one.
    pub after: Option<String>,
    /// At most so many.
    pub limit: Option<u64>,
}

impl Client {
    /// Makes a session, which is placed on a node.
    ///
    /// # Errors
    /// When there is one of this id, or no node has room; otherwise as [`Client::put`].
    pub async fn create_session(&self, session: &CreateSession) -> Result<SessionView, Error> {
        self.change(Method::POST, "/v1/sessions", json(session)).await
    }

    /// A session with its owner.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session, when no node answers, or with what it answers.
    pub async fn session(&self, id: &str, fresh: impl Into<Fresh>) -> Result<SessionView, Error> {
        let mut parameters = Parameters::of(format!("/v1/sessions/{id}"));
        fresh.into().add_to(&mut parameters);
        self.read(parameters).await
    }

    /// Where a session is served.
    ///
    /// # Errors
    /// As [`Client::session`].
    pub async fn route_session(&self, id: &str) -> Result<SessionRoute, Error> {
        self.read(format!("/v1/sessions/{id}/route")).await
    }

    /// Sessions, by id.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn sessions(
        &self,
        list: &SessionList,
        fresh: impl Into<Fresh>,
    ) -> Result<SessionsAnswer, Error> {
        let mut parameters = Parameters::of("/v1/sessions".to_owned());
        if let Some(node) = &list.node {
            parameters.add_bytes("node", node.as_str().as_bytes());
        }
        if let Some(after) = &list.after {
            parameters.add_bytes("after", after.as_bytes());
        }
        parameters.add_number("limit", list.limit);
        fresh.into().add_to(&mut parameters);
        self.read(parameters).await
    }

    /// Says that a session is in use; with an epoch that its owner serves it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such session, or when it is in another epoch; otherwise as [`Client::put`].
    pub async fn touch_session(&self, id: &str, touch: &TouchSession) -> Result<SessionView, Error> {
        let path = format!("/v1/sessions/{id}/touch");
        self.change(Method::POST, path, json(touch)).await
    }

    /// Ends a session, if it is in this epoch.
    ///
    /// # Errors
    /// As [`Client::touch_session`].
    pub async fn end_session(&self, id: &str, epoch: Option<u64>) -> Result<SessionEnded, Error> {
        let mut parameters = Parameters::of(format!("/v1/sessions/{id}"));
        parameters.add_number("epoch", epoch);
        self.change(Method::DELETE, parameters, Bytes::new()).await
    }

    /// Has a node give its sessions away, and take no new ones. Waits for that for the time of a request; the cluster goes
    /// on afterwards.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such node; otherwise as [`Client::put`].
    pub async fn drain(&self, node: &NodeName, force: bool) -> Result<DrainAnswer, Error> {
        let path = format!("/cluster/nodes/{node}/drain");
        self.change(Method::POST, path, json(&DrainRequest { force }))
            .await
    }

    /// Lets a node take sessions again.
    ///
    /// # Errors
    /// As [`Client::drain`].
    pub async fn undrain(&self, node: &NodeName) -> Result<PlacementChanged, Error> {
        let path = format!("/cluster/nodes/{node}/undrain");
        self.change(Method::POST, path, Bytes::new()).await
    }

    /// Says how many sessions a node may have. Those that it has stay.
    ///
    /// # Errors
    /// As [`Client::drain`].
    pub async fn set_capacity(&self, node: &NodeName, max_sessions: u32) -> Result<PlacementChanged, Error> {
        let path = format!("/cluster/nodes/{node}/capacity");
        self.change(Method::PUT, path, json(&CapacityRequest { max_sessions }))
            .await
    }

    /// Moves sessions until the nodes are level. Waits for that for the time of a request; the cluster goes on afterwards.
    ///
    /// # Errors
    /// As [`Client::put`].
    pub async fn rebalance(&self) -> Result<RebalanceAnswer, Error> {
        self.change(Method::POST, "/cluster/rebalance", Bytes::new())
            .await
    }
}
