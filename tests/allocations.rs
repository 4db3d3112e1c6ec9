//! A call that is running allocates nothing: counted, packet by packet.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;
use watrunk::clock::Tick;
use watrunk::media::tap::{Said, WAITING};
use watrunk::media::{
    Alone, Bridge, BridgeSettings, Clip, Codec, DtmfFormat, FarMedia, Outgoing, Seeds, UserPacket, g711,
};

thread_local! {
    /// Allocations of this thread; the test runner's own threads are none of our business.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: every call goes to the system allocator unchanged; counting touches a thread-local that is
// initialised at compile time and needs no allocation itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations() -> u64 {
    COUNT.with(Cell::get)
}

/// Opus of 20 ms, made by a bridge itself from the tone that a PBX sends it.
fn opus_packets(count: usize) -> Vec<Vec<u8>> {
    let mut bridge = bridge();
    let mut out = Outgoing::default();
    (0..count)
        .map(|n| {
            let now = Tick::from_millis(20 * n as u64);
            bridge.from_far(&far_datagram(n), now).unwrap();
            bridge.tick(now, &mut out);
            out.to_user.as_ref().unwrap().payload.to_vec()
        })
        .collect()
}

/// What is agreed on with the PBX.
fn media(codec: Codec, pt: u8, events: bool) -> FarMedia {
    FarMedia {
        codec,
        pt,
        dtmf: events.then_some(DtmfFormat { pt: 101, clock: 8_000 }),
        comfort_noise: None,
        sends: true,
        speaks: true,
        digits_told: false,
    }
}

fn bridge() -> Box<Bridge> {
    let settings = BridgeSettings {
        opus_pt: 111,
        user_dtmf_pt: Some(126),
        jitter_ms: 60,
        complexity: 5,
        bitrate: 20_000,
        seeds: Seeds {
            user_ssrc: 1,
            user_seq: 2,
            user_timestamp: 3,
            far_ssrc: 4,
            far_seq: 5,
            far_timestamp: 6,
        },
    };
    let mut bridge = Box::new(Bridge::new(settings).unwrap());
    bridge.set_far(media(Codec::Pcmu, 0, true)).unwrap();
    bridge.open_gate();
    bridge
}

fn far_datagram(n: usize) -> Vec<u8> {
    let mut datagram = vec![0x80, 0];
    datagram.extend((n as u16).to_be_bytes());
    datagram.extend((n as u32 * 160).to_be_bytes());
    datagram.extend(7u32.to_be_bytes());
    datagram.extend((0..160).map(|at| {
        let time = (n * 160 + at) as f64 / 8_000.0;
        g711::to_pcmu(((time * 440.0 * std::f64::consts::TAU).sin() * 8_000.0) as i16)
    }));
    datagram
}

/// The same packet as another payload type, on the same clock.
fn retyped(datagram: &[u8], payload_type: u8, bytes: usize) -> Vec<u8> {
    let mut other = datagram[..12 + bytes].to_vec();
    other[1] = payload_type;
    other
}

/// Opus of a PBX, at its payload type and on a clock of 48 kHz.
fn opus_datagram(n: usize, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0x80, 107];
    datagram.extend((n as u16).to_be_bytes());
    datagram.extend((n as u32 * 960).to_be_bytes());
    datagram.extend(8u32.to_be_bytes());
    datagram.extend(payload);
    datagram
}

/// A key of the PBX that is released at once.
fn event_datagram(n: usize) -> Vec<u8> {
    let mut datagram = vec![0x80, 0x80 | 101];
    datagram.extend((n as u16).to_be_bytes());
    datagram.extend((n as u32 * 160).to_be_bytes());
    datagram.extend(7u32.to_be_bytes());
    datagram.extend([3, 0x8A, 3, 0x20]);
    datagram
}

fn last(codec: Codec) -> FarMedia {
    media(codec, if codec == Codec::G722 { 9 } else { 107 }, true)
}

