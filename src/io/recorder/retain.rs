//! When recordings may be deleted: what the rules are, and whether the clock can be believed.
//!
//! Ages are told by the wall clock, and that of a small board may begin in 1970, or be years ahead until NTP answers. A
//! recording that is gone is gone: so nothing is deleted by a clock that is before this program's time, in the first ten
//! minutes (a time server answers within them), or within an hour after the clock has jumped by more than a day against
//! the one that never jumps. What was recorded before such a jump is kept as long as was promised: its end is moved by
//! as much. A clock that is wrong and stays so can't be told from one that is right.

use std::time::Duration;

use crate::clock::{Now, Tick, Wall};
use crate::ledger::{TapeRow, TapeState};

/// How often it is looked for what is to be deleted.
pub const EVERY: Duration = Duration::from_secs(60);

/// 2026-01-01: no recording is older than this program.
pub const EARLIEST: Wall = Wall(1_767_225_600_000);

/// How long nothing is deleted after the start.
const AT_FIRST: Duration = Duration::from_secs(600);

/// How long nothing is deleted after a jump.
const AFTER_A_JUMP: Duration = Duration::from_secs(3_600);

/// What is a jump, in milliseconds.
const A_JUMP: i64 = 86_400_000;

/// Rows of one kind that are deleted in one go.
pub const BATCH: usize = 100;

/// What is thought of the wall clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// It can be believed.
    Trusted,
    /// Not yet.
    Doubtful,
    /// It has just jumped, by this many milliseconds.
    Jumped(i64),
}

/// What is known of the wall clock.
#[derive(Debug, Default)]
pub struct Trust {
    /// The reading that later ones are compared with. Not the last one: many small steps are a jump as well.
    anchor: Option<Now>,
    until: Tick,
}

impl Trust {
    /// Looks at both clocks.
    pub fn look(&mut self, now: Now) -> Look {
        let Some(anchor) = self.anchor else {
            self.anchor = Some(now);
            self.until = now.tick + AT_FIRST;
            return Look::Doubtful;
        };
        let passed = i64::try_from(now.tick.since(anchor.tick).as_millis()).unwrap_or(i64::MAX);
        let jumped = now.wall.0.saturating_sub(anchor.wall.0).saturating_sub(passed);
        if jumped.saturating_abs() > A_JUMP {
            self.anchor = Some(now);
            self.until = self.until.max(now.tick + AFTER_A_JUMP);
            return Look::Jumped(jumped);
        }
        match now.wall >= EARLIEST && now.tick >= self.until {
            true => Look::Trusted,
            false => Look::Doubtful,
        }
    }
}

/// What is to be done with a recording whose time has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is deleted.
    Goes,
    /// It was recorded under a clock that was wrong: it is kept until then.
    Stays(Wall),
    /// It is nobody's business here.
    Untouched,
}

/// What is to be done with a recording of which the ledger says that its time has come.
pub fn fate(row: &TapeRow, now: Wall) -> Fate {
    let Some(expires) = row.expires_at else { return Fate::Untouched };
    if row.state != TapeState::Kept || !row.local || expires > now {
        return Fate::Untouched;
    }
    if expires < EARLIEST {
        let promised = expires.0.saturating_sub(row.began_at.0).max(A_JUMP);
        return Fate::Stays(Wall(now.0.saturating_add(promised)));
    }
    Fate::Goes
}

/// Which of these rows have lost their file, by the names that are in the folder.
///
/// # Errors
/// Half of them or more, so many: that is rather a disk that is not mounted.
pub fn missing<'a>(rows: &'a [TapeRow], there: &[String]) -> Result<Vec<&'a TapeRow>, usize> {
    let gone: Vec<&TapeRow> = rows
        .iter()
        .filter(|row| row.state == TapeState::Kept && row.local && !there.contains(&row.file))
        .collect();
    let all = rows.iter().filter(|row| row.state == TapeState::Kept && row.local).count();
    if gone.is_empty() || gone.len() * 2 < all { Ok(gone) } else { Err(gone.len()) }
}

