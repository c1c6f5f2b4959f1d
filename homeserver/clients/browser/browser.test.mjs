// A page of another origin uses the server at MATRON_URL in a real browser.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { delimiter, dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";

import { build } from "esbuild";
import { chromium } from "playwright-core";

const here = dirname(fileURLToPath(import.meta.url));
const baseUrl = process.env.MATRON_URL;
assert.ok(baseUrl, "MATRON_URL names the server under test");
const PASSWORD = "correct horse battery staple";
let browser, server, origin;

/** The browser of the system. */
function executable() {
    const names = ["chromium", "chromium-browser", "google-chrome"];
    const folders = (process.env.PATH ?? "").split(delimiter);
    const found = [process.env.MATRON_CHROMIUM, ...names.flatMap((name) => folders.map((folder) => join(folder, name)))];
    const path = found.find((path) => path && existsSync(path));
    assert.ok(path, "no Chromium: install it (Debian: `apt install chromium`), or name it in MATRON_CHROMIUM");
    return path;
}

before(async () => {
    const bundle = await build({
        entryPoints: [join(here, "page.js")],
        bundle: true,
        format: "esm",
        target: "es2022",
        write: false,
        logLevel: "error",
        define: { global: "globalThis" },
    });
    const wasm = "matrix_sdk_crypto_wasm_bg.wasm";
    const files = new Map([
        ["/", ["text/html", '<!doctype html><meta charset="utf-8"><script type="module" src="/page.js"></script>']],
        ["/page.js", ["text/javascript", bundle.outputFiles[0].contents]],
        [
            `/pkg/${wasm}`,
            ["application/wasm", await readFile(join(here, "../node_modules/@matrix-org/matrix-sdk-crypto-wasm/pkg", wasm))],
        ],
    ]);
    server = createServer((request, response) => {
        const [type, body] = files.get(new URL(request.url, "http://page").pathname) ?? [];
        if (!type) return response.writeHead(404).end();
        return response.writeHead(200, { "Content-Type": type }).end(body);
    });
    await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
    // Another host name and another port than the homeserver's: another origin, and another site.
    origin = `http://localhost:${server.address().port}`;
    browser = await chromium.launch({
        executablePath: executable(),
        args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
    });
});

after(async () => {
    await browser?.close();
    server?.close();
});

async function register(name) {
    const answer = await fetch(`${baseUrl}/_matrix/client/v3/register`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({
            username: `${name}-${process.pid}`,
            password: PASSWORD,
            auth: { type: "m.login.dummy" },
            inhibit_login: true,
        }),
    });
    assert.equal(answer.status, 200);
    return (await answer.json()).user_id;
}

async function open(context) {
    const page = await context.newPage();
    page.on("pageerror", (error) => console.error(`in the page: ${error}`));
    await page.goto(`${origin}/`);
    await page.waitForFunction(() => document.title === "ready");
    return page;
}

test("a page of another origin logs in, syncs, shows pictures, and reads errors", async () => {
    const user = await register("amira");
    const context = await browser.newContext();
    const page = await open(context);
    const preflights = [];
    const session = await context.newCDPSession(page);
    await session.send("Network.enable");
    session.on("Network.requestWillBeSent", ({ request, type }) => {
        if (type === "Preflight" || request.method === "OPTIONS") preflights.push(request.url);
    });
    const { userId } = await page.evaluate((args) => story.logIn(...args), [baseUrl, user, PASSWORD]);
    assert.equal(userId, user);
    assert.ok(preflights.some((url) => url.startsWith(`${baseUrl}/_matrix/client/v3/login`)), preflights.join("\n"));

    const whole = await page.evaluate(() => story.picture("rgb(200, 30, 30)"));
    assert.deepEqual([whole.size, whole.colour], [[64, 32], [200, 30, 30, 255]]);
    assert.match(whole.url, /\/_matrix\/client\/v1\/media\/download\//);
    assert.equal(whole.refusedWithoutToken, true);
    const small = await page.evaluate(() => story.picture("rgb(30, 200, 30)", [32, 16]));
    assert.deepEqual(small.size, [32, 16]);
    assert.equal(await page.evaluate(() => story.refusal("made-up")), "M_UNKNOWN_TOKEN");
    assert.equal(await page.evaluate(() => story.logOut()), user);
    await context.close();
});

test("an encrypted message is read in the browser, after a reload too", async () => {
    const amira = await register("basma");
    const context = await browser.newContext();
    const page = await open(context);
    const session = await page.evaluate((args) => story.logIn(...args), [baseUrl, amira, PASSWORD]);
    const room = await page.evaluate(() => story.encryptedRoom());
    const id = await page.evaluate((args) => story.say(...args), [room, "Bed 4 has a fever"]);
    const expected = ["m.room.encrypted", "Bed 4 has a fever"];
    assert.deepEqual(await page.evaluate((args) => story.read(...args), [room, id]), expected);
    await page.reload();
    await page.waitForFunction(() => document.title === "ready");
    await page.evaluate((args) => story.comeBack(...args), [baseUrl, session]);
    assert.deepEqual(await page.evaluate((args) => story.read(...args), [room, id]), expected);
    await context.close();
});

test("a page sends its user to sign in at the server, and comes back with a session of its own", async () => {
    const user = await register("carim");
    const context = await browser.newContext();
    const page = await open(context);
    // The page is left while this runs.
    page.evaluate((url) => story.signIn(url), baseUrl).catch(() => {});
    await page.waitForURL(`${baseUrl}/**`);
    await page.fill("#username", user);
    await page.fill("#password", PASSWORD);
    await page.click('form button[type="submit"]');
    await page.click('button[value="allow"]');
    await page.waitForURL(`${origin}/**`);
    await page.waitForFunction(() => document.title === "ready");
    const session = await page.evaluate((url) => story.signedIn(url), baseUrl);
    assert.deepEqual(session, { user, sameDevice: true, after: "M_UNKNOWN_TOKEN" });
    await context.close();
});
