#!/usr/bin/env python3
"""Measures Matron, and Synapse beside it in the same run, and prints one table.

    cargo build --release -p matron-load
    docs/bench/run.py --matron target/dist/matron --work DIR [--load target/release/matron-load] [--synapse VENV]
                      [--only send,fanout] [--polls 10000] [--big-room 10000]

The load comes from `matron-load` (homeserver/load), over the client API alone. VENV is a virtual environment with
`matrix-synapse` from PyPI. DIR is emptied. Everything listens on loopback; every server is durable: SQLite with its
flushes on. A join is repeated, and its figures are means. Where a step failed, or requests of it failed or messages were
missing, the script says so at its end and fails: the figures are then not to be used.

`python3 -m doctest docs/bench/run.py` tests what reads the results.
"""
import argparse, json, os, pathlib, shutil, signal, statistics, subprocess, sys, time, urllib.request

STEPS = [
    ("register", "--users 40 --logins 40"),
    ("send", "--users 50 --senders 10 --messages 2000"),
    ("send-50rooms", "--users 50 --senders 10 --messages 1000 --rooms 50 --members 5"),
    ("fanout", "--users 50 --messages 60 --rate 2 --burst 100"),
    ("initial-sync", "--rooms 50 --messages 20 --members 3 --repeat 20"),
    ("messages", "--events 5000 --limit 100 --repeat 20"),
    ("join-local", "--users 1000 --concurrency 4 --group 100"),
    ("mem", "--messages 1000 --settle-s 10"),
    ("federate", "--members 50 --state-events 200 --joins 12 --messages 500 --senders 4 --paced 40 --rate 4"),
]
# What Synapse need not repeat so often to be known.
SLOW = {
    "register": "--users 10 --logins 10",
    "fanout": "--users 50 --messages 20 --rate 1 --burst 20",
    "send": "--users 50 --senders 10 --messages 200",
    "send-50rooms": "--users 50 --senders 10 --messages 200 --rooms 50 --members 5",
    "initial-sync": "--rooms 50 --messages 20 --members 3 --repeat 3",
    "messages": "--events 600 --limit 100 --repeat 3",
    "join-local": "--users 100 --concurrency 4 --group 50",
    "mem": "--messages 200 --settle-s 10",
    "federate": "--members 50 --state-events 200 --joins 3 --messages 60 --senders 4 --paced 20 --rate 4",
}
# The room that `--big-room` asks for: most of its time goes into the registration of its members.
BIG_ROOM = "--members {members} --state-events 200 --messages 50 --senders 4 --paced 20 --rate 4"
FIGURES = [
    ("send", "CPU ms a send, room of 50", "cpu.server_cpu_ms_per_op"), ("send", "sends/s", "sends_per_s"),
    ("send", "p99 ms", "latency.p99_ms"), ("send-50rooms", "CPU ms a send, 50 rooms of 5", "cpu.server_cpu_ms_per_op"),
    ("fanout", "CPU ms a delivery, paced", "paced.cpu.server_cpu_ms_per_op"),
    ("fanout", "CPU ms a delivery, burst", "burst.cpu.server_cpu_ms_per_op"),
    ("fanout", "p50 ms, paced", "paced.delivery.p50_ms"), ("fanout", "p99 ms, paced", "paced.delivery.p99_ms"),
    ("fanout", "missing", "paced.missing"),
    ("initial-sync", "p50 ms", "sync.time.p50_ms"), ("initial-sync", "CPU ms", "sync.server_cpu_ms_per_sync"),
    ("initial-sync", "lazy p50 ms", "sync_lazy.time.p50_ms"),
    ("initial-sync", "sliding window of 20, p50 ms", "sliding_window20_timeline1.time.p50_ms"),
    ("messages", "CPU ms a page of 100", "cpu_ms_per_page.mean"), ("messages", "p50 ms", "page.p50_ms"),
    ("join-local", "CPU ms a join", "cpu.server_cpu_ms_per_op"), ("join-local", "joins/s, first group", "first_group_per_s"),
    ("join-local", "joins/s, last group", "last_group_per_s"),
    ("mem", "resident MiB after all loads", "after_idle.rss_mib"),
    ("big-room", "join ms", "join_ms"), ("big-room", "members known after ms", "join_full_state_ms"),
    ("big-room", "join CPU ms at the resident", "join_cpu.server_a_cpu_ms_per_op"),
    ("big-room", "join CPU ms at who joins", "join_cpu.server_b_cpu_ms_per_op"), ("big-room", "p50 ms", "paced.delivery.p50_ms"),
    ("federate", "joins", "joins.n"), ("federate", "join ms", "join_ms"),
    ("federate", "join CPU ms, both", "join_cpu.server_cpu_ms_per_op"),
    ("federate", "join CPU ms, its standard deviation", "joins.cpu.server_cpu_ms.stdev"),
    ("federate", "join CPU ms, the first", "joins.first.cpu.server_cpu_ms_per_op"),
    ("federate", "join CPU ms at the resident", "join_cpu.server_a_cpu_ms_per_op"),
    ("federate", "join CPU ms at who joins", "join_cpu.server_b_cpu_ms_per_op"),
    ("federate", "p50 ms", "paced.delivery.p50_ms"), ("federate", "p99 ms", "paced.delivery.p99_ms"),
    ("federate", "CPU ms an event at the sender", "burst.cpu.server_a_cpu_ms_per_op"),
    ("federate", "CPU ms an event at the receiver", "burst.cpu.server_b_cpu_ms_per_op"),
    ("polls", "resident MiB before", "before.rss_mib"), ("polls", "resident MiB with all of them", "during.rss_mib"),
    ("polls", "answered early", "answered"), ("polls", "CPU s a minute", "idle_cpu_s_per_min"),
]
# What makes a step's figures those of something else.
TROUBLES = {"errors", "send_errors", "registration_errors", "login_errors", "missing"}
# What only Matron is asked: Synapse would take an hour for it, or was not made for it.
ALONE = ("big-room", "polls")

