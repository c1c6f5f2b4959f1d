// What people do in rooms: talk, answer, correct, search, read, come and go.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
    RoomHierarchy,
    answerInThread,
    logIn,
    refusal,
    roomOf,
    sdk,
    sees,
    start,
    unique,
    user,
    waitForEvent,
} from "./support.mjs";

const { RelationType, EventType, MsgType, Direction, ThreadFilterType, NotificationCountType } = sdk;

test("messages arrive in order and history is paged to its beginning", async () => {
    const [amira, basma] = await Promise.all([user("amira"), user("basma")]);
    const room = await roomOf(amira, [basma]);
    const said = [];
    for (let n = 0; n < 30; n += 1) said.push((await amira.sendTextMessage(room, `line ${n}`)).event_id);
    await waitForEvent(basma, room, said.at(-1));
    const timeline = basma.getRoom(room).getLiveTimeline();
    while (await basma.paginateEventTimeline(timeline, { backwards: true, limit: 7 }));
    const events = timeline.getEvents();
    assert.equal(events[0].getType(), EventType.RoomCreate);
    const bodies = events.filter((one) => one.getType() === EventType.RoomMessage).map((one) => one.getContent().body);
    assert.deepEqual(bodies, said.map((_, n) => `line ${n}`));
});

test("a permalink opens the timeline in the middle", async () => {
    const amira = await user("amira");
    const room = await roomOf(amira, []);
    const said = [];
    for (let n = 0; n < 30; n += 1) said.push((await amira.sendTextMessage(room, `line ${n}`)).event_id);
    const set = amira.getRoom(room).getUnfilteredTimelineSet();
    const timeline = await amira.getEventTimeline(set, said[5]);
    const ids = timeline.getEvents().map((one) => one.getId());
    assert.ok(ids.includes(said[5]));
    const { event_id: found } = await amira.timestampToEvent(room, 0, Direction.Forward);
    assert.equal((await amira.fetchRoomEvent(room, found)).type, EventType.RoomCreate);
});

test("reactions, edits and redactions reach the other side", async () => {
    const [amira, basma] = await Promise.all([user("carim"), user("dunya")]);
    const room = await roomOf(amira, [basma]);
    const { event_id: id } = await amira.sendTextMessage(room, "5 mg");
    const seen = await waitForEvent(basma, room, id);

    const { event_id: reaction } = await basma.sendEvent(room, EventType.Reaction, {
        "m.relates_to": { rel_type: RelationType.Annotation, event_id: id, key: "👍" },
    });
    await sees(amira, "the reaction", (client) =>
        client
            .getRoom(room)
            .relations.getChildEventsForEvent(id, RelationType.Annotation, EventType.Reaction)
            ?.getSortedAnnotationsByKey()
            ?.some(([key, who]) => key === "👍" && who.size === 1),
    );

    await amira.sendMessage(room, {
        msgtype: MsgType.Text,
        body: "* 50 mg",
        "m.new_content": { msgtype: MsgType.Text, body: "50 mg" },
        "m.relates_to": { rel_type: RelationType.Replace, event_id: id },
    });
    await sees(basma, "the edit", () => seen.getContent().body === "50 mg");
    assert.equal((await basma.fetchRelations(room, id, null, null, { dir: Direction.Backward })).chunk.length, 2);
    const whole = await basma.fetchRoomEvent(room, id);
    assert.equal(whole.unsigned["m.relations"]["m.replace"].content["m.new_content"].body, "50 mg");

    await basma.redactEvent(room, reaction);
    await amira.redactEvent(room, id, undefined, { reason: "wrong patient" });
    await sees(basma, "the redaction", () => seen.isRedacted());
    const after = await basma.fetchRoomEvent(room, id);
    assert.deepEqual(after.content, {});
    assert.equal(after.unsigned.redacted_because.content.reason, "wrong patient");
});

