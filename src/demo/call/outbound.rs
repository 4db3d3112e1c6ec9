//! The PBX calls the WhatsApp user, up to the answer.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep;

use super::{Moments, SOON, Stage, ready};
use crate::clock::Tick;
use crate::demo::cloud::{self, Cloud};
use crate::demo::gateway::Gateway;
use crate::demo::{Fault, pbx, phone};
use crate::io::clock;

/// The user's phone rings this long.
const RINGING: Duration = Duration::from_millis(1_000);
/// Louder than this before the user has picked up is sound, not an open line, in dBFS.
const OPEN_LINE: f64 = -50.0;

/// What does not happen is in `stage.faults`, and ends it.
pub(super) async fn place(
    stage: &mut Stage,
    cloud: &Cloud,
    gateway: &Gateway,
    pbx: &mpsc::Sender<pbx::Order>,
) -> Option<()> {
    ready(stage, cloud, gateway).await?;
    stage.moments.invited = Some(clock::tick());
    let _ = pbx.send(pbx::Order::Dial(format!("+{}", cloud::CALLER))).await;
    wait(stage, "Graph gets connect", |s| s.moments.dialled.is_some()).await?;
    wait(stage, "the relay answers", |s| s.described.is_some()).await?;
    let answer = stage.described.clone()?;
    stage.moments.webhook = Some(clock::tick());
    note(stage, cloud.connect(gateway.http, &answer, "webhook connect").await);
    wait(stage, "ICE and DTLS are up", |s| s.moments.connected.is_some()).await?;

    stage.moments.rang = Some(clock::tick());
    note(stage, cloud.status(gateway.http, "RINGING").await);
    wait(stage, "the PBX gets 180", |s| s.moments.ringing.is_some()).await?;
    sleep(RINGING).await;
    stage.moments.picked_up = Some(clock::tick());
    let _ = stage.phone.send(phone::Order::Talk).await;
    note(stage, cloud.status(gateway.http, "ACCEPTED").await);
    wait(stage, "the PBX gets 200", |s| s.moments.answered.is_some()).await
}

/// Until `done`; `None` if it is not in time, or if the call is over before.
async fn wait(stage: &mut Stage, what: &str, done: impl Fn(&Stage) -> bool) -> Option<()> {
    let in_time = stage.until(what, SOON, |stage| done(stage) || stage.ended).await;
    if in_time && !done(stage) {
        stage.faults.push(format!("{what}: the call was over before"));
    }
    (in_time && done(stage)).then_some(())
}

fn note(stage: &mut Stage, outcome: Result<(), Fault>) {
    stage.faults.extend(outcome.err());
}

/// What was wrong with the packets that came to the user's phone while it rang: from DTLS on they keep the
/// line open, and nothing of the PBX may be in them.
pub(super) fn early(moments: &Moments, packets: u64, loudest: Option<f64>) -> Option<Fault> {
    let rang_for = |connected: Tick| moments.picked_up.map(|picked_up| picked_up.since(connected));
    let ringing = moments.connected.and_then(rang_for)?;
    // Half of what a second of ringing brings: the media may be up a little later at the gateway.
    if u128::from(packets) * 20 < ringing.as_millis() / 2 {
        return Some(format!("only {packets} packets kept the line open while the user's phone rang"));
    }
    let loudest = loudest.filter(|level| *level > OPEN_LINE)?;
    Some(format!("sound of {loudest:.0} dBFS came to the user before the user had picked up"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung() -> Moments {
        let at = |millis| Some(Tick::from_millis(millis));
        Moments { connected: at(1_000), picked_up: at(2_000), ..Moments::default() }
    }

    #[test]
    fn an_open_line_while_it_rings_is_right_and_silence_or_sound_are_not() {
        assert_eq!(early(&rung(), 49, Some(-70.0)), None);
        assert!(early(&rung(), 3, Some(-70.0)).unwrap().starts_with("only 3 packets"));
        assert!(early(&rung(), 0, None).is_some());
        assert!(early(&rung(), 49, Some(-18.0)).unwrap().starts_with("sound of -18 dBFS"));
        assert_eq!(early(&Moments::default(), 0, None), None, "a call that never rang");
    }
}
