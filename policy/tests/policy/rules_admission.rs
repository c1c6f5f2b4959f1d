//! Who comes in, by which paths, and who stays outside.

use matron_policy::*;

use crate::fixtures::*;

#[test]
fn verified_members_of_both_organisations_join_and_speak() {
    for user in [AMIRA, BEN] {
        assert_permitted(&judge(user, Action::Join, &facts(user)));
        let verdict = judge(user, message(), &facts(user));
        assert_permitted(&verdict);
        assert_eq!(verdict.expire_after_ms(), Some(HOUR_MS));
    }
}

#[test]
fn outsider_gets_in_by_no_path() {
    for act in admissions() {
        for act in [act.clone(), act.from_outside()] {
            let verdict = judge(OUTSIDER, act, &facts(OUTSIDER));
            assert!(codes(&verdict).contains(&ReasonCode::OutsideFederation), "{verdict:?}");
            assert_eq!(*verdict.outcome(), matron_policy::Outcome::Deny);
        }
    }
    assert!(!judge(OUTSIDER, message().from_outside(), &facts(OUTSIDER)).is_permit());
}

#[test]
fn member_of_the_federation_outside_the_room_stays_outside() {
    for act in admissions() {
        assert_refused(&judge(CARLA, act, &facts(CARLA)), ReasonCode::OutsideRoom);
    }
    assert_refused(&judge(CARLA, message().from_outside(), &facts(CARLA)), ReasonCode::OutsideRoom);
    assert_refused(&judge(CARLA, Action::Remain, &facts(CARLA)), ReasonCode::OutsideRoom);
}

#[test]
fn bot_of_another_organisation_is_bound_like_anyone() {
    let bot = "@matron:trust-c.example";
    assert_refused(&judge(bot, Action::FederatedJoin, &facts(bot)), ReasonCode::OutsideRoom);
}

#[test]
fn outsider_is_not_invited_either() {
    let invite = |invitee: &str| Action::Invite { invitee: invitee.to_owned() };
    let judged = |invitee: &str| judge(AMIRA, invite(invitee), &facts_with_invitee(AMIRA, invitee));
    assert_permitted(&judged(BEN));
    assert_refused(&judged(CARLA), ReasonCode::InviteeOutsideRoom);
    assert_refused(&judged(OUTSIDER), ReasonCode::InviteeOutsideFederation);
    assert_undetermined(&judge(AMIRA, invite(BEN), &facts(AMIRA)), ReasonCode::InviteeUnavailable);
    // Facts about somebody else say nothing of this invitee.
    let verdict = judge(AMIRA, invite(OUTSIDER), &facts_with_invitee(AMIRA, BEN));
    assert_undetermined(&verdict, ReasonCode::InviteeUnavailable);
}

#[test]
fn nobody_is_invited_by_an_address_that_belongs_to_no_matrix_id() {
    let state = |token: &str, content: serde_json::Value| {
        Action::of_event(AMIRA, "m.room.third_party_invite", Some(token), &content, RedactTarget::Unknown)
    };
    let invite = serde_json::json!({"display_name": "b...@trust-b.example", "public_key": "AAAA"});
    for act in [state("token", invite.clone()), state("", invite.clone()), state("token", serde_json::json!("odd"))] {
        assert_refused(&judge(AMIRA, act.clone(), &facts(AMIRA)), ReasonCode::InviteeUnknown);
        assert_refused(&judge(BEN, act.clone().from_outside(), &facts(BEN)), ReasonCode::InviteeUnknown);
        assert_refused(&judge(BOT, act, &facts(BOT)), ReasonCode::InviteeUnknown);
    }
    // What was begun before the room had a policy can be taken back.
    assert_permitted(&judge(AMIRA, state("token", serde_json::json!({})), &facts(AMIRA)));
    let mut ordinary = facts(AMIRA);
    ordinary.room = RoomFacts::none();
    assert_permitted(&judge(AMIRA, state("token", invite), &ordinary));
}

#[test]
fn jurisdiction_outside_the_floor_is_refused() {
    let policies = PolicySet {
        floor: Some(PolicyLayer { jurisdictions: Some(["GB-ENG".to_owned()].into()), ..PolicyLayer::default() }),
        ..PolicySet::default()
    };
    let mut facts_c = facts(CARLA);
    facts_c.room = RoomFacts::none();
    assert_refused(&decide(&request(CARLA, Action::Join), &facts_c, &policies), ReasonCode::OutsideJurisdiction);
    assert_permitted(&decide(&request(AMIRA, Action::Join), &facts(AMIRA), &policies));
}