test("a thread has its own timeline, summary and list", async () => {
    const [amira, basma] = await Promise.all([user("elif"), user("fatima")]);
    const room = await roomOf(amira, [basma]);
    const { event_id: root } = await amira.sendTextMessage(room, "Handover, ward 3");
    await waitForEvent(basma, room, root);
    const { event_id: other } = await amira.sendTextMessage(room, "Something else");
    const replies = [];
    for (let n = 0; n < 3; n += 1) {
        replies.push(await answerInThread(basma, room, root, `answer ${n}`));
    }
    // How many they are the library counts for itself, and not always right while they arrive: the server is asked.
    const thread = await sees(amira, "the thread", () => {
        const found = amira.getRoom(room).getThread(root);
        return replies.every((id) => found?.findEventById(id)) && found;
    });
    const summary = (await amira.fetchRoomEvent(room, root)).unsigned["m.relations"]["m.thread"];
    assert.deepEqual([summary.count, summary.current_user_participated], [3, true]);
    assert.ok(thread.events.every((one) => one.getId() === root || replies.includes(one.getId())));
    const listed = await amira.createThreadListMessagesRequest(room, null, 10, Direction.Backward, ThreadFilterType.All);
    assert.deepEqual(listed.chunk.map((one) => one.event_id), [root]);
    assert.equal(listed.chunk[0].unsigned["m.relations"]["m.thread"].latest_event.event_id, replies.at(-1));
    const mine = await basma.createThreadListMessagesRequest(room, null, 10, Direction.Backward, ThreadFilterType.My);
    assert.deepEqual(mine.chunk.map((one) => one.event_id), [root]);
    // The main timeline has the root and the other message, not the answers.
    const main = amira.getRoom(room).getLiveTimeline().getEvents().map((one) => one.getId());
    assert.ok(main.includes(root) && main.includes(other) && !main.includes(replies[0]));
});

test("unread counts rise by thread and fall with receipts", async () => {
    const [amira, basma] = await Promise.all([user("gulsen"), user("hana")]);
    const room = await roomOf(amira, [basma]);
    const seen = basma.getRoom(room);
    await amira.sendTextMessage(room, "one");
    const { event_id: root } = await amira.sendMessage(room, {
        msgtype: MsgType.Text,
        body: "two, for you",
        "m.mentions": { user_ids: [basma.getUserId()] },
    });
    await sees(
        basma,
        "two unread, one of them a mention",
        () =>
            seen.getRoomUnreadNotificationCount(NotificationCountType.Total) === 2 &&
            seen.getRoomUnreadNotificationCount(NotificationCountType.Highlight) === 1,
    );
    const inside = await answerInThread(amira, room, root, "in the thread");
    await sees(
        basma,
        "one unread in the thread",
        () => seen.getThreadUnreadNotificationCount(root, NotificationCountType.Total) === 1,
    );
    await basma.sendReadReceipt(await waitForEvent(basma, room, root));
    await sees(basma, "the room is read", () => seen.getRoomUnreadNotificationCount() === 0);
    await sees(amira, "the other's receipt", () => amira.getRoom(room).hasUserReadEvent(basma.getUserId(), root));
    assert.equal(seen.getThreadUnreadNotificationCount(root, NotificationCountType.Total), 1);
    const answer = await sees(basma, "the answer", () => seen.getThread(root)?.findEventById(inside));
    await basma.sendReadReceipt(answer);
    await sees(basma, "the thread is read", () => seen.getThreadUnreadNotificationCount(root) === 0);
    // A private receipt moves the marker and tells nobody.
    const { event_id: last } = await amira.sendTextMessage(room, "three");
    await basma.sendReadReceipt(await waitForEvent(basma, room, last), sdk.ReceiptType.ReadPrivate);
    await sees(basma, "it is read", () => seen.getRoomUnreadNotificationCount() === 0);
    const { event_id: mark } = await amira.sendTextMessage(room, "four");
    await waitForEvent(amira, room, mark);
    assert.equal(amira.getRoom(room).hasUserReadEvent(basma.getUserId(), last), false);
    await basma.setRoomReadMarkers(room, last);
    await sees(basma, "the marker", () => seen.getAccountData("m.fully_read")?.getContent().event_id === last);
});

