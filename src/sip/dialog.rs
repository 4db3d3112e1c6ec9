//! Dialogs (RFC 3261 §12): tags, sequence numbers, route sets and the remote target.

use super::header::{NameAddr, Uri};
use super::wire::{Draft, Headers, Request, Response};
use super::words::Way;

/// A dialog: confirmed if we called; early at first if the PBX did.
#[derive(Debug, Clone)]
pub(crate) struct Dialog {
    pub call_id: String,
    /// The value of our From (of To, if we were called), with our tag.
    local: String,
    pub local_tag: String,
    /// The value of our To (of From, if we were called), with the PBX's tag.
    remote: String,
    pub remote_tag: String,
    /// Where requests are meant for: the PBX's last Contact.
    target: String,
    /// Route headers, in order.
    routes: Vec<String>,
    /// The number of our last request.
    pub cseq: u32,
    /// The number of the PBX's last request.
    remote_cseq: Option<u32>,
    /// Where the last message came from: the way that is known to work.
    pub seen: Way,
}

/// More routes than these are not followed.
const MOST_ROUTES: usize = 16;

/// A request ready but for Via, and where it goes.
pub(crate) struct Addressed {
    pub draft: Draft,
    pub uri: String,
    /// The address of the next hop, if its URI has one.
    pub hop: Option<Way>,
}

impl Dialog {
    /// What a 2xx to our INVITE establishes (§12.1.2). `local` and `local_tag` are our From, `uri` the
    /// request URI, which stands in for a missing Contact.
    pub fn confirmed(answer: &Response, local: &str, local_tag: &str, uri: &str, seen: Way) -> Dialog {
        let mut routes: Vec<String> = answer.headers.list("Record-Route").map(str::to_owned).collect();
        routes.reverse();
        routes.truncate(MOST_ROUTES);
        Dialog {
            call_id: answer.call_id.clone(),
            local: local.to_owned(),
            local_tag: local_tag.to_owned(),
            remote: answer.headers.get("To").unwrap_or_default().to_owned(),
            remote_tag: answer.to.tag().unwrap_or_default().to_owned(),
            target: contact(answer.headers.list("Contact")).unwrap_or_else(|| uri.to_owned()),
            routes,
            cseq: answer.cseq,
            remote_cseq: None,
            seen,
        }
    }

    /// What our answer with that tag to the PBX's INVITE establishes (§12.1.1). The URI of From stands in
    /// for a missing Contact.
    pub fn called(invite: &Request, tag: &str, seen: Way) -> Dialog {
        let routes = invite.headers.list("Record-Route").take(MOST_ROUTES).map(str::to_owned).collect();
        Dialog {
            call_id: invite.call_id.clone(),
            local: format!("{};tag={tag}", invite.headers.get("To").unwrap_or_default()),
            local_tag: tag.to_owned(),
            remote: invite.headers.get("From").unwrap_or_default().to_owned(),
            remote_tag: invite.from.tag().unwrap_or_default().to_owned(),
            target: contact(invite.headers.list("Contact")).unwrap_or_else(|| invite.from.uri_text.clone()),
            routes,
            cseq: 0,
            remote_cseq: Some(invite.cseq),
            seen,
        }
    }

    /// A request in the dialog, with the next number (§12.2.1.1).
    pub fn request(&mut self, method: &str) -> Addressed {
        self.cseq = self.cseq.saturating_add(1);
        self.numbered(method, self.cseq)
    }

    /// The acknowledgement of a 2xx: with the number of its INVITE (§13.2.2.4).
    pub fn acknowledgement(&self, invite: u32) -> Addressed {
        self.numbered("ACK", invite)
    }

    fn numbered(&self, method: &str, cseq: u32) -> Addressed {
        let first = self.routes.first().and_then(|route| NameAddr::read(route));
        // A strict router wants its own URI as the request URI, and the target as the last route.
        let (uri, routes) = match &first {
            Some(route) if !route.uri.is_loose() => {
                let mut routes: Vec<String> = self.routes.iter().skip(1).cloned().collect();
                routes.push(format!("<{}>", self.target));
                (route.uri_text.clone(), routes)
            }
            Some(_) | None => (self.target.clone(), self.routes.clone()),
        };
        let hop = match first {
            Some(route) => route.uri.way(self.seen),
            None => Uri::read(&self.target).and_then(|target| target.way(self.seen)),
        };
        let mut draft = Draft::request(method, &uri);
        for route in routes {
            draft.push("Route", route);
        }
        draft.push("Max-Forwards", "70");
        draft.push("From", self.local.clone());
        draft.push("To", self.remote.clone());
        draft.push("Call-ID", self.call_id.clone());
        draft.push("CSeq", format!("{cseq} {method}"));
        Addressed { draft, uri, hop }
    }

