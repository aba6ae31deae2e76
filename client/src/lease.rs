//! Leases.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use quorate_api::{
    Consistency, GrantRequest, KeepAliveAnswer, KeepAliveRequest, LeaseAnswer, LeaseView, LeasesAnswer,
    RevokeAnswer,
};

use crate::client::{Client, json};
use crate::request::Effect;
use crate::{Error, Fresh, Parameters};

impl Client {
    /// Grants a lease that lasts for `ttl`, in milliseconds, without a keep-alive; of this id, or of one that is free.
    ///
    /// # Errors
    /// When there is a lease of this id; otherwise as [`Client::put`].
    pub async fn grant_lease(&self, ttl: Duration, id: Option<u64>) -> Result<LeaseAnswer, Error> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let body = json(&GrantRequest { ttl_ms, id });
        self.change(Method::POST, "/v1/leases", body).await
    }

    /// Gives leases their whole time from now on, at most [`quorate_api::KEEP_ALIVES_MAX`] of them. One that is gone is
    /// told and no error.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn keep_leases_alive(&self, leases: &[u64]) -> Result<KeepAliveAnswer, Error> {
        let body = json(&KeepAliveRequest {
            leases: leases.to_vec(),
        });
        self.ask(Method::POST, "/v1/leases/keep-alive", body, Effect::None)
            .await
    }

    /// How long a lease lasts, and which keys go with it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such lease, when no node answers, or with what it answers.
    pub async fn lease(&self, id: u64, consistency: Consistency) -> Result<LeaseView, Error> {
        let mut parameters = Parameters::of(format!("/v1/leases/{id}"));
        Fresh::from(consistency).add_to(&mut parameters);
        self.read(parameters).await
    }

    /// The leases whose ids come after `after`, by id, at most `limit` of them.
    ///
    /// # Errors
    /// When no node answers, or with what it answers.
    pub async fn leases(&self, after: Option<u64>, limit: Option<u64>) -> Result<LeasesAnswer, Error> {
        let mut parameters = Parameters::of("/v1/leases".to_owned());
        parameters.add_number("after", after);
        parameters.add_number("limit", limit);
        self.read(parameters).await
    }

    /// Ends a lease and removes its keys.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no such lease; otherwise as [`Client::put`].
    pub async fn revoke_lease(&self, id: u64) -> Result<RevokeAnswer, Error> {
        let path = format!("/v1/leases/{id}");
        self.change(Method::DELETE, path, Bytes::new()).await
    }
}
