// End-to-end encryption as a clinician meets it: a second device, encrypted rooms, keys that survive.
import assert from "node:assert/strict";
import { test } from "node:test";

import {
    CryptoEvent,
    VerificationPhase,
    VerificationRequestEvent,
    VerifierEvent,
    caughtUp,
    knowing,
    logIn,
    passwordStage,
    refusal,
    register,
    roomOf,
    sees,
    until,
    waitForEvent,
    withCrypto,
} from "./support.mjs";

const ENCRYPTED = {
    initial_state: [
        { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
    ],
};

/** Cross-signing keys, secret storage under a new recovery key, and a key backup. */
async function setUp(client, recovery) {
    const crypto = client.getCrypto();
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: passwordStage(client) });
    recovery.key = await crypto.createRecoveryKeyFromPassphrase();
    await crypto.bootstrapSecretStorage({
        createSecretStorageKey: async () => recovery.key,
        setupNewSecretStorage: true,
        setupNewKeyBackup: true,
    });
    await until("the backup is in use", client, [CryptoEvent.KeyBackupStatus], () =>
        crypto.getActiveSessionBackupVersion(),
    );
}

async function verified(by, userId, deviceId) {
    const status = await by.getCrypto().getDeviceVerificationStatus(userId, deviceId);
    return status?.crossSigningVerified;
}

/** Both sides compare emoji and agree; gives what each of them saw. */
async function compareEmoji(asking, request, answering) {
    const asked = await sees(answering, "the request for verification", () =>
        answering
            .getCrypto()
            .getVerificationRequestsToDeviceInProgress(asking.getUserId())
            .find((one) => one.transactionId === request.transactionId),
    );
    await asked.accept();
    await phase(request, VerificationPhase.Ready);
    const first = await request.startVerification("m.sas.v1");
    await until("the other side starts", asked, [VerificationRequestEvent.Change], () => asked.verifier);
    const seen = await agree(first, asked.verifier, () => caughtUp(asking, answering));
    await phase(request, VerificationPhase.Done);
    await phase(asked, VerificationPhase.Done);
    return seen;
}

/**
 * Both see the emoji, one says that they are the same, and then the other; gives what each of them saw. Not at once:
 * matrix-sdk-crypto forgets an answer that comes while its own is under way, which on a busy machine it may be
 * for long. `heard` waits until the other has what the one sent.
 */
async function agree(one, other, heard) {
    const done = Promise.all([one.verify(), other.verify()]);
    done.catch(() => {});
    const shown = await Promise.all(
        [one, other].map(
            (verifier) =>
                verifier.getShowSasCallbacks() ??
                new Promise((resolve) => verifier.once(VerifierEvent.ShowSas, resolve)),
        ),
    );
    await shown[0].confirm();
    await heard();
    await shown[1].confirm();
    await done;
    return shown.map(({ sas }) => sas.emoji.map(([emoji]) => emoji).join(" "));
}

function phase(request, wanted) {
    return until(`phase ${wanted}`, request, [VerificationRequestEvent.Change], () => request.phase === wanted);
}

test("cross-signing keys are uploaded after the password and only then", async () => {
    const client = await withCrypto(await register("amira"));
    const crypto = client.getCrypto();
    await crypto.bootstrapCrossSigning({ authUploadDeviceSigningKeys: passwordStage(client) });
    assert.equal(await crypto.isCrossSigningReady(), true);
    await until("the device is cross-signed", client, [CryptoEvent.DevicesUpdated], () =>
        verified(client, client.getUserId(), client.getDeviceId()),
    );
    // To replace them the password is asked for, and a request without it is refused.
    const refused = await refusal(
        crypto.bootstrapCrossSigning({
            setupNewCrossSigning: true,
            authUploadDeviceSigningKeys: (makeRequest) => makeRequest(null),
        }),
    );
    assert.equal(refused.httpStatus, 401);
});

test("a second device is verified by comparing emoji, and receives the secrets", async () => {
    const recovery = {};
    const first = await withCrypto(await register("basma", knowing(recovery)));
    await setUp(first, recovery);
    const second = await withCrypto(await logIn(first.getUserIdLocalpart()));
    assert.notEqual(await verified(first, second.getUserId(), second.getDeviceId()), true);
    await until("the second device knows the cross-signing keys", second, [CryptoEvent.KeysChanged], () =>
        second.getCrypto().userHasCrossSigningKeys(second.getUserId(), true),
    );
    const request = await second.getCrypto().requestOwnUserVerification();
    const [one, other] = await compareEmoji(second, request, first);
    assert.equal(one, other);
    assert.equal(one.split(" ").length, 7);
    await until("the second device is cross-signed", first, [CryptoEvent.DevicesUpdated], () =>
        verified(first, second.getUserId(), second.getDeviceId()),
    );
    await until("the secrets arrive", second, [CryptoEvent.KeysChanged], async () => {
        const { privateKeysCachedLocally: keys } = await second.getCrypto().getCrossSigningStatus();
        return keys.selfSigningKey && keys.userSigningKey && keys.masterKey;
    });
    await until("the backup's key arrives", second, [CryptoEvent.KeyBackupStatus], () =>
        second.getCrypto().getActiveSessionBackupVersion(),
    );
});

