// What belongs to a user: profile, directory, push rules, account data, presence.
import assert from "node:assert/strict";
import { test } from "node:test";

import { logIn, refusal, roomOf, sdk, sees, start, unique, user } from "./support.mjs";

const { PushRuleKind, EventType } = sdk;

test("a profile is changed, seen by others, and extended", async () => {
    const [amira, basma] = await Promise.all([user("amira"), user("basma")]);
    const room = await roomOf(amira, [basma]);
    await amira.setDisplayName("Dr Amira Ak");
    await amira.setAvatarUrl(`mxc://${amira.getDomain()}/face`);
    await sees(basma, "the new name", () => basma.getRoom(room).getMember(amira.getUserId()).name === "Dr Amira Ak");
    const profile = await basma.getProfileInfo(amira.getUserId());
    assert.equal(profile.displayname, "Dr Amira Ak");
    assert.equal(profile.avatar_url, `mxc://${amira.getDomain()}/face`);
    assert.equal(await amira.doesServerSupportExtendedProfiles(), true);
    await amira.setExtendedProfileProperty("m.tz", "Europe/Berlin");
    assert.equal(await basma.getExtendedProfileProperty(amira.getUserId(), "m.tz"), "Europe/Berlin");
    await amira.deleteExtendedProfileProperty("m.tz");
    assert.equal((await basma.getExtendedProfile(amira.getUserId()))["m.tz"], undefined);
});

test("the user directory finds those whom one shares a room with, by name and by id", async () => {
    const [amira, basma] = await Promise.all([user("carim"), user("dunya")]);
    await roomOf(amira, [basma]);
    const name = unique("Zübeyde");
    await basma.setDisplayName(name);
    for (const term of [name, basma.getUserIdLocalpart()]) {
        await sees(amira, `${term} is found`, async () => {
            const { results } = await amira.searchUserDirectory({ term, limit: 5 });
            return results.some((one) => one.user_id === basma.getUserId() && one.display_name === name);
        });
    }
});

test("push rules are read, added, muted and removed, and other devices learn of it", async () => {
    const amira = await user("elif");
    const phone = await start(await logIn(amira.getUserIdLocalpart()));
    const room = await roomOf(amira, []);
    const rules = await amira.getPushRules();
    assert.ok(rules.global.override.some((rule) => rule.rule_id === ".m.rule.master" && !rule.enabled));
    const word = unique("sepsis");
    await amira.addPushRule("global", PushRuleKind.ContentSpecific, word, { actions: ["notify"], pattern: word });
    await sees(phone, "the rule", () => phone.pushRules?.global.content?.some((rule) => rule.rule_id === word));
    await amira.setPushRuleEnabled("global", PushRuleKind.ContentSpecific, word, false);
    await sees(phone, "the rule is off", () =>
        phone.pushRules.global.content.some((rule) => rule.rule_id === word && !rule.enabled),
    );
    await amira.setPushRuleActions("global", PushRuleKind.ContentSpecific, word, ["notify", { set_tweak: "sound", value: "ding" }]);
    await amira.deletePushRule("global", PushRuleKind.ContentSpecific, word);
    await sees(phone, "the rule is gone", () => !phone.pushRules.global.content?.some((rule) => rule.rule_id === word));
    await amira.setRoomMutePushRule("global", room, true);
    assert.equal(amira.getRoomPushRule("global", room)?.actions.includes("notify") ?? false, false);
});

test("a pusher is set, listed and removed", async () => {
    const amira = await user("fatima");
    const pusher = {
        app_display_name: "Test",
        app_id: "test.app",
        data: { url: "https://push.invalid/_matrix/push/v1/notify", format: "event_id_only" },
        device_display_name: "Test",
        kind: "http",
        lang: "en",
        pushkey: unique("key"),
    };
    await amira.setPusher(pusher);
    assert.deepEqual((await amira.getPushers()).pushers.map((one) => one.pushkey), [pusher.pushkey]);
    await amira.removePusher(pusher.pushkey, pusher.app_id);
    assert.deepEqual((await amira.getPushers()).pushers, []);
});

test("account data, tags and ignored users follow to every device", async () => {
    const [amira, basma] = await Promise.all([user("gulsen"), user("hana")]);
    const phone = await start(await logIn(amira.getUserIdLocalpart()));
    const room = await roomOf(amira, [basma]);
    await amira.setAccountData("test.matron.ward", { number: 3 });
    await sees(phone, "the account data", () => phone.getAccountData("test.matron.ward")?.getContent().number === 3);
    assert.deepEqual(await amira.getAccountDataFromServer("test.matron.ward"), { number: 3 });
    await amira.setRoomTag(room, "m.favourite", { order: 0.5 });
    await sees(phone, "the tag", () => phone.getRoom(room)?.tags["m.favourite"]?.order === 0.5);
    await amira.deleteRoomTag(room, "m.favourite");
    await sees(phone, "no tag", () => !phone.getRoom(room).tags["m.favourite"]);
    await amira.setIgnoredUsers([basma.getUserId()]);
    await sees(phone, "who is ignored", () => phone.isUserIgnored(basma.getUserId()));
    const { event_id: hidden } = await basma.sendTextMessage(room, "unseen");
    const { event_id: mark } = await amira.sendTextMessage(room, "seen");
    await sees(phone, "what comes after", () => phone.getRoom(room).findEventById(mark));
    assert.equal(phone.getRoom(room).findEventById(hidden), undefined);
});

test("presence is seen by those who share a room", async () => {
    const [amira, basma] = await Promise.all([user("ismet"), user("jamila")]);
    await roomOf(amira, [basma]);
    await basma.setPresence({ presence: "unavailable", status_msg: "in theatre" });
    await sees(amira, "the status", () => amira.getUser(basma.getUserId())?.presenceStatusMsg === "in theatre");
    assert.equal((await amira.getPresence(basma.getUserId())).status_msg, "in theatre");
});

test("to-device messages arrive once", async () => {
    const [amira, basma] = await Promise.all([user("kemal"), user("leyla")]);
    const got = [];
    basma.on(sdk.ClientEvent.ToDeviceEvent, (event) => got.push(event.getContent().n));
    for (const n of [1, 2, 3]) {
        const inner = new Map([[basma.getDeviceId(), { n }]]);
        await amira.sendToDevice("test.matron.note", new Map([[basma.getUserId(), inner]]));
    }
    await sees(basma, "all of them", () => got.length >= 3);
    assert.deepEqual(got, [1, 2, 3]);
});

test("reports are taken, and unknown events refused", async () => {
    const amira = await user("mehmet");
    const room = await roomOf(amira, []);
    const { event_id: id } = await amira.sendTextMessage(room, "a slur");
    await amira.reportEvent(room, id, -100, "rude");
    await amira.reportRoom(room, "all of it");
    assert.equal((await refusal(amira.reportEvent(room, "$nothing", -100, "rude"))).httpStatus, 404);
    assert.equal((await amira.getStateEvent(room, EventType.RoomCreate, "")).room_version, amira.getRoom(room).getVersion());
});
