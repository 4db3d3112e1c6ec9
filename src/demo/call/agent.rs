//! The user calls, and a voice agent answers.

use tokio::time::{Instant, sleep};

use super::{REPEAT, SOON, Stage};
use crate::demo::cloud::Cloud;
use crate::demo::gateway::Gateway;
use crate::io::clock;

/// Up to the answer; what does not happen is in `stage.faults`, and ends it.
pub(super) async fn answer(stage: &mut Stage, cloud: &Cloud, gateway: &Gateway, offer: &str) -> Option<()> {
    let ok = |done: bool| done.then_some(());
    let deadline = Instant::now() + SOON;
    while !cloud.gateway_ready(gateway.http).await {
        if Instant::now() > deadline {
            stage.faults.push("/readyz never said that the gateway is ready".to_owned());
            return None;
        }
        sleep(REPEAT / 15).await;
    }
    stage.moments.webhook = Some(clock::tick());
    if let Err(fault) = cloud.connect(gateway.http, offer, "webhook connect").await {
        stage.faults.push(fault);
    }
    let begun = |stage: &Stage| stage.moments.answered.is_some() || stage.ended;
    ok(stage.until("the agent's session begins", SOON, begun).await)?;
    let accepted = |stage: &Stage| stage.moments.accepted.is_some() || stage.ended;
    ok(stage.until("Graph gets accept", SOON, accepted).await)
}
