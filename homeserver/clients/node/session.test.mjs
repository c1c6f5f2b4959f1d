// Log-in, devices, tokens and the way out.
import assert from "node:assert/strict";
import { test } from "node:test";

import { PASSWORD, baseUrl, logIn, passwordStage, refusal, register, sdk, sees, start, unique } from "./support.mjs";

test("a client finds out how to log in, logs in, and is known", async () => {
    const client = await register("amira");
    const anonymous = sdk.createClient({ baseUrl });
    const { flows } = await anonymous.loginFlows();
    assert.ok(flows.some((flow) => flow.type === "m.login.password"));
    const versions = await anonymous.getVersions();
    assert.ok(versions.versions.includes("v1.11"), versions.versions.join());
    const again = await logIn(client.getUserIdLocalpart());
    assert.notEqual(again.getDeviceId(), client.getDeviceId());
    const who = await again.whoami();
    assert.deepEqual(
        { user: who.user_id, device: who.device_id },
        { user: client.getUserId(), device: again.getDeviceId() },
    );
});

test("a wrong password and a wrong token are refused by name", async () => {
    const client = await register("basma");
    const anonymous = sdk.createClient({ baseUrl });
    const login = { type: "m.login.password", identifier: { type: "m.id.user", user: client.getUserId() } };
    const wrong = await refusal(anonymous.loginRequest({ ...login, password: `not ${PASSWORD}` }));
    assert.deepEqual([wrong.httpStatus, wrong.errcode], [403, "M_FORBIDDEN"]);
    anonymous.setAccessToken("made-up");
    const unknown = await refusal(anonymous.whoami());
    assert.deepEqual([unknown.httpStatus, unknown.errcode], [401, "M_UNKNOWN_TOKEN"]);
});

test("names are checked before they are taken", async () => {
    const client = await register("carim");
    const anonymous = sdk.createClient({ baseUrl });
    assert.equal(await anonymous.isUsernameAvailable(unique("free")), true);
    assert.equal(await anonymous.isUsernameAvailable(client.getUserIdLocalpart()), false);
});

test("a refresh token is exchanged once, by the library itself", async () => {
    const client = await register("dunya");
    const anonymous = sdk.createClient({ baseUrl });
    const login = await anonymous.loginRequest({
        type: "m.login.password",
        identifier: { type: "m.id.user", user: client.getUserId() },
        password: PASSWORD,
        refresh_token: true,
    });
    assert.ok(login.refresh_token && login.expires_in_ms > 0);
    const next = await anonymous.refreshToken(login.refresh_token);
    assert.notEqual(next.access_token, login.access_token);
    anonymous.setAccessToken(next.access_token);
    assert.equal((await anonymous.whoami()).device_id, login.device_id);
});

test("devices are listed, named and deleted after the password", async () => {
    const client = await register("elif");
    const second = await logIn(client.getUserIdLocalpart());
    await client.setDeviceDetails(second.getDeviceId(), { display_name: "Ward 3 tablet" });
    const { devices } = await client.getDevices();
    assert.equal(devices.length, 2);
    assert.equal(devices.find((one) => one.device_id === second.getDeviceId()).display_name, "Ward 3 tablet");
    await passwordStage(client)((auth) => client.deleteDevice(second.getDeviceId(), auth ?? undefined));
    assert.equal((await refusal(second.whoami())).errcode, "M_UNKNOWN_TOKEN");
    assert.equal((await client.getDevices()).devices.length, 1);
});

test("a syncing client learns that it was logged out elsewhere", async () => {
    const client = await register("fatima");
    const second = await start(await logIn(client.getUserIdLocalpart()));
    const told = new Promise((resolve) => second.once(sdk.HttpApiEvent.SessionLoggedOut, resolve));
    await passwordStage(client)((auth) => client.deleteMultipleDevices([second.getDeviceId()], auth ?? undefined));
    assert.equal((await told).errcode, "M_UNKNOWN_TOKEN");
});

test("log-out ends the token and leaves the other device alone", async () => {
    const client = await register("gulsen");
    const second = await logIn(client.getUserIdLocalpart());
    const token = client.getAccessToken();
    await client.logout(true);
    client.setAccessToken(token);
    assert.equal((await refusal(client.whoami())).errcode, "M_UNKNOWN_TOKEN");
    assert.equal((await second.whoami()).user_id, second.getUserId());
});

test("a new password works and the old one does not", async () => {
    const client = await register("hana");
    const next = `new ${PASSWORD}`;
    await passwordStage(client)((auth) => client.setPassword(auth ?? {}, next, false));
    const anonymous = sdk.createClient({ baseUrl });
    const login = { type: "m.login.password", identifier: { type: "m.id.user", user: client.getUserId() } };
    assert.equal((await refusal(anonymous.loginRequest({ ...login, password: PASSWORD }))).errcode, "M_FORBIDDEN");
    assert.ok((await anonymous.loginRequest({ ...login, password: next })).access_token);
});

test("a deactivated account is gone", async () => {
    const client = await register("ismet");
    await passwordStage(client)((auth) => client.deactivateAccount(auth ?? undefined, true));
    assert.equal((await refusal(client.whoami())).errcode, "M_UNKNOWN_TOKEN");
    const anonymous = sdk.createClient({ baseUrl });
    const login = { type: "m.login.password", identifier: { type: "m.id.user", user: client.getUserId() } };
    const refused = await refusal(anonymous.loginRequest({ ...login, password: PASSWORD }));
    assert.ok(["M_USER_DEACTIVATED", "M_FORBIDDEN"].includes(refused.errcode), refused.errcode);
});

test("capabilities, TURN servers and OpenID tokens are answered", async () => {
    const client = await start(await register("jamila"));
    const capabilities = await client.getCapabilities();
    assert.equal(capabilities["m.change_password"].enabled, true);
    assert.ok(capabilities["m.room_versions"].available[capabilities["m.room_versions"].default]);
    assert.ok((await client.getOpenIdToken()).access_token);
    await sees(client, "the sync goes on", () => client.getSyncState() === sdk.SyncState.Syncing);
});