test("typing is seen and ends", async () => {
    const [amira, basma] = await Promise.all([user("ismet"), user("jamila")]);
    const room = await roomOf(amira, [basma]);
    const typing = () => amira.getRoom(room).getMember(basma.getUserId()).typing;
    await basma.sendTyping(room, true, 30_000);
    await sees(amira, "typing", typing);
    await basma.sendTyping(room, false, 0);
    await sees(amira, "the end of it", () => !typing());
});

test("search finds words, says where, and goes on", async () => {
    const amira = await user("kemal");
    const room = await roomOf(amira, []);
    const word = unique("amoxicillin").replaceAll("-", "");
    for (let n = 0; n < 12; n += 1) await amira.sendTextMessage(room, `give ${word} ${n}`);
    await amira.sendTextMessage(room, "nothing of it");
    const found = await amira.searchRoomEvents({ term: word, filter: { limit: 5 } });
    assert.equal(found.count, 12);
    let pages = 1;
    while (found.next_batch) {
        await amira.backPaginateRoomEventsSearch(found);
        pages += 1;
        assert.ok(pages < 10);
    }
    assert.equal(found.results.length, 12);
    assert.ok(found.results.every((one) => one.context.getEvent().getContent().body.includes(word)));
    assert.ok(found.highlights.includes(word));
});

test("people are invited, refuse, are removed and banned, and come back when they may", async () => {
    const [amira, basma] = await Promise.all([user("leyla"), user("mehmet")]);
    const them = basma.getUserId();
    const room = await roomOf(amira, []);
    const mine = (membership) => sees(basma, membership, () => basma.getRoom(room)?.getMyMembership() === membership);
    await amira.invite(room, them, "we need you");
    await mine("invite");
    await basma.leave(room);
    await mine("leave");
    await amira.invite(room, them);
    await mine("invite");
    await basma.joinRoom(room);
    await mine("join");
    await amira.kick(room, them, "shift is over");
    await mine("leave");
    assert.equal(basma.getRoom(room).getMember(them).events.member.getContent().reason, "shift is over");
    await amira.ban(room, them, "left the trust");
    await mine("ban");
    assert.equal((await refusal(basma.joinRoom(room))).errcode, "M_FORBIDDEN");
    await amira.unban(room, them);
    await amira.invite(room, them);
    await mine("invite");
    await basma.joinRoom(room);
    await mine("join");
    await basma.leave(room);
    await mine("leave");
    await basma.forget(room);
    assert.equal((await refusal(basma.roomState(room))).errcode, "M_FORBIDDEN");
});

test("one knocks and is let in", async () => {
    const [amira, basma] = await Promise.all([user("nadia"), user("omar")]);
    const { room_id: room } = await amira.createRoom({
        initial_state: [{ type: "m.room.join_rules", state_key: "", content: { join_rule: "knock" } }],
    });
    await sees(amira, "the room", () => amira.getRoom(room));
    await basma.knockRoom(room, { reason: "night shift" });
    await sees(basma, "the knock", () => basma.getRoom(room)?.getMyMembership() === "knock");
    await sees(amira, "who knocks", () => amira.getRoom(room).getMember(basma.getUserId())?.membership === "knock");
    await amira.invite(room, basma.getUserId());
    await sees(basma, "the invitation", () => basma.getRoom(room).getMyMembership() === "invite");
    await basma.joinRoom(room);
});