#[test]
fn a_thousand_ticks_both_ways_allocate_nothing() {
    let opus = opus_packets(1_100);
    let far: Vec<Vec<u8>> = (0..1_100).map(far_datagram).collect();
    let sender_report =
        [0x80, 200, 0, 6, 0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 160];
    let clip = Arc::new(Clip::new(vec![1_000; 8_000]).unwrap());
    let mut bridge = bridge();
    let mut out = Outgoing::default();
    let mut report = heapless::Vec::new();
    let (mut before, mut to_user, mut to_far, mut reports) = (0, 0, 0, 0);
    for n in 0..1_100usize {
        if n == 100 {
            // What a thread sets up once (its first use of libopus' stack, say) is behind us.
            before = allocations();
        }
        let mut now = Tick::from_millis(1_000 + 20 * n as u64);
        // Steady, but as networks are: losses, duplicates, wrong order, digits, reports.
        let user = UserPacket {
            ssrc: 9,
            payload_type: 111,
            marker: false,
            sequence: n as u16,
            timestamp: n as u32 * 960,
            payload: &opus[n],
        };
        match n % 50 {
            7 => {}
            20..=25 => {
                let digit = UserPacket {
                    payload_type: 126,
                    timestamp: (n - n % 50) as u32 * 960,
                    payload: &[5, if n % 50 == 25 { 0x8A } else { 0x0A }, 3, (n % 50) as u8],
                    ..user
                };
                bridge.from_user(&digit, now);
            }
            30 => {
                bridge.from_user(&user, now);
                bridge.from_user(&user, now);
            }
            _ => bridge.from_user(&user, now),
        }
        if n % 40 != 11 {
            bridge.from_far(&far[n], now).unwrap();
        }
        if n % 100 == 50 {
            bridge.far_rtcp(&sender_report, now).unwrap();
            bridge.user_loss((n % 256) as u8);
            assert!(bridge.from_far(&[1, 2, 3], now).is_err());
        }
        now += Duration::from_millis(3);
        bridge.tick(now, &mut out);
        to_user += usize::from(out.to_user.is_some());
        to_far += out.to_far.len();
        reports += usize::from(bridge.rtcp_due(now, n as u64, &mut report));
    }
    assert_eq!(allocations() - before, 0, "allocations in 1,000 ticks");
    assert_eq!((to_user, to_far, reports), (1_100, 1_100, 4), "and it did its work meanwhile");
    assert!(bridge.digits_heard() >= 20);
    // The user alone, hearing the ring-back tone or nothing, and the far end again.
    let (before, mut to_user, mut to_far) = (allocations(), 0, 0);
    for (n, datagram) in far.iter().take(1_000).enumerate() {
        let now = Tick::from_millis(23_000 + 20 * n as u64);
        match n % 200 {
            0 => bridge.alone(Alone::RingBack),
            75 => bridge.set_far(media(Codec::Pcma, 8, true)).unwrap(),
            100 => bridge.alone(Alone::Silence),
            150 => bridge.set_far(media(Codec::Pcmu, 0, false)).unwrap(),
            _ => {}
        }
        bridge.from_far(datagram, now).unwrap();
        bridge.tick(now, &mut out);
        to_user += usize::from(out.to_user.is_some());
        to_far += out.to_far.len();
        bridge.rtcp_due(now, n as u64, &mut report);
    }
    assert_eq!(allocations() - before, 0, "allocations in 1,000 ticks of coming and going");
    assert_eq!((to_user, to_far), (1_000, 5 * 75));
    // Agents at every rate: from the tick after they came, until the PBX takes over.
    let (mut before, mut counted, mut heard, mut digits) = (0, 0, 0, 0);
    for n in 0..1_000usize {
        let now = Tick::from_millis(43_000 + 20 * n as u64);
        let rate = [16_000, 24_000, 8_000, 16_000][n / 250];
        match n % 250 {
            0 => bridge.set_agent(rate).unwrap(),
            // The thread's first use of libopus at this rate is behind us.
            20 => before = allocations(),
            200 => bridge.set_far(media(Codec::Pcmu, 0, true)).unwrap(),
            230 => bridge.alone(Alone::RingBack),
            249 => counted += allocations() - before,
            _ => {}
        }
        let user = UserPacket {
            ssrc: 9,
            payload_type: if n % 50 == 20 { 126 } else { 111 },
            marker: n % 50 == 20,
            sequence: (1_100 + n) as u16,
            timestamp: (1_100 + n) as u32 * 960,
            payload: if n % 50 == 20 { &[5, 0x8A, 3, 0] } else { &opus[n] },
        };
        if n % 40 != 11 {
            bridge.from_user(&user, now);
        }
        if n % 7 != 3 {
            bridge.agent_says(&[(n % 100) as i16 * 30; 480][..rate as usize / 50]);
        }
        bridge.tick(now, &mut out);
        assert!(out.to_user.is_some());
        heard += usize::from(out.to_agent.len() == rate as usize / 50);
        digits += usize::from(out.digit.is_some());
    }
    assert_eq!(counted, 0, "allocations in 1,000 ticks with agents");
    assert_eq!((heard, digits), (800, 16));
    // Wideband: G.722, and Opus that goes through, from the tick after it was agreed on.
    let wide: Vec<Vec<u8>> = far.iter().map(|datagram| retyped(datagram, 9, 160)).collect();
    let through: Vec<Vec<u8>> = (0..1_100).map(|n| opus_datagram(n, &opus[n])).collect();
    let events: Vec<Vec<u8>> = (0..1_000).map(event_datagram).collect();
    let (mut counted, mut before, mut to_far, mut told) = (0, 0, 0, 0);
    for n in 0..1_000usize {
        let now = Tick::from_millis(63_000 + 20 * n as u64);
        let codec = if n / 250 % 2 == 0 { Codec::G722 } else { Codec::Opus };
        match n % 250 {
            0 => {
                let pt = if codec == Codec::G722 { 9 } else { 107 };
                bridge.set_far(media(codec, pt, true)).unwrap();
                bridge.set_hold_clip(Some(Arc::clone(&clip)));
            }
            20 => before = allocations(),
            150 => bridge.set_far(FarMedia { sends: false, speaks: false, ..last(codec) }).unwrap(),
            200 => bridge.set_far(last(codec)).unwrap(),
            249 => counted += allocations() - before,
            _ => {}
        }
        let user = UserPacket {
            ssrc: 9,
            payload_type: if n % 50 == 20 { 126 } else { 111 },
            marker: n % 50 == 20,
            sequence: (2_100 + n) as u16,
            timestamp: (2_100 + n) as u32 * 960,
            payload: if n % 50 == 20 { &[5, 0x8A, 3, 0] } else { &opus[n] },
        };
        if n % 40 != 11 {
            bridge.from_user(&user, now);
        }
        let held = (150..200).contains(&(n % 250));
        if n % 30 != 7 && !held {
            let datagram = if codec == Codec::G722 { &wide[n] } else { &through[n] };
            bridge.from_far(datagram, now).unwrap();
        }
        if n % 60 == 40 {
            bridge.from_far(&events[n], now).unwrap();
        }
        bridge.tick(now, &mut out);
        assert!(out.to_user.is_some());
        to_far += out.to_far.len();
        told += usize::from(out.far_digit.is_some());
        bridge.rtcp_due(now, n as u64, &mut report);
    }
    assert_eq!(counted, 0, "allocations in 1,000 ticks of G.722 and Opus");
    assert!((780..=800).contains(&to_far) && told >= 10, "{to_far} {told}");
    // The counter counts.
    let counted = allocations();
    drop(std::hint::black_box(vec![1u8; 10]));
    assert_eq!(allocations(), counted + 1);
}