MATRON = """rate_limit = false
server_name = "localhost:{tls}"
data_dir = "{dir}/data"
[listen]
address = "127.0.0.1:{http}"
max_connections = 12000
[[listeners]]
address = "127.0.0.1:{tls}"
tls_certificate = "{dir}/tls.crt"
tls_key = "{dir}/tls.key"
[federation]
allow_ip_ranges = ["127.0.0.0/8", "::1/128"]
ca_files = ["{work}/ca.crt"]
[registration]
mode = "open"
[logging]
level = "warn"
"""
SYNAPSE = """server_name: "localhost:{tls}"
listeners:
  - {{port: {http}, type: http, tls: false, bind_addresses: ['127.0.0.1'], resources: [{{names: [client], compress: false}}]}}
  - {{port: {tls}, type: http, tls: true, bind_addresses: ['127.0.0.1'], resources: [{{names: [federation], compress: false}}]}}
tls_certificate_path: {dir}/tls.crt
tls_private_key_path: {dir}/tls.key
database: {{name: sqlite3, args: {{database: {dir}/homeserver.db}}}}
log_config: {dir}/log.yaml
media_store_path: {dir}/media
signing_key_path: {dir}/signing.key
macaroon_secret_key: "m"
form_secret: "f"
report_stats: false
trusted_key_servers: []
suppress_key_server_warning: true
enable_registration: true
enable_registration_without_verification: true
federation_verify_certificates: false
ip_range_blacklist: []
federation_ip_range_blacklist: []
rc_message: &free {{per_second: 100000, burst_count: 100000}}
rc_registration: *free
rc_login: {{address: *free, account: *free, failed_attempts: *free}}
rc_joins: {{local: *free, remote: *free}}
rc_joins_per_room: *free
rc_invites: {{per_room: *free, per_user: *free, per_issuer: *free}}
rc_room_creation: *free
rc_federation: {{window_size: 1000, sleep_limit: 100000, sleep_delay: 1, reject_limit: 100000, concurrent: 100}}
"""
LOG = """version: 1
formatters: {f: {format: '%(message)s'}}
handlers: {h: {class: logging.FileHandler, formatter: f, filename: DIR/homeserver.log}}
root: {level: WARNING, handlers: [h]}
disable_existing_loggers: false
"""