test("two users verify each other in a room", async () => {
    const amira = await withCrypto(await register("carim"));
    const basma = await withCrypto(await register("dunya"));
    for (const client of [amira, basma]) {
        await client.getCrypto().bootstrapCrossSigning({ authUploadDeviceSigningKeys: passwordStage(client) });
    }
    const room = await roomOf(amira, [basma], ENCRYPTED);
    await until("the other's keys are known", amira, [CryptoEvent.KeysChanged], () =>
        amira.getCrypto().userHasCrossSigningKeys(basma.getUserId(), true),
    );
    const request = await amira.getCrypto().requestVerificationDM(basma.getUserId(), room);
    const asked = await until("the request arrives", basma, [CryptoEvent.VerificationRequestReceived], () =>
        basma.getCrypto().findVerificationRequestDMInProgress(room, amira.getUserId()),
    );
    await asked.accept();
    await phase(request, VerificationPhase.Ready);
    const verifier = await request.startVerification("m.sas.v1");
    await until("the other side starts", asked, [VerificationRequestEvent.Change], () => asked.verifier);
    await agree(verifier, asked.verifier, () => caughtUp(amira, basma, room));
    for (const [one, other] of [
        [amira, basma],
        [basma, amira],
    ]) {
        await until("the other is verified", one, [CryptoEvent.UserTrustStatusChanged], async () =>
            (await one.getCrypto().getUserVerificationStatus(other.getUserId())).isCrossSigningVerified(),
        );
    }
});

test("an encrypted room is read by its members, later devices included, and by nobody else", async () => {
    const amira = await withCrypto(await register("elif"));
    const basma = await withCrypto(await register("fatima"));
    const room = await roomOf(amira, [basma], ENCRYPTED);
    const { event_id: eventId } = await amira.sendTextMessage(room, "Bed 4 has a fever");
    const received = await waitForEvent(basma, room, eventId);
    assert.equal(received.getContent().body, "Bed 4 has a fever");
    assert.equal(received.getWireType(), "m.room.encrypted");
    assert.equal(received.getWireContent().algorithm, "m.megolm.v1.aes-sha2");
    // A new device of the reader receives what is said from now on.
    const tablet = await withCrypto(await logIn(basma.getUserIdLocalpart()));
    await until("the sender knows the new device", amira, [CryptoEvent.DevicesUpdated], async () => {
        const devices = await amira.getCrypto().getUserDeviceInfo([basma.getUserId()], true);
        return devices.get(basma.getUserId())?.has(tablet.getDeviceId());
    });
    const { event_id: later } = await amira.sendTextMessage(room, "Paracetamol given");
    assert.equal((await waitForEvent(tablet, room, later)).getContent().body, "Paracetamol given");
    // What was said before it existed stays closed to it.
    await sees(tablet, "a closed message", () => tablet.getRoom(room).findEventById(eventId)?.isDecryptionFailure());
});

test("keys are restored from the backup on a new device with the recovery key", async () => {
    const recovery = {};
    const amira = await withCrypto(await register("gulsen", knowing(recovery)));
    await setUp(amira, recovery);
    const room = await roomOf(amira, [], ENCRYPTED);
    const said = [];
    for (let n = 0; n < 3; n += 1) {
        // A session of its own for each, so that there are several keys to restore.
        await amira.getCrypto().forceDiscardSession(room);
        said.push((await amira.sendTextMessage(room, `note ${n}`)).event_id);
    }
    // The library keeps what it knew of the backup when it made it.
    const held = () => amira.http.authedRequest("GET", "/room_keys/version");
    await sees(amira, "the keys are backed up", async () => (await held()).count === 3);
    const user = amira.getUserIdLocalpart();
    await amira.logout(true);

    const fresh = await withCrypto(await logIn(user, knowing(recovery)));
    const crypto = fresh.getCrypto();
    await sees(fresh, "closed messages", () => fresh.getRoom(room).findEventById(said[0])?.isDecryptionFailure());
    assert.equal(await crypto.userHasCrossSigningKeys(fresh.getUserId(), true), true);
    await crypto.bootstrapCrossSigning({});
    await until("the new device is cross-signed", fresh, [CryptoEvent.DevicesUpdated], () =>
        verified(fresh, fresh.getUserId(), fresh.getDeviceId()),
    );
    await crypto.loadSessionBackupPrivateKeyFromSecretStorage();
    const restored = await crypto.restoreKeyBackup();
    assert.deepEqual([restored.total, restored.imported], [3, 3]);
    for (const [n, id] of said.entries()) {
        assert.equal((await waitForEvent(fresh, room, id)).getContent().body, `note ${n}`);
    }
});

test("a backup is replaced and deleted", async () => {
    const recovery = {};
    const client = await withCrypto(await register("hana", knowing(recovery)));
    await setUp(client, recovery);
    const crypto = client.getCrypto();
    const { version } = await crypto.getKeyBackupInfo();
    await crypto.resetKeyBackup();
    const next = await crypto.getKeyBackupInfo();
    assert.notEqual(next.version, version);
    await crypto.deleteKeyBackupVersion(next.version);
    assert.equal(await crypto.getKeyBackupInfo(), null);
});
