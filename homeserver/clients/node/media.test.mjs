// Files: up, down, small, early, and never without a token.
import assert from "node:assert/strict";
import { test } from "node:test";
import { deflateSync } from "node:zlib";

import { baseUrl, refusal, register, user } from "./support.mjs";

/** A PNG of one colour. */
function png(width, height, [red, green, blue]) {
    const crcTable = Array.from({ length: 256 }, (_, n) => {
        let c = n;
        for (let k = 0; k < 8; k += 1) c = c & 1 ? 0xedb88320 ^ (c >>> 1) : c >>> 1;
        return c >>> 0;
    });
    const crc = (bytes) => (bytes.reduce((c, byte) => crcTable[(c ^ byte) & 255] ^ (c >>> 8), ~0) ^ ~0) >>> 0;
    const chunk = (name, data) => {
        const body = Buffer.concat([Buffer.from(name, "latin1"), data]);
        const length = Buffer.alloc(4);
        length.writeUInt32BE(data.length);
        const sum = Buffer.alloc(4);
        sum.writeUInt32BE(crc(body));
        return Buffer.concat([length, body, sum]);
    };
    const head = Buffer.alloc(13);
    head.writeUInt32BE(width, 0);
    head.writeUInt32BE(height, 4);
    head.set([8, 2, 0, 0, 0], 8);
    const row = Buffer.concat([Buffer.from([0]), Buffer.from(Array(width).fill([red, green, blue]).flat())]);
    const pixels = deflateSync(Buffer.concat(Array(height).fill(row)));
    return Buffer.concat([
        Buffer.from([137, 80, 78, 71, 13, 10, 26, 10]),
        chunk("IHDR", head),
        chunk("IDAT", pixels),
        chunk("IEND", Buffer.alloc(0)),
    ]);
}

function fetchAs(client, url, headers = {}) {
    return fetch(url, { headers: { Authorization: `Bearer ${client.getAccessToken()}`, ...headers } });
}

test("a file comes back as it went up, with its name and type, to those who are logged in", async () => {
    const [amira, basma] = [await register("amira"), await register("basma")];
    const text = "Hämoglobin 13,2 g/dl";
    const { content_uri: uri } = await amira.uploadContent(new Blob([text], { type: "text/plain" }), {
        name: "Befund.txt",
    });
    const url = basma.mxcUrlToHttp(uri, undefined, undefined, undefined, false, true, true);
    assert.ok(url.startsWith(`${baseUrl}/_matrix/client/v1/media/download/`), url);
    const answer = await fetchAs(basma, url);
    assert.equal(answer.status, 200);
    assert.match(answer.headers.get("content-type"), /^text\/plain/);
    assert.match(answer.headers.get("content-disposition"), /Befund\.txt/);
    assert.match(answer.headers.get("content-security-policy"), /sandbox/);
    assert.match(answer.headers.get("cache-control"), /^private/);
    assert.match(answer.headers.get("vary"), /Authorization/i);
    assert.equal(await answer.text(), text);
    const part = await fetchAs(basma, url, { Range: "bytes=0-3" });
    assert.deepEqual([part.status, (await part.arrayBuffer()).byteLength], [206, 4]);
    const without = await fetch(url);
    assert.deepEqual([without.status, (await without.json()).errcode], [401, "M_MISSING_TOKEN"]);
});

test("a picture has thumbnails of the sizes that were asked for", async () => {
    const client = await register("carim");
    const { content_uri: uri } = await client.uploadContent(
        new Blob([png(640, 320, [200, 30, 30])], { type: "image/png" }),
    );
    for (const [method, width, height] of [
        ["scale", 320, 160],
        ["crop", 96, 96],
    ]) {
        const url = client.mxcUrlToHttp(uri, width, height, method, false, true, true);
        const answer = await fetchAs(client, url);
        assert.equal(answer.status, 200);
        assert.match(answer.headers.get("content-type"), /^image\//);
        const bytes = Buffer.from(await answer.arrayBuffer());
        if (answer.headers.get("content-type") === "image/png") {
            assert.deepEqual([bytes.readUInt32BE(16), bytes.readUInt32BE(20)], [width, height]);
        }
    }
});

test("a picture in a message arrives", async () => {
    const client = await user("dunya");
    const { room_id: room } = await client.createRoom({});
    const image = new Blob([png(8, 8, [0, 0, 255])], { type: "image/png" });
    const { content_uri: uri } = await client.uploadContent(image);
    const { event_id: id } = await client.sendImageMessage(room, uri, { w: 8, h: 8, mimetype: "image/png" }, "x.png");
    assert.equal((await client.fetchRoomEvent(room, id)).content.url, uri);
});

test("limits are told, and a name that nobody uploaded is not found", async () => {
    const client = await register("elif");
    const { "m.upload.size": size } = await client.getMediaConfig(true);
    assert.ok(size > 1_000_000);
    const url = client.mxcUrlToHttp(`mxc://${client.getDomain()}/nothing`, undefined, undefined, undefined, false, true, true);
    const answer = await fetchAs(client, url);
    assert.deepEqual([answer.status, (await answer.json()).errcode], [404, "M_NOT_FOUND"]);
    const tooBig = new Blob([new Uint8Array(size + 1)], { type: "application/octet-stream" });
    const refused = await refusal(client.uploadContent(tooBig));
    assert.deepEqual([refused.httpStatus, refused.errcode], [413, "M_TOO_LARGE"]);
});
