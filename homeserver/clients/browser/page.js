// What runs in the browser: the public matrix-js-sdk, its cryptography in IndexedDB, and an <img>.
import * as sdk from "matrix-js-sdk";
import { OAuth2 } from "matrix-js-sdk/lib/oauth/index.js";
import { logger } from "matrix-js-sdk/lib/logger.js";

logger.setLevel("error");
const PATIENCE_MS = 60_000;
let client;

/** Waits until `probe` gives something, looking again after every sync and decryption. */
async function until(what, probe) {
    const end = Date.now() + PATIENCE_MS;
    for (;;) {
        const found = await probe();
        if (found) return found;
        if (Date.now() > end) throw new Error(`it never happened: ${what}`);
        await new Promise((resolve) => {
            const events = [sdk.ClientEvent.Sync, sdk.MatrixEventEvent.Decrypted, sdk.RoomEvent.Timeline];
            const timer = setTimeout(done, 500);
            function done() {
                clearTimeout(timer);
                for (const event of events) client.off(event, done);
                resolve();
            }
            for (const event of events) client.on(event, done);
        });
    }
}

async function start(baseUrl, session) {
    client = sdk.createClient({ baseUrl, ...session });
    await client.initRustCrypto();
    await client.startClient({ initialSyncLimit: 20, threadSupport: true });
    await until("the first sync", () => client.isInitialSyncComplete());
}

window.story = {
    /** Logs in with a new device and syncs; gives what a client keeps to come back. */
    async logIn(baseUrl, user, password) {
        const anonymous = sdk.createClient({ baseUrl });
        const login = await anonymous.loginRequest({
            type: "m.login.password",
            identifier: { type: "m.id.user", user },
            password,
        });
        const session = { userId: login.user_id, deviceId: login.device_id, accessToken: login.access_token };
        await start(baseUrl, session);
        return session;
    },

    /** Comes back as the device that was here before. */
    comeBack: start,

    async encryptedRoom() {
        const { room_id: room } = await client.createRoom({
            initial_state: [
                { type: "m.room.encryption", state_key: "", content: { algorithm: "m.megolm.v1.aes-sha2" } },
            ],
        });
        await until("the room", () => client.getRoom(room)?.hasEncryptionStateEvent());
        return room;
    },

    async say(room, body) {
        return (await client.sendTextMessage(room, body)).event_id;
    },

    /** The text of an event, once it is here and decrypted, and how it came. */
    async read(room, id) {
        const event = await until(`event ${id}`, () => {
            const found = client.getRoom(room)?.findEventById(id);
            return found && !found.isBeingDecrypted() && !found.isDecryptionFailure() && found.getContent().body && found;
        });
        return [event.getWireType(), event.getContent().body];
    },

    /** A drawn picture goes up, comes down with the token, and is shown; its size and one of its colours. */
    async picture(colour, thumbnail) {
        const canvas = new OffscreenCanvas(64, 32);
        const drawing = canvas.getContext("2d");
        drawing.fillStyle = colour;
        drawing.fillRect(0, 0, 64, 32);
        const blob = await canvas.convertToBlob({ type: "image/png" });
        const { content_uri: uri } = await client.uploadContent(blob, { name: "picture.png" });
        const [width, height] = thumbnail ?? [];
        const url = client.mxcUrlToHttp(uri, width, height, thumbnail && "scale", false, true, true);
        const answer = await fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}` } });
        if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
        const image = new Image();
        image.src = URL.createObjectURL(await answer.blob());
        document.body.append(image);
        await image.decode();
        const back = new OffscreenCanvas(image.naturalWidth, image.naturalHeight).getContext("2d");
        back.drawImage(image, 0, 0);
        const naked = new Image();
        naked.src = url;
        const refused = await naked.decode().then(
            () => false,
            () => true,
        );
        return {
            url,
            size: [image.naturalWidth, image.naturalHeight],
            colour: [...back.getImageData(4, 4, 1, 1).data],
            refusedWithoutToken: refused,
        };
    },

    /** The name of the error that a browser may read across origins. */
    async refusal(token) {
        const stranger = sdk.createClient({ baseUrl: client.getHomeserverUrl(), accessToken: token });
        return stranger.whoami().then(
            () => "none",
            (error) => error.errcode,
        );
    },

    /** Registers this page as an app and goes where its user signs in. */
    async signIn(baseUrl) {
        const anonymous = sdk.createClient({ baseUrl });
        const metadata = await anonymous.getAuthMetadata();
        const redirect = `${location.origin}/`;
        const clientId = await OAuth2.registerClient(metadata, {
            client_name: "A test",
            client_uri: redirect,
            redirect_uris: [redirect],
            application_type: "web",
        });
        const oauth = new OAuth2(metadata, { clientId });
        const state = crypto.randomUUID();
        const { deviceId, codeVerifier } = oauth.context;
        sessionStorage.setItem(state, JSON.stringify({ clientId, deviceId, codeVerifier }));
        location.assign(await oauth.generateAuthorizationCodeGrantUrl(state, redirect, "query"));
    },

    /** Back with a code: exchanges it, syncs, refreshes, and ends the session. */
    async signedIn(baseUrl) {
        const said = new URLSearchParams(location.search);
        const context = JSON.parse(sessionStorage.getItem(said.get("state")));
        const anonymous = sdk.createClient({ baseUrl });
        const oauth = new OAuth2(await anonymous.getAuthMetadata(), context);
        const tokens = await oauth.completeAuthorizationCodeGrant(said.get("code"), `${location.origin}/`);
        anonymous.setAccessToken(tokens.access_token);
        const who = await anonymous.whoami();
        const next = await oauth.performRefreshTokenGrant(tokens.refresh_token);
        await start(baseUrl, { userId: who.user_id, deviceId: who.device_id, accessToken: next.access_token });
        client.stopClient();
        await oauth.revokeToken(next.refresh_token, "refresh_token");
        const after = await client.whoami().then(
            () => "none",
            (error) => error.errcode,
        );
        return { user: who.user_id, sameDevice: who.device_id === context.deviceId, after };
    },

    async logOut() {
        const name = await client.whoami();
        await client.logout(true);
        await client.clearStores();
        return name.user_id;
    },
};
document.title = "ready";
