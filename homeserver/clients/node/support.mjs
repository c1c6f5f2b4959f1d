// Users of the server at MATRON_URL, driven with the public matrix-js-sdk, and ways to wait for what they see.
import assert from "node:assert/strict";
import { after } from "node:test";

// Node 20 lacks the one function of Node 22 that the library uses.
Promise.withResolvers ??= function withResolvers() {
    let resolve, reject;
    const promise = new Promise((yes, no) => {
        [resolve, reject] = [yes, no];
    });
    return { promise, resolve, reject };
};

export const sdk = await import("matrix-js-sdk");
const { logger } = await import("matrix-js-sdk/lib/logger.js");
export const { RoomHierarchy } = await import("matrix-js-sdk/lib/room-hierarchy.js");
const cryptoApi = await import("matrix-js-sdk/lib/crypto-api/index.js");
export const { VerifierEvent, VerificationRequestEvent, VerificationPhase, CryptoEvent } = cryptoApi;

export const baseUrl = process.env.MATRON_URL;
assert.ok(baseUrl, "MATRON_URL names the server under test");
logger.setLevel(process.env.MATRON_CLIENT_LOG ?? "silent");
if (!process.env.MATRON_CLIENT_LOG) {
    // What the library and its cryptography say about their work; assertions do not go this way.
    for (const level of ["debug", "info", "warn", "error"]) console[level] = () => {};
}

const PATIENCE_MS = 60_000;
export const PASSWORD = "correct horse battery staple";
const running = [];
let serial = 0;

after(() => running.forEach((client) => client.stopClient()));

/** A name that no other test file uses: all of them share one server. */
export function unique(name) {
    serial += 1;
    return `${name}-${process.pid}-${serial}`;
}

/** Waits until `probe` gives something, asking again whenever `emitter` says one of `events`. */
export async function until(what, emitter, events, probe) {
    let wake = () => {};
    const listener = () => wake();
    for (const event of events) emitter.on(event, listener);
    const end = Date.now() + PATIENCE_MS;
    try {
        for (;;) {
            const told = new Promise((resolve) => (wake = resolve));
            const found = await probe();
            if (found) return found;
            const left = end - Date.now();
            assert.ok(left > 0, `it never happened: ${what}`);
            let timer;
            // Some changes have no event of their own: look again twice a second anyway.
            await Promise.race([told, new Promise((resolve) => (timer = setTimeout(resolve, Math.min(left, 500))))]);
            clearTimeout(timer);
        }
    } finally {
        for (const event of events) emitter.off(event, listener);
    }
}

const CHANGES = [
    sdk.RoomEvent.Timeline,
    sdk.RoomEvent.Receipt,
    sdk.RoomEvent.MyMembership,
    sdk.RoomEvent.UnreadNotifications,
    sdk.RoomEvent.Redaction,
    sdk.RoomEvent.AccountData,
    sdk.RoomStateEvent.Events,
    sdk.RoomMemberEvent.Typing,
    sdk.MatrixEventEvent.Decrypted,
    sdk.MatrixEventEvent.Replaced,
    sdk.ThreadEvent.New,
    sdk.ThreadEvent.Update,
    sdk.ThreadEvent.NewReply,
    sdk.ClientEvent.Sync,
    sdk.ClientEvent.AccountData,
    sdk.ClientEvent.ToDeviceEvent,
];

/** Waits until `probe(client)` gives something. */
export function sees(client, what, probe) {
    return until(what, client, CHANGES, () => probe(client));
}

/** The error that `promise` ends with. */
export async function refusal(promise) {
    const error = await promise.then(
        () => assert.fail("it was not refused"),
        (caught) => caught,
    );
    return error;
}

/** A client that is logged in with a new device, not yet syncing. */
export async function logIn(user, extra = {}) {
    const anonymous = sdk.createClient({ baseUrl });
    const login = await anonymous.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user },
        password: PASSWORD,
        initial_device_display_name: "a test",
    });
    return clientOf(login, extra);
}

/** A new account's first client, not yet syncing. */
export async function register(name, extra = {}) {
    const anonymous = sdk.createClient({ baseUrl });
    const login = await anonymous.registerRequest({
        username: unique(name),
        password: PASSWORD,
        auth: { type: "m.login.dummy" },
    });
    return clientOf(login, extra);
}

