#!/usr/bin/env python3
"""Holds idle long polls of /sync on one server and prints its resident memory before and meanwhile.

    polls.py URL PID POLLS [USERS]
"""
import asyncio, json, pathlib, resource, sys, time, urllib.request

url, pid, polls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
users = int(sys.argv[4]) if len(sys.argv) > 4 else 100
host, port = url.split("//")[1].split(":")


def resident_mib():
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def cpu_s():
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def ask(method, path, token=None, body=None):
    request = urllib.request.Request(url + path, method=method, data=body and json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    if token:
        request.add_header("Authorization", "Bearer " + token)
    return json.load(urllib.request.urlopen(request))


def user(number):
    """An access token and the token at which its user has heard everything."""
    body = {"username": f"poll{int(time.time())}x{number}", "password": "correct horse battery", "auth": {"type": "m.login.dummy"}}
    token = ask("POST", "/_matrix/client/v3/register", body=body)["access_token"]
    since = ask("GET", "/_matrix/client/v3/sync?set_presence=offline", token)["next_batch"]
    return token, ask("GET", f"/_matrix/client/v3/sync?set_presence=offline&timeout=0&since={since}", token)["next_batch"]


async def poll(token, since, opened):
    reader, writer = await asyncio.open_connection(host, int(port))
    path = f"/_matrix/client/v3/sync?set_presence=offline&timeout=120000&since={since}"
    writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {token}\r\n\r\n".encode())
    await writer.drain()
    opened.append(1)
    await reader.readuntil(b"\r\n\r\n")


async def main():
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(polls + 1000, most), most))
    known = [user(number) for number in range(users)]
    print(f"before: {resident_mib():.0f} MiB")
    opened, tasks = [], []
    for number in range(polls):
        tasks.append(asyncio.create_task(poll(*known[number % users], opened)))
        if number % 100 == 99:
            await asyncio.sleep(0.01)
    while len(opened) < polls:
        await asyncio.sleep(0.1)
    await asyncio.sleep(5)
    before, began = cpu_s(), time.time()
    await asyncio.sleep(10)
    idle = (cpu_s() - before) / (time.time() - began) * 60
    answered = sum(task.done() for task in tasks)
    print(f"{polls} long polls, {answered} answered: {resident_mib():.0f} MiB, {idle:.2f} CPU s a minute")
    for task in tasks:
        task.cancel()


asyncio.run(main())
