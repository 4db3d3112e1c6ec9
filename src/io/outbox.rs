//! What waits to be written to an agent: messages in order. Of the user's sound the oldest is dropped where there is
//! too much, so that an agent that reads slowly hears what is said now, and costs no memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::wss::Frame;

/// Messages with sound that wait: 2 s where each has 20 ms.
pub const SOUND: usize = 100;
/// Messages of all kinds that wait: all the marks of an agent's, and more.
const ALL: usize = 1_500;

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<(Frame, bool)>,
    /// How many of them are sound.
    sound: usize,
    /// There is nobody who puts more in.
    done: bool,
    /// There is nobody who takes anything out.
    gone: bool,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    woken: Notify,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a message was not put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsent {
    /// Too much waits that is no sound.
    Full,
    /// The connection is closed.
    Closed,
}

/// Where messages are put in. Dropped, what waits is still taken out.
#[derive(Debug)]
pub struct Inbox(Arc<Shared>);

/// Where they are taken out.
#[derive(Debug)]
pub struct Outbox(Arc<Shared>);

/// An empty box.
pub fn outbox() -> (Inbox, Outbox) {
    let shared = Arc::new(Shared::default());
    (Inbox(Arc::clone(&shared)), Outbox(shared))
}

impl Inbox {
    /// Puts a message in, behind those before it; says how many messages with sound had to go for it.
    ///
    /// # Errors
    /// The message is not in.
    pub fn put(&self, frame: Frame, sound: bool) -> Result<u32, Unsent> {
        let mut waiting = self.0.lock();
        if waiting.gone {
            return Err(Unsent::Closed);
        }
        let mut dropped = 0;
        if sound && waiting.sound >= SOUND {
            if let Some(oldest) = waiting.frames.iter().position(|(_, sound)| *sound) {
                waiting.frames.remove(oldest);
            }
            waiting.sound -= 1;
            dropped = 1;
        } else if waiting.frames.len() >= ALL {
            return Err(Unsent::Full);
        }
        waiting.sound += usize::from(sound);
        waiting.frames.push_back((frame, sound));
        drop(waiting);
        self.0.woken.notify_one();
        Ok(dropped)
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.0.lock().done = true;
        self.0.woken.notify_one();
    }
}

impl Outbox {
    /// The next message; `None` when there will be none. Loses nothing when it is cancelled.
    pub async fn take(&mut self) -> Option<Frame> {
        loop {
            {
                let mut waiting = self.0.lock();
                if let Some((frame, sound)) = waiting.frames.pop_front() {
                    waiting.sound -= usize::from(sound);
                    return Some(frame);
                }
                if waiting.done {
                    return None;
                }
            }
            self.0.woken.notified().await;
        }
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        let mut waiting = self.0.lock();
        waiting.gone = true;
        waiting.frames.clear();
        waiting.sound = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(at: usize) -> Frame {
        Frame::Binary(vec![at as u8, (at >> 8) as u8])
    }

    #[tokio::test]
    async fn an_agent_that_does_not_read_loses_the_oldest_sound_and_nothing_else() {
        let (inbox, mut outbox) = outbox();
        assert_eq!(inbox.put(Frame::Text("start".into()), false), Ok(0));
        let dropped: u32 = (0..SOUND + 50).map(|at| inbox.put(sound(at), true).unwrap()).sum();
        assert_eq!(dropped, 50);
        assert_eq!(inbox.put(Frame::Text("dtmf".into()), false), Ok(0));
        drop(inbox);
        assert_eq!(outbox.take().await, Some(Frame::Text("start".into())));
        for at in 50..SOUND + 50 {
            assert_eq!(outbox.take().await, Some(sound(at)));
        }
        assert_eq!(outbox.take().await, Some(Frame::Text("dtmf".into())));
        assert_eq!(outbox.take().await, None);
    }

    #[tokio::test]
    async fn what_is_no_sound_is_bounded_too_and_a_closed_connection_takes_nothing() {
        let (inbox, outbox) = outbox();
        for _ in 0..ALL {
            assert_eq!(inbox.put(Frame::Text("mark".into()), false), Ok(0));
        }
        assert_eq!(inbox.put(Frame::Text("mark".into()), false), Err(Unsent::Full));
        drop(outbox);
        assert_eq!(inbox.put(sound(1), true), Err(Unsent::Closed));
    }

    #[tokio::test]
    async fn whoever_waits_is_woken_by_the_next_message() {
        let (inbox, mut outbox) = outbox();
        let reader = tokio::spawn(async move { outbox.take().await });
        tokio::task::yield_now().await;
        inbox.put(sound(7), true).unwrap();
        assert_eq!(reader.await.unwrap(), Some(sound(7)));
    }
}