function clientOf(login, extra) {
    const client = sdk.createClient({
        baseUrl,
        userId: login.user_id,
        deviceId: login.device_id,
        accessToken: login.access_token,
        timelineSupport: true,
        verificationMethods: ["m.sas.v1"],
        ...extra,
    });
    running.push(client);
    return client;
}

/** Starts to sync and waits for the first answer. */
export async function start(client, options = {}) {
    await client.startClient({ threadSupport: true, initialSyncLimit: 20, ...options });
    await until("the first sync", client, [sdk.ClientEvent.Sync], () => client.isInitialSyncComplete());
    return client;
}

/** A new account, syncing. */
export async function user(name) {
    return start(await register(name));
}

/** A device with end-to-end encryption, syncing. `recovery.key` opens the secret storage once it is set. */
export async function withCrypto(client, options = {}) {
    await client.initRustCrypto({ useIndexedDB: false });
    return start(client, options);
}

/** Callbacks for a client whose user knows the recovery key. */
export function knowing(recovery) {
    return {
        cryptoCallbacks: {
            getSecretStorageKey: async ({ keys }) => {
                const id = Object.keys(keys)[0];
                return recovery.key ? [id, recovery.key.privateKey] : null;
            },
            cacheSecretStorageKey: () => {},
        },
    };
}

/** User-interactive authentication with the password, as a client does it: ask, then answer the session. */
export function passwordStage(client) {
    return async (makeRequest) => {
        let session;
        try {
            return await makeRequest(null);
        } catch (error) {
            if (error.httpStatus !== 401) throw error;
            session = error.data.session;
            assert.ok(error.data.flows.some((flow) => flow.stages.includes("m.login.password")));
        }
        return makeRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user: client.getUserId() },
            password: PASSWORD,
            session,
        });
    };
}

/** A room of `owner` that the others have joined, seen as joined by all. */
export async function roomOf(owner, others, options = {}) {
    const { room_id: roomId } = await owner.createRoom({
        preset: "private_chat",
        invite: others.map((other) => other.getUserId()),
        ...options,
    });
    for (const other of others) {
        await sees(other, "the invitation", () => other.getRoom(roomId)?.getMyMembership() === "invite");
        await other.joinRoom(roomId);
    }
    for (const one of [owner, ...others]) {
        await sees(one, "everybody in the room", () => {
            const room = one.getRoom(roomId);
            return room?.getMyMembership() === "join" && room.getJoinedMemberCount() === others.length + 1;
        });
    }
    return roomId;
}

/**
 * An answer in a thread; gives its id. Past the library's queue: it takes an answer whose echo comes by sync before the
 * response to the request for one that was not sent (matrix-js-sdk 43, `Room.updatePendingEvent`).
 */
export async function answerInThread(client, roomId, root, body) {
    const path = `/rooms/${encodeURIComponent(roomId)}/send/m.room.message/${unique("txn")}`;
    const content = {
        msgtype: "m.text",
        body,
        "m.relates_to": {
            rel_type: "m.thread",
            event_id: root,
            is_falling_back: true,
            "m.in_reply_to": { event_id: root },
        },
    };
    return (await client.http.authedRequest("PUT", path, undefined, content)).event_id;
}

/** The event in the client's timeline, when it is there and readable. */
export function findEvent(client, roomId, eventId) {
    const event = client.getRoom(roomId)?.findEventById(eventId);
    return event && !event.isBeingDecrypted() && !event.isDecryptionFailure() ? event : undefined;
}

/** Waits for the event and gives it. */
export function waitForEvent(client, roomId, eventId) {
    return sees(client, `event ${eventId}`, () => findEvent(client, roomId, eventId));
}

/**
 * Waits until `other` has dealt with all that `by` has sent so far: in a room that both are in, or to other devices of the
 * same user. What is sent last is seen last, and what came with the first of two is dealt with when the second is seen.
 */
export async function caughtUp(by, other, roomId) {
    for (const turn of [1, 2]) {
        const mark = unique("mark");
        if (roomId) {
            const { event_id: eventId } = await by.sendTextMessage(roomId, mark);
            await waitForEvent(other, roomId, eventId);
        } else {
            await by.setAccountData("org.matron.mark", { mark, turn });
            await sees(other, "the mark", () => other.getAccountData("org.matron.mark")?.getContent().mark === mark);
        }
    }
}