test("an upgraded room leads to its successor, which knows where it came from", async () => {
    const [amira, basma] = await Promise.all([user("parvin"), user("qamar")]);
    const room = await roomOf(amira, [basma], { room_version: "11", name: "Ward 3" });
    const { replacement_room: next } = await amira.upgradeRoom(room, "12");
    await sees(basma, "the tombstone", () => {
        const event = basma.getRoom(room).currentState.getStateEvents("m.room.tombstone", "");
        return event?.getContent().replacement_room === next;
    });
    await sees(amira, "the new room", () => amira.getRoom(next)?.name === "Ward 3");
    assert.equal(amira.getRoom(next).getVersion(), "12");
    assert.equal(amira.getRoom(next).findPredecessor().roomId, room);
    assert.equal((await refusal(basma.sendTextMessage(room, "too late"))).errcode, "M_FORBIDDEN");
});

test("a space shows its rooms to those who may see them", async () => {
    const [amira, basma] = await Promise.all([user("rana"), user("selim")]);
    const { room_id: space } = await amira.createRoom({
        name: "The trust",
        preset: "public_chat",
        creation_content: { type: "m.space" },
    });
    const { room_id: open } = await amira.createRoom({ name: "Canteen", preset: "public_chat" });
    const { room_id: closed } = await amira.createRoom({ name: "Board", preset: "private_chat" });
    const via = [amira.getDomain()];
    for (const child of [open, closed]) {
        await amira.sendStateEvent(space, EventType.SpaceChild, { via, suggested: child === open }, child);
    }
    await basma.joinRoom(space);
    const theirs = (await basma.getRoomHierarchy(space, 50, 3)).rooms.map((one) => one.room_id);
    assert.deepEqual(theirs, [space, open]);
    const mine = (await amira.getRoomHierarchy(space, 50, 3)).rooms.map((one) => one.room_id);
    assert.deepEqual(mine.sort(), [space, open, closed].sort());
    const walk = new RoomHierarchy(await sees(basma, "the space", () => basma.getRoom(space)), 1);
    while (walk.canLoadMore) await walk.load();
    assert.equal(walk.rooms.length, 2);
    assert.equal(walk.isSuggested(space, open), true);
    const summary = await basma.getRoomSummary(open, via);
    assert.equal(summary.name, "Canteen");
});

test("a room is published, found by name and alias, and joined by it", async () => {
    const [amira, basma] = await Promise.all([user("tarik"), user("umay")]);
    const alias = unique("pharmacy");
    const { room_id: room } = await amira.createRoom({
        name: `Pharmacy ${alias}`,
        preset: "public_chat",
        visibility: "private",
        room_alias_name: alias,
    });
    const full = `#${alias}:${amira.getDomain()}`;
    assert.equal((await basma.getRoomIdForAlias(full)).room_id, room);
    const other = `#${alias}-2:${amira.getDomain()}`;
    await amira.createAlias(other, room);
    assert.deepEqual((await amira.getLocalAliases(room)).aliases.sort(), [full, other].sort());
    await amira.deleteAlias(other);
    assert.equal((await refusal(basma.getRoomIdForAlias(other))).errcode, "M_NOT_FOUND");
    assert.equal((await amira.getRoomDirectoryVisibility(room)).visibility, "private");
    await basma.joinRoom(full);
    await sees(basma, "the room", () => basma.getRoom(room)?.getMyMembership() === "join");
    assert.equal(basma.getRoom(room).getCanonicalAlias(), full);
    const joined = await basma.getJoinedRoomMembers(room);
    assert.equal(Object.keys(joined.joined).length, 2);
});

test("members are loaded when they are needed", async () => {
    const [amira, basma] = await Promise.all([user("vildan"), user("wafa")]);
    const room = await roomOf(amira, [basma]);
    for (let n = 0; n < 25; n += 1) await amira.sendTextMessage(room, `line ${n}`);
    const lazy = await start(await logIn(amira.getUserIdLocalpart()), { lazyLoadMembers: true, initialSyncLimit: 5 });
    const seen = lazy.getRoom(room);
    assert.equal(seen.getJoinedMemberCount(), 2);
    await seen.loadMembersIfNeeded();
    assert.equal(seen.getMembers().length, 2);
});
