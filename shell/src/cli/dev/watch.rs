//! Follows who leads.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use quorate_api::{ClusterHealth, ClusterStatus, Role};
use quorate_client::Client;
use tokio::time::Instant;

use super::plan::Plan;
use crate::cli::error::CliError;

/// A node that does not answer within this counts as down for the moment.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// The nodes' own words on who leads.
pub(super) struct Watch {
    clients: Vec<(String, Client)>,
    statuses: BTreeMap<String, ClusterStatus>,
    /// Leader and term as last told.
    told: Option<(String, u64)>,
    /// Since when nobody leads.
    leaderless: Option<Instant>,
    started: Instant,
}

impl Watch {
    pub(super) fn new(plan: &Plan) -> Result<Watch, CliError> {
        let client = |node: &super::plan::Node| {
            let builder = Client::builder(&node.client_address())?;
            let client = builder.timeout(POLL_TIMEOUT).rounds_max(1).build();
            Ok((node.name.clone(), client))
        };
        Ok(Watch {
            clients: plan.nodes().iter().map(client).collect::<Result<_, CliError>>()?,
            statuses: BTreeMap::new(),
            told: None,
            leaderless: None,
            started: Instant::now(),
        })
    }

    /// A node that is not ready yet, or does not see all the others yet, and which of the two.
    ///
    /// A follower can be ready, since it hears the leader, before it is connected to another follower; its status would
    /// then show a degraded cluster to a newcomer.
    pub(super) async fn first_unready(&self) -> Option<String> {
        let answers = self.clients.iter().map(|(name, client)| async move {
            if let Err(error) = client.ready().await {
                return Some(format!("{name} is not ready ({error})"));
            }
            match client.status().await {
                Ok(status) if status.health == ClusterHealth::Healthy => None,
                Ok(status) => Some(format!("{name} sees a cluster that is {}", status.health)),
                Err(error) => Some(format!("{name} does not tell its status ({error})")),
            }
        });
        join_all(answers).await.into_iter().flatten().next()
    }

    /// Asks every node.
    pub(super) async fn poll(&mut self) {
        let answers = self
            .clients
            .iter()
            .map(|(name, client)| async move { (name.clone(), client.status().await) });
        self.statuses = join_all(answers)
            .await
            .into_iter()
            .filter_map(|(name, answer)| Some((name, answer.ok()?)))
            .collect();
    }

    pub(super) fn role(&self, name: &str) -> String {
        self.statuses
            .get(name)
            .map_or("-".to_owned(), |status| status.role.to_string())
    }

    pub(super) fn leads(&self, name: &str) -> bool {
        self.leader().is_some_and(|(leader, _)| leader == name)
    }

    /// The node that says of itself that it leads, in the highest term.
    fn leader(&self) -> Option<(String, u64)> {
        let leaders = self
            .statuses
            .iter()
            .filter(|(_, status)| status.role == Role::Leader);
        let latest = leaders.max_by_key(|(_, status)| status.term)?;
        Some((latest.0.clone(), latest.1.term))
    }

    /// The present leader is known to the reader.
    pub(super) fn announced(&mut self) {
        self.told = self.leader();
    }

    /// One line for each change since the last call. `pid_of` tells the process of a node, for the next try to kill it.
    pub(super) fn changes(&mut self, pid_of: impl Fn(&str) -> Option<u32>) -> Vec<String> {
        let now = self.started.elapsed().as_secs_f64();
        let leader = self.leader();
        let mut lines = Vec::new();
        match (&leader, &self.told) {
            (None, _) if self.leaderless.is_none() => {
                self.leaderless = Some(Instant::now());
                lines.push(format!("{now:8.1} s  nobody leads"));
            }
            (Some((name, term)), told) => {
                let gap = self.leaderless.take().map(|since| since.elapsed().as_millis());
                if leader != *told || gap.is_some() {
                    let gap = gap.map_or(String::new(), |gap| {
                        format!(", after about {gap} ms without a leader")
                    });
                    let pid = pid_of(name).map_or(String::new(), |pid| format!(" (pid {pid})"));
                    lines.push(format!("{now:8.1} s  {name}{pid} leads, term {term}{gap}"));
                    self.told = leader;
                }
            }
            _ => {}
        }
        lines
    }
}