#[test]
fn no_register_and_unknown_organisation_never_permit() {
    for act in [Action::Join, message(), Action::FederatedJoin, message().from_outside(), Action::Read] {
        let mut without = facts(AMIRA);
        without.register = RegisterStatus::None;
        assert_undetermined(&judge(AMIRA, act.clone(), &without), ReasonCode::RegisterMissing);
        let mut unknown = facts(AMIRA);
        unknown.person.organisation = Fact::Unavailable(Unavailable::NoAnswer);
        assert_undetermined(&judge(AMIRA, act, &unknown), ReasonCode::OrganisationUnavailable);
    }
}

#[test]
fn expired_register_admits_nobody_and_lets_members_speak_within_the_grace() {
    let mut stale = facts(AMIRA);
    stale.register = RegisterStatus::Stale { expired_at_ms: NOW_MS - HOUR_MS };
    let graceful = PolicySet { register_grace_ms: DAY_MS, ..PolicySet::default() };
    assert_undetermined(&judge(AMIRA, message(), &stale), ReasonCode::RegisterStale);
    assert_permitted(&decide(&request(AMIRA, message()), &stale, &graceful));
    assert_undetermined(&decide(&request(AMIRA, Action::Join), &stale, &graceful), ReasonCode::RegisterStale);
    stale.register = RegisterStatus::Stale { expired_at_ms: NOW_MS - DAY_MS };
    assert_undetermined(&decide(&request(AMIRA, message()), &stale, &graceful), ReasonCode::RegisterStale);
}

#[test]
fn clearing_the_room_policy_frees_nobody_where_the_deployment_has_layers() {
    let policies = PolicySet { organisation: Some(room_policy().layer()), ..PolicySet::default() };
    let mut facts = facts(CARLA);
    facts.room = RoomFacts::none();
    assert_refused(&decide(&request(CARLA, Action::Join), &facts, &policies), ReasonCode::OutsideRoom);
}

#[test]
fn governance_creates_rooms_where_the_layer_says_so() {
    let policies = PolicySet {
        organisation: Some(PolicyLayer {
            governance_creates_rooms: Some(true),
            encryption_required: Some(true),
            max_lifetime_ms: Some(HOUR_MS),
            federate: Some(false),
            ..PolicyLayer::default()
        }),
        ..PolicySet::default()
    };
    let create = Action::CreateRoom { federates: true };
    let new_room = |user| Facts { room: RoomFacts::none(), ..facts(user) };
    let verdict = decide(&request(AMIRA, create.clone()), &new_room(AMIRA), &policies);
    assert_refused(&verdict, ReasonCode::CreatorNotGovernance);
    let verdict = decide(&request(BOT, create), &new_room(BOT), &policies);
    assert_permitted(&verdict);
    assert_eq!(
        verdict.obligations(),
        [
            Obligation::SetLifetime { max_ms: HOUR_MS },
            Obligation::Encrypt,
            Obligation::RotateKeys { every_ms: HOUR_MS },
            Obligation::StayLocal
        ]
    );
}

#[test]
fn room_that_may_not_federate_stays_on_its_server() {
    let policies = PolicySet {
        organisation: Some(PolicyLayer { federate: Some(false), ..PolicyLayer::default() }),
        ..PolicySet::default()
    };
    let judged = |user: &str, act: Action, facts: Facts| decide(&request(user, act), &facts, &policies);
    let forbidden = ReasonCode::FederationForbidden;
    assert_refused(&judged(BEN, Action::FederatedJoin, facts(BEN)), forbidden);
    assert_refused(&judged(BEN, message().from_outside(), facts(BEN)), forbidden);
    let invite = |who: &str| Action::Invite { invitee: who.to_owned() };
    assert_refused(&judged(AMIRA, invite(BEN), facts_with_invitee(AMIRA, BEN)), forbidden);
    let colleague = "@ines:trust-a.example";
    assert_permitted(&judged(AMIRA, invite(colleague), facts_with_invitee(AMIRA, colleague)));
}

#[test]
fn facts_of_a_room_being_created_let_its_creator_set_the_first_state() {
    let change = Action::of_event(AMIRA, "m.room.server_acl", Some(""), &serde_json::json!({}), RedactTarget::Unknown);
    let mut request = request(AMIRA, change);
    request.context = Context { room_being_created: true };
    assert_permitted(&decide(&request, &facts(AMIRA), &PolicySet::default()));
}