    /// Whether the request belongs to this dialog (§12.2.2).
    pub fn owns(&self, request: &Request) -> bool {
        request.call_id == self.call_id
            && request.to.tag() == Some(&self.local_tag)
            && request.from.tag().unwrap_or_default() == self.remote_tag
    }

    /// Notes the number of a request; false if it is out of order, which is answered with 500.
    pub fn in_order(&mut self, request: &Request) -> bool {
        if self.remote_cseq.is_some_and(|last| request.cseq <= last) {
            return false;
        }
        self.remote_cseq = Some(request.cseq);
        true
    }

    /// The dialog was an early one until now, and has been spoken in.
    pub fn succeed(&mut self, early: &Dialog) {
        self.cseq = self.cseq.max(early.cseq);
        self.remote_cseq = self.remote_cseq.max(early.remote_cseq);
    }

    /// Whether these are its tags and its Call-ID, ours first (RFC 3891 §3).
    pub fn is_named(&self, call_id: &str, ours: &str, theirs: &str) -> bool {
        self.call_id == call_id && self.local_tag == ours && self.remote_tag == theirs
    }

    /// A target refresh request (re-INVITE, UPDATE), or the 2xx to one of ours, says where the PBX wants to be spoken to.
    pub fn refresh_target(&mut self, headers: &Headers) {
        if let Some(target) = contact(headers.list("Contact")) {
            self.target = target;
        }
    }
}

fn contact<'a>(mut contacts: impl Iterator<Item = &'a str>) -> Option<String> {
    let read = NameAddr::read(contacts.next()?)?;
    read.uri.is_sip().then_some(read.uri_text)
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Read, read};
    use super::*;

    fn answer(routes: &[&str], contact: &str) -> Response {
        let mut text = String::from(
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP 192.0.2.7;branch=z9hG4bKa\r\nFrom: <sip:a@h>;tag=1\r\n\
             To: <sip:b@h>;tag=2\r\nCall-ID: c\r\nCSeq: 7 INVITE\r\n",
        );
        for route in routes {
            text.push_str(&format!("Record-Route: {route}\r\n"));
        }
        text.push_str(&format!("{contact}Content-Length: 0\r\n\r\n"));
        match read(text.as_bytes()) {
            Read::Response(response) => *response,
            other => panic!("{other:?}"),
        }
    }

    fn dialog(routes: &[&str]) -> Dialog {
        let answer = answer(routes, "Contact: <sip:b@192.0.2.1:5062>\r\n");
        Dialog::confirmed(
            &answer,
            "<sip:a@h>;tag=1",
            "1",
            "sip:b@h",
            Way::udp("192.0.2.1:5060".parse().unwrap()),
        )
    }

    fn lines(addressed: &Addressed) -> String {
        String::from_utf8(addressed.draft.bytes()).unwrap()
    }

    #[test]
    fn loose_routes_are_followed_in_reverse_and_the_target_stays_in_the_request_line() {
        let bye = dialog(&["<sip:p1.example;lr>, <sip:192.0.2.9:5070;lr>"]).request("BYE");
        assert!(lines(&bye).starts_with(
            "BYE sip:b@192.0.2.1:5062 SIP/2.0\r\nRoute: <sip:192.0.2.9:5070;lr>\r\nRoute: <sip:p1.example;lr>\r\n"
        ));
        assert_eq!(bye.hop, Some(Way::udp("192.0.2.9:5070".parse().unwrap())));
    }

    #[test]
    fn a_strict_router_gets_itself_in_the_request_line() {
        let bye = dialog(&["<sip:p1.example;lr>", "<sip:192.0.2.9>"]).request("BYE");
        assert!(lines(&bye).starts_with(
            "BYE sip:192.0.2.9 SIP/2.0\r\nRoute: <sip:p1.example;lr>\r\nRoute: <sip:b@192.0.2.1:5062>\r\n"
        ));
        assert_eq!(bye.hop, Some(Way::udp("192.0.2.9:5060".parse().unwrap())));
    }

    #[test]
    fn ack_keeps_the_number_of_the_invite_and_bye_takes_the_next() {
        let mut dialog = dialog(&[]);
        assert!(lines(&dialog.acknowledgement(7)).contains("CSeq: 7 ACK\r\n"));
        assert!(lines(&dialog.request("BYE")).contains("CSeq: 8 BYE\r\n"));
    }

    #[test]
    fn without_a_contact_the_request_uri_stands_in() {
        let seen = Way::udp("192.0.2.1:5060".parse().unwrap());
        let dialog = Dialog::confirmed(&answer(&[], ""), "<sip:a@h>;tag=1", "1", "sip:b@h", seen);
        let ack = dialog.acknowledgement(7);
        assert!(lines(&ack).starts_with("ACK sip:b@h SIP/2.0\r\n"));
        assert_eq!(ack.hop, None);
    }
}