def run(*command, **options):
    return subprocess.run([str(part) for part in command], check=True, **options)


class Server:
    """One homeserver on loopback."""

    def __init__(self, args, kind, name, http):
        self.http, self.tls, self.kind = http, http + 400, kind
        self.dir = args.work / name
        self.dir.mkdir()
        values = {"dir": self.dir, "work": args.work, "http": self.http, "tls": self.tls}
        for file in ("tls.crt", "tls.key"):
            shutil.copy(args.work / file, self.dir)
        if kind == "matron":
            (self.dir / "m.toml").write_text(MATRON.format(**values))
            command = [args.matron, "--config", self.dir / "m.toml", "serve"]
        else:
            (self.dir / "hs.yaml").write_text(SYNAPSE.format(**values))
            (self.dir / "log.yaml").write_text(LOG.replace("DIR", str(self.dir)))
            command = [args.synapse / "bin/python", "-m", "synapse.app.homeserver", "-c", self.dir / "hs.yaml"]
            run(*command, "--generate-keys", stdout=subprocess.DEVNULL)
        log = open(self.dir / "log", "w")
        self.process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, cwd=self.dir)
        self.wait()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.http}"

    def wait(self):
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url + "/_matrix/client/versions")
                return
            except OSError:
                if self.process.poll() is not None:
                    sys.exit(f"{self.kind} did not start: {(self.dir / 'log').read_text()}")
                time.sleep(0.1)
        sys.exit(f"{self.kind} did not come up")

    def resident_mib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()


