//! The log cannot be altered unseen.

use matron_policy::{
    Action, AuditDraft, AuditEntry, AuditKind, BrokenChain, BrokenLink, ChainHead, DecisionId, Digest, ReasonCode,
    append, verify_chain, verify_chain_from,
};
use proptest::prelude::*;

use crate::fixtures::*;

fn draft(number: u64) -> AuditDraft {
    let id = DecisionId::from_random(number.to_be_bytes());
    match number % 3 {
        0 => {
            let request = request(AMIRA, message());
            let verdict = judge(AMIRA, message(), &facts(AMIRA));
            AuditDraft::decision(&request, &verdict, NOW_MS + number, id)
        }
        1 => AuditDraft::act(
            AuditKind::Deletion {
                room_id: ROOM.to_owned(),
                events: number,
                media: 0,
                up_to_ms: NOW_MS,
                key_destroyed: true,
            },
            NOW_MS + number,
            id,
        ),
        _ => AuditDraft::act(
            AuditKind::Eviction {
                room_id: ROOM.to_owned(),
                user_id: BEN.to_owned(),
                code: ReasonCode::CredentialRevoked,
            },
            u64::MAX,
            id,
        ),
    }
}

fn log(length: u64) -> Vec<AuditEntry> {
    let mut head = ChainHead::GENESIS;
    (0..length)
        .map(|number| {
            let entry = append(&head, draft(number));
            head = entry.head();
            entry
        })
        .collect()
}

#[test]
fn whole_log_verifies_at_once_and_by_pages() {
    let log = log(9);
    let head = verify_chain(&log).unwrap();
    assert_eq!(head, log[8].head());
    assert_eq!(head.next_seq, 9);
    let middle = verify_chain(&log[..4]).unwrap();
    assert_eq!(verify_chain_from(middle, log[4..].iter().cloned()).unwrap(), head);
    assert_eq!(verify_chain(Vec::<AuditEntry>::new()).unwrap(), ChainHead::GENESIS);
}

#[test]
fn entry_survives_storage() {
    for entry in log(3) {
        let read = AuditEntry::from_bytes(&entry.to_bytes()).unwrap();
        assert_eq!(read, entry);
        assert_eq!(read.to_bytes(), entry.to_bytes());
    }
}

#[test]
fn missing_doubled_swapped_and_replaced_entries_are_found() {
    let whole = log(6);
    let mut missing = whole.clone();
    missing.remove(2);
    assert_eq!(verify_chain(&missing), Err(BrokenChain { seq: 2, what: BrokenLink::WrongPlace { found: 3 } }));
    let mut doubled = whole.clone();
    doubled.insert(3, whole[2].clone());
    assert_eq!(verify_chain(&doubled), Err(BrokenChain { seq: 3, what: BrokenLink::WrongPlace { found: 2 } }));
    let mut swapped = whole.clone();
    swapped.swap(1, 2);
    assert_eq!(verify_chain(&swapped).unwrap_err().seq, 1);
    let mut replaced = whole.clone();
    replaced[2] = append(&replaced[1].head(), draft(100));
    assert_eq!(verify_chain(&replaced), Err(BrokenChain { seq: 3, what: BrokenLink::Unlinked }));
    let mut altered = whole.clone();
    altered[4].at_ms += 1;
    assert_eq!(verify_chain(&altered), Err(BrokenChain { seq: 4, what: BrokenLink::Altered }));
    // A log cut short is whole in itself; the head kept elsewhere tells.
    assert_ne!(verify_chain(&whole[..5]).unwrap(), whole[5].head());
}

#[test]
fn log_keeps_no_overlong_or_unprintable_ids() {
    let hostile = format!("@{}\u{1b}[2J\n:{}", "é".repeat(500), "x".repeat(10_000));
    let request = request(AMIRA, Action::Invite { invitee: hostile });
    let verdict = judge(AMIRA, request.action.clone(), &facts(AMIRA));
    let draft = AuditDraft::decision(&request, &verdict, NOW_MS, DecisionId::from_random([0; 8]));
    let AuditKind::Decision { request, .. } = draft.kind else { panic!("a decision") };
    let target = request.target.unwrap();
    assert!(target.len() <= 255 && !target.chars().any(char::is_control), "{target}");
}

#[test]
fn decision_ids_are_read_as_people_write_them() {
    let id = DecisionId::from_random([0xff, 0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde]);
    let shown = id.to_string();
    assert_eq!(shown, "Y4HM-ASW9-NF6Y");
    assert_eq!(shown.to_lowercase().replace('-', " ").parse(), Ok(id));
    let zeros = DecisionId::from_random([0; 8]);
    assert_eq!(zeros.to_string(), "0000-0000-0000");
    assert_eq!("OOOO-oooo-0000".parse(), Ok(zeros));
    for bad in ["", "7K3F", "7K3F-9QXM-2B4T-0", "7K3F-9QXM-2B4U", "7K3F-9QXM-2B4é"] {
        assert!(bad.parse::<DecisionId>().is_err(), "{bad}");
    }
    assert_eq!(DecisionId::from_digest(&Digest::ZERO), zeros);
}

proptest! {
    #[test]
    fn decision_id_survives_its_text(bytes: [u8; 8]) {
        let id = DecisionId::from_random(bytes);
        prop_assert_eq!(id.to_string().parse(), Ok(id));
        prop_assert!(id.as_u64() < 1 << 60);
    }

    #[test]
    fn digest_survives_its_text(bytes: Vec<u8>) {
        let digest = Digest::of(&bytes);
        prop_assert_eq!(digest.to_string().parse(), Ok(digest));
    }
}
