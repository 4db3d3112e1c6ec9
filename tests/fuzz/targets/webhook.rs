//! JSON from Meta: webhooks, and what Graph answers. And from services that mint an agent's address.
#![no_main]

use libfuzzer_sys::fuzz_target;
use watrunk::agent::Dialect;
use watrunk::clock::{Now, Tick, Wall};
use watrunk::whatsapp::notice::Notice;
use watrunk::whatsapp::permit::Permission;
use watrunk::whatsapp::seen::Seen;
use watrunk::whatsapp::settings::{Settings, subscribed_apps};
use watrunk::whatsapp::verdict::{Verdict, sip_refusal};
use watrunk::whatsapp::{graph, webhook};

fuzz_target!(|data: &[u8]| {
    if let Ok(notices) = webhook::read(data) {
        let now = Now { tick: Tick::from_millis(1_000_000), wall: Wall(1_700_000_000_000) };
        let mut seen = Seen::with_capacity(8);
        for notice in &notices {
            seen.admit(notice, |_| true, now);
            let _ = (notice.phone_number_id(), notice.opaque());
            if let Notice::Connect(connect) = notice {
                let user = &connect.user;
                let caller = user.caller_user();
                assert!(
                    !caller.contains(['\r', '\n', '<', '>', '"', '@', ' ']),
                    "no user part of a URI: {caller}"
                );
                let _ = user.display();
            }
            let _ = format!("{notice:?}");
        }
        assert!(seen.len() <= 8);
    }
    let _ = (graph::connected_wacid(data), graph::message_id(data), subscribed_apps(data));
    for status in [200, 400, 401, 403, 404, 429, 500] {
        if let Some(verdict) = Verdict::of_http(status, data) {
            let (code, _, _) = sip_refusal(verdict.why(), Some(&verdict));
            assert!((400..700).contains(&code), "{code}");
        }
    }
    if let Some(permission) = Permission::parse(data) {
        let _ = (permission.may_call(), permission.may_request(), permission.to_json());
    }
    if let Some(settings) = Settings::parse(data) {
        let _ = settings.faults();
    }
    for dialect in [Dialect::Vapi, Dialect::ElevenLabs] {
        if let Ok(url) = dialect.minted(200, data) {
            assert!(!url.is_empty());
        }
    }
});
