// Simplified sliding sync as the library speaks it.
import assert from "node:assert/strict";
import { test } from "node:test";

import { register, user } from "./support.mjs";

const { SlidingSync, SlidingSyncEvent } = await import("matrix-js-sdk/lib/sliding-sync.js");

test("a list slides over the rooms, most recent first, and brings what is new", async () => {
    const amira = await user("amira");
    const rooms = [];
    for (let n = 0; n < 5; n += 1) rooms.push((await amira.createRoom({ name: `Ward ${n}` })).room_id);
    await amira.sendTextMessage(rooms[1], "newest");

    const list = { ranges: [[0, 1]], sort: ["by_recency"], timeline_limit: 3, required_state: [["m.room.create", ""]] };
    const sliding = new SlidingSync(amira.getHomeserverUrl(), new Map([["rooms", list]]), {}, amira, 2_000);
    const seen = new Map();
    let wake = () => {};
    sliding.on(SlidingSyncEvent.RoomData, (room, data) => {
        seen.set(room, data);
        wake();
    });
    const until = async (probe) => {
        const end = Date.now() + 60_000;
        while (!probe()) {
            assert.ok(Date.now() < end, `it never came: ${[...seen.keys()]}`);
            await new Promise((resolve) => {
                wake = resolve;
                setTimeout(resolve, 200);
            });
        }
    };
    const running = sliding.start();
    await until(() => seen.has(rooms[1]) && seen.has(rooms[4]));
    assert.deepEqual([...seen.keys()].sort(), [rooms[1], rooms[4]].sort());
    assert.equal(seen.get(rooms[1]).timeline.at(-1).content.body, "newest");
    assert.equal(seen.get(rooms[1]).name, "Ward 1");
    assert.equal(sliding.getListData("rooms").joinedCount, 5);
    // The window grows.
    sliding.setListRanges("rooms", [[0, 9]]);
    await until(() => rooms.every((room) => seen.has(room)));
    // What is said arrives.
    await amira.sendTextMessage(rooms[0], "later");
    await until(() => seen.get(rooms[0]).timeline?.at(-1)?.content.body === "later");
    sliding.stop();
    await running;
});

test("a server says that it slides", async () => {
    const client = await register("basma");
    assert.equal(await client.doesServerSupportUnstableFeature("org.matrix.simplified_msc3575"), true);
});