def certificates(work):
    """An authority, and a certificate of it for localhost."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": work}
    run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "30",
        "-subj", "/CN=bench authority", "-addext", "basicConstraints=critical,CA:TRUE", **quiet)
    run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", "tls.key", "-out", "tls.csr", "-subj", "/CN=localhost", **quiet)
    (work / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
    run("openssl", "x509", "-req", "-in", "tls.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", "tls.crt",
        "-days", "30", "-extfile", "san", **quiet)


def dig(value, path):
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, (int, float)) else None


def numbers(value, names, path=""):
    """Every number in a result, at any depth, that has one of these names, with the way to it.

    >>> list(numbers({"a": 1, "passes": [{"a": None}, {"a": 0.5, "b": 2}]}, {"a"}))
    [('a', 1), ('passes.1.a', 0.5)]
    """
    if isinstance(value, (dict, list)):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            here = f"{path}.{name}" if path else str(name)
            if name in names and isinstance(part, (int, float)):
                yield here, part
            yield from numbers(part, names, here)


def foreign(result):
    """The most that others took of the machine, in cores, in any phase of a result; None where no phase could tell.

    >>> foreign({"paced": {"cpu": {"foreign_cores": 0.1}}, "passes": [{"cpu": {"foreign_cores": 0.4}}, {"cpu": {}}]})
    0.4
    >>> foreign({"joins": [{"foreign_cores": None}]})
    """
    return max((cores for _, cores in numbers(result, {"foreign_cores"})), default=None)


def troubles(report):
    """Every count of a report that must be 0 and is not: failed requests, missing messages, answers of 429.

    >>> troubles({"http_429": 2, "result": {"paced": {"missing": 0, "send_errors": 1}, "burst": {"missing": 3}}})
    ['paced.send_errors 1', 'burst.missing 3', 'http_429 2']
    >>> troubles({"http_429": 0, "result": {"errors": 0, "page": None}})
    []
    """
    counts = [*numbers(report["result"], TROUBLES), *numbers({"http_429": report.get("http_429")}, {"http_429"})]
    return [f"{path} {count}" for path, count in counts if count]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--matron", type=pathlib.Path, required=True)
    parser.add_argument("--load", type=pathlib.Path, default=pathlib.Path("target/release/matron-load"))
    parser.add_argument("--work", type=pathlib.Path, required=True)
    parser.add_argument("--synapse", type=pathlib.Path)
    parser.add_argument("--only", default="")
    parser.add_argument("--polls", type=int, default=0)
    parser.add_argument("--big-room", type=int, default=0, metavar="MEMBERS")
    args = parser.parse_args()
    for name in ("matron", "load", "work"):
        setattr(args, name, getattr(args, name).absolute())
    if args.synapse:
        args.synapse = args.synapse.absolute()
    shutil.rmtree(args.work, ignore_errors=True)
    args.work.mkdir(parents=True)
    certificates(args.work)
    kinds = ["matron"] + (["synapse"] if args.synapse else [])
    pairs = {kind: [Server(args, kind, f"{kind}-{side}", 18100 + 100 * index + 10 * number)
                    for number, side in enumerate("ab")] for index, kind in enumerate(kinds)}
    idle = {kind: servers[0].resident_mib() for kind, servers in pairs.items()}
    results = {kind: {} for kind in kinds}
    failures = []
    wanted = set(filter(None, args.only.split(",")))
    steps = list(STEPS)
    if args.big_room:
        steps.append(("big-room", BIG_ROOM.format(members=args.big_room)))
    if args.polls:
        steps.append(("polls", f"--polls {args.polls}"))
    try:
        for step, sizes in steps:
            if wanted and step not in wanted and step not in ALONE:
                continue
            federated = step in ("federate", "big-room")
            for kind in ["matron"] if step in ALONE else kinds:
                a, b = pairs[kind]
                chosen = SLOW.get(step, sizes) if kind == "synapse" else sizes
                base = [args.load, "--label", kind, "--cache", args.work / f"{kind}.json", "--url", a.url, "--pid", a.process.pid]
                if federated:
                    base += ["--url-b", b.url, "--pid-b", b.process.pid, "--room-version", "11"]
                command = base + ["federate" if federated else step.split("-50rooms")[0]] + chosen.split()
                done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
                if done.returncode == 0 and done.stdout.strip():
                    report = json.loads(done.stdout.strip().splitlines()[-1])
                    results[kind][step] = report["result"]
                    failures += [f"{kind}, {step}: {trouble}" for trouble in troubles(report)]
                else:
                    failures.append(f"{kind}, {step}: no result, exit code {done.returncode}")
                with open(args.work / "results.jsonl", "a") as file:
                    file.write(done.stdout)
        print("| what | " + " | ".join(kinds) + " |\n|---|" + "---|" * len(kinds))
        print("| resident MiB, idle | " + " | ".join(f"{idle[kind]:.0f}" for kind in kinds) + " |")
        for step, heading, path in FIGURES:
            cells = [dig(results[kind].get(step), path) for kind in kinds]
            if any(cell is not None for cell in cells):
                shown = ["-" if cell is None else f"{cell:.0f}" if cell >= 100 else f"{cell:.3g}" for cell in cells]
                print(f"| {step}: {heading} | " + " | ".join(shown) + " |")
        readings = [foreign(result) for kind in kinds for result in results[kind].values()]
        busy = [cores for cores in readings if cores is not None]
        if busy:
            print(f"\nOthers took {statistics.median(busy):.2f} cores in the median step, {max(busy):.2f} at most.")
    finally:
        for servers in pairs.values():
            for server in servers:
                server.stop()
    for failure in failures:
        print(f"!!! FAILED: {failure}")
    if failures:
        sys.exit("!!! These figures are not to be used.")


if __name__ == "__main__":
    main()