#[cfg(test)]
mod tests {
    use super::super::tests::row;
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);
    /// 2026-11-23.
    const TODAY: Wall = Wall(1_795_392_000_000);

    fn start(wall: Wall) -> (Trust, Now) {
        let now = Now { tick: Tick::from_millis(5_000), wall };
        let mut trust = Trust::default();
        assert_eq!(trust.look(now), Look::Doubtful);
        (trust, now)
    }

    /// The wall clock steps, the other does not.
    fn step(now: Now, days: i64) -> Now {
        Now { tick: now.tick, wall: Wall(now.wall.0 + days * 86_400_000) }
    }

    #[test]
    fn nothing_is_deleted_in_the_first_ten_minutes() {
        let (mut trust, now) = start(TODAY);
        assert_eq!(trust.look(now.after(Duration::from_secs(599))), Look::Doubtful);
        assert_eq!(trust.look(now.after(Duration::from_secs(600))), Look::Trusted);
        assert_eq!(trust.look(now.after(DAY * 400)), Look::Trusted, "a year without a jump");
    }

    #[test]
    fn a_board_without_a_clock_deletes_nothing_until_an_hour_after_ntp_has_answered() {
        let (mut trust, mut now) = start(Wall(0));
        for _ in 0..100 {
            now = now.after(Duration::from_secs(60));
            assert_eq!(trust.look(now), Look::Doubtful, "1970");
        }
        let there = step(now, 20_780);
        assert_eq!(trust.look(there), Look::Jumped(20_780 * 86_400_000));
        assert_eq!(trust.look(there.after(Duration::from_secs(3_599))), Look::Doubtful);
        assert_eq!(trust.look(there.after(Duration::from_secs(3_600))), Look::Trusted);
    }

    #[test]
    fn a_jump_ahead_or_back_is_waited_out() {
        let (mut trust, now) = start(TODAY);
        let now = now.after(DAY);
        assert_eq!(trust.look(now), Look::Trusted);
        let ahead = step(now, 3_650);
        assert_eq!(trust.look(ahead), Look::Jumped(3_650 * 86_400_000));
        let soon = ahead.after(Duration::from_secs(60));
        assert_eq!(trust.look(soon), Look::Doubtful);
        let back = step(soon, -3_650);
        assert_eq!(trust.look(back), Look::Jumped(-3_650 * 86_400_000));
        assert_eq!(trust.look(back.after(Duration::from_secs(3_599))), Look::Doubtful);
        assert_eq!(trust.look(back.after(Duration::from_secs(3_600))), Look::Trusted);
    }

    #[test]
    fn a_staircase_of_small_steps_is_a_jump() {
        let (mut trust, mut now) = start(TODAY);
        now = now.after(DAY);
        assert_eq!(trust.look(now), Look::Trusted);
        let half = Wall(now.wall.0 + 50_000_000);
        assert_eq!(
            trust.look(Now { wall: half, ..now }),
            Look::Trusted,
            "half a day is summer time and a bit"
        );
        let more = Wall(half.0 + 50_000_000);
        assert_eq!(trust.look(Now { wall: more, ..now }), Look::Jumped(100_000_000));
    }

    #[test]
    fn what_was_recorded_in_1970_is_kept_as_long_as_was_promised() {
        let mut old = row("call_1");
        old.began_at = Wall(60_000);
        old.expires_at = Some(Wall(60_000 + 30 * 86_400_000));
        assert_eq!(fate(&old, TODAY), Fate::Stays(Wall(TODAY.0 + 30 * 86_400_000)));
        let mut due = row("call_2");
        due.began_at = Wall(TODAY.0 - 31 * 86_400_000);
        due.expires_at = Some(Wall(TODAY.0 - 86_400_000));
        assert_eq!(fate(&due, TODAY), Fate::Goes);
        due.expires_at = Some(Wall(TODAY.0 + 1));
        assert_eq!(fate(&due, TODAY), Fate::Untouched);
        due.expires_at = None;
        assert_eq!(fate(&due, TODAY), Fate::Untouched, "0 days: for ever");
        due.expires_at = Some(TODAY);
        due.state = TapeState::Running;
        assert_eq!(fate(&due, TODAY), Fate::Untouched, "it is being written");
    }

    #[test]
    fn a_folder_without_most_of_its_files_is_a_disk_that_is_not_mounted() {
        let rows = [row("call_1"), row("call_2"), row("call_3")];
        let there = ["call_1.wav".to_owned(), "call_3.wav".to_owned()];
        let gone = missing(&rows, &there).unwrap();
        assert_eq!(gone.iter().map(|row| row.call.as_str()).collect::<Vec<_>>(), ["call_2"]);
        // A bare folder, also after a call was recorded into it, and also if there was but one recording.
        assert_eq!(missing(&rows, &[]), Err(3));
        assert_eq!(missing(&rows, &there[1..]), Err(2));
        assert_eq!(missing(&rows[..1], &[]), Err(1));
        assert_eq!(missing(&[], &there), Ok(Vec::new()));
    }
}