#[test]
fn a_call_that_is_recorded_allocates_nothing_either() {
    let opus = opus_packets(1_100);
    let clip = Arc::new(Clip::new(vec![1_000; 8_000]).unwrap());
    for codec in [Codec::Pcmu, Codec::Opus] {
        let mut bridge = bridge();
        bridge.set_far(if codec == Codec::Opus { last(codec) } else { media(codec, 0, true) }).unwrap();
        let mut out = Outgoing::default();
        let (slices, taken) = std::sync::mpsc::sync_channel(WAITING);
        let (mut before, mut counted, mut full) = (0, 0, 0);
        for (n, packet) in opus.iter().enumerate().take(1_000) {
            let now = Tick::from_millis(1_000 + 20 * n as u64);
            match n {
                // The thread's first use of libopus is behind us.
                100 => {
                    before = allocations();
                    bridge.announce(Arc::clone(&clip), true);
                }
                200 => {
                    bridge.connect();
                    bridge.open_tap(Some(250));
                }
                600 => assert!(bridge.pause_tap(true)),
                650 => assert!(bridge.pause_tap(false)),
                _ => {}
            }
            let (sequence, timestamp) = (n as u16, n as u32 * 960);
            let user = UserPacket {
                ssrc: 9,
                payload_type: 111,
                marker: false,
                sequence,
                timestamp,
                payload: packet,
            };
            if n % 40 != 11 {
                bridge.from_user(&user, now);
            }
            let outside = allocations();
            let datagram = if codec == Codec::Opus { opus_datagram(n, packet) } else { far_datagram(n) };
            before += allocations() - outside;
            bridge.from_far(&datagram, now).unwrap();
            bridge.tick(now, &mut out);
            // Nobody reads: after two seconds the recorder is one that does not keep up.
            if let Some(slice) = out.tapped.take() {
                counted += 1;
                full += usize::from(slices.try_send(slice).is_err());
            }
        }
        assert_eq!(
            allocations() - before,
            0,
            "{codec:?}: allocations in 900 ticks with prompt, beep and tap"
        );
        assert_eq!((counted, full), (800, 800 - WAITING), "{codec:?}");
        assert!(taken.try_iter().all(|slice| slice.user != Said::Nothing), "{codec:?}");
    }
}
