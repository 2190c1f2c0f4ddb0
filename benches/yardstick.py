#!/usr/bin/env python3
"""The gateway beside nginx, HAProxy and the floor of its own stack, in one run on one machine.

    apt-get install nginx haproxy wrk nghttp2-client                   # and stop the services it starts
    cargo build --release --bin kore-gateway && cargo build --release --example bench
    benches/yardstick.py                             # every workload, 3 rounds; prints the tables
    benches/yardstick.py -w W1,W3 -r 5 -t 3          # some of them: rounds, seconds of each measurement

The server under test has core 0, its load and the origin core 1. What is compared is the server's CPU
time for a million requests: the steadiest figure there is on a machine that others use. Servers take
turns within a round, so that what disturbs one disturbs all; a table has the medians of the rounds, of the
costs and of the ratios within a round, and says how many answers a second that were and how busy the server's
core: where that is not all of it, the load was the limit.
"""
import argparse, contextlib, hashlib, http.client, json, os, pathlib, re, resource, shutil, signal, socket
import statistics, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
BUILT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent / "target")) / "release"
GATEWAY = os.environ.get("GATEWAY", BUILT / "kore-gateway")
TOOL = os.environ.get("TOOL", BUILT / "examples/bench")
ORIGIN, SERVER_CORE, LOAD_CORE = 8099, "0", "1"
CONVERSATION = "/agentassist/api/v1/public/st-1/conversations/{}"
KEY = "X-Api-Key: bench-key-0"
CONNECTIONS = 64
ENTRIES_W5 = 100_000


def wait_for(port, seconds):
    deadline = time.time() + seconds
    while True:
        with contextlib.suppress(OSError):
            return socket.create_connection(("127.0.0.1", port), 1).close()
        if time.time() > deadline:
            sys.exit(f"nobody listens on port {port}")
        time.sleep(0.05)


def gateway_toml(port, origin, ops_port=None, clients=1, access=False, capacity="4GiB", workers=None, share_port=False):
    text = (HERE / "peers/gateway.toml").read_text()
    fills = {"port": port, "ops_port": ops_port or port + 1000, "origin": origin, "access": str(access).lower(),
             "capacity": capacity, "workers": f"workers = {workers}" if workers else "", "share_port": str(share_port).lower()}
    for name, value in fills.items():
        text = text.replace("{%s}" % name, str(value))
    for n in range(clients):
        digest = hashlib.sha256(f"bench-key-{n}".encode()).hexdigest()
        text += (f'[[clients]]\nname = "bench-{n}"\napi_key_sha256 = "{digest}"\naccounts = ["a-1"]\nbots = ["*"]\n'
                 'routes = ["conversation", "interaction_details", "conversation_details"]\n'
                 'rate_limit = "1000000000/s"\n')
    return text


class Server:
    """A server under test, started afresh for each measurement."""

    def __init__(self, name, port, start, h2_port=None, **gateway):
        self.name, self.port, self.start, self.gateway = name, port, start, gateway
        self.h2_port = h2_port or port

    def __enter__(self):
        shm = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.tmp = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=shm))
        fills = {"tmp": self.tmp, "port": self.port, "h2_port": self.h2_port, "origin": ORIGIN}
        for peer in ("nginx.conf", "haproxy.cfg"):
            text = (HERE / "peers" / peer).read_text()
            for name, value in fills.items():
                text = text.replace("{%s}" % name, str(value))
            (self.tmp / peer).write_text(text)
        options = dict(self.gateway)
        cores, processes = options.pop("cores", SERVER_CORE), options.pop("processes", 1)
        for n in range(processes):
            text = gateway_toml(self.port, ORIGIN, ops_port=self.port + 1000 + n, share_port=processes > 1, **options)
            (self.tmp / f"gateway-{n}.toml").write_text(text)
        log = open(self.tmp / "log", "w")
        env = {**os.environ, "BENCH_SECRET": "x" * 32}
        self.processes = []
        for n in range(processes):
            command = ["taskset", "-c", cores, *(str(part).format(**fills, n=n) for part in self.start)]
            self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=env, preexec_fn=favoured))
        try:
            wait_for(self.port, 20)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.tmp, ignore_errors=True)

    def pids(self):
        found, queue = [], [process.pid for process in self.processes]
        while queue:
            pid = queue.pop()
            found.append(pid)
            with contextlib.suppress(OSError):
                children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text()
                queue += map(int, children.split())
        return found

    def cpu_seconds(self):
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
                total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def memory(self):
        """Bytes: its share of what it has mapped, and its files on tmpfs."""
        used = int(subprocess.run(["du", "-s", "-B1", self.tmp], capture_output=True, text=True).stdout.split()[0])
        for pid in self.pids():
            for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    used += int(line.split()[1]) * 1024
        return used


def favoured():
    """Ahead of what else runs here, where that is allowed."""
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with contextlib.suppress(OSError):
        os.nice(-15)


def run(command, **env):
    command = ["taskset", "-c", LOAD_CORE, *map(str, command)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, preexec_fn=favoured)
    if done.returncode:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def wrk(port, seconds, kind, connections=CONNECTIONS, **env):
    env = {"KIND": kind, **{name: str(value) for name, value in env.items()}}
    out = run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", HERE / "wrk.lua", f"http://127.0.0.1:{port}"], **env)
    return json.loads(out.strip().splitlines()[-1])


def h2load(port, seconds):
    url = f"http://127.0.0.1:{port}" + CONVERSATION.format("c-0")
    out = run(["h2load", "-c16", "-m16", "-t1", f"--duration={seconds}", "--warm-up-time=0", "-H", KEY, url])
    # Streams that were cut off have no status: they are among the failed, like those of another status.
    failed, answers = (int(re.search(rf"^{line}.* (\d+) {what}", out, re.M)[1])
                       for line, what in (("requests:", "failed"), ("status codes:", "2xx")))
    return {"answers": answers, "failed": failed, "us": seconds * 1e6}


def at_origin(what):
    connection = http.client.HTTPConnection("127.0.0.1", ORIGIN)
    connection.request("GET", what)
    return connection.getresponse().read().decode()


def fill(server, count):
    """Asks once for each of so many conversations."""
    run([TOOL, "fill", f"address=127.0.0.1:{server.port}", "path=" + CONVERSATION.format("c-{}"), f"header={KEY}", f"count={count}"])


def cost(server, seconds, load):
    """CPU microseconds of a request, after a second of warming up; answers a second, and how busy the server was."""
    load(1)
    calls, before = int(at_origin("/calls")), server.cpu_seconds()
    said = load(seconds)
    spent, took = server.cpu_seconds() - before, said["us"] / 1e6
    return {"us": spent * 1e6 / max(said["answers"], 1), "failed": said["failed"], "calls": int(at_origin("/calls")) - calls,
            "rate": said["answers"] / took, "busy": spent / took}


def hot(server, seconds, **env):
    return cost(server, seconds, lambda seconds: wrk(server.port, seconds, "one", **env))


def logged(server, seconds):
    """The same, where a line that was dropped is a failure."""
    made = hot(server, seconds)
    if server.gateway.get("access"):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port + 1000)) as connection:
            connection.request("GET", "/metrics")
            said = connection.getresponse().read().decode()
        made["failed"] += int(float(re.search(r"^kore_gateway_access_lines_dropped_total (\S+)", said, re.M)[1]))
    return made


def uniform(server, seconds, ids=10_000, **env):
    fill(server, ids)
    return cost(server, seconds, lambda seconds: wrk(server.port, seconds, "uniform", IDS=ids, **env))


def burst(server, _):
    """500 at one moment for what nobody has asked for, from an origin that takes 300 ms."""
    at_origin("/delay?300")
    before = int(at_origin("/calls"))
    said = json.loads(run([TOOL, "burst", f"address=127.0.0.1:{server.port}", "path=" + CONVERSATION.format("c-cold"), f"header={KEY}"]))
    at_origin("/delay?0")
    return {"us": said["p99_ms"] * 1000, "failed": said["failed"], "calls": int(at_origin("/calls")) - before}


def entry_bytes(server, _):
    fill(server, 1000)
    before = server.memory()
    fill(server, ENTRIES_W5)
    return {"us": (server.memory() - before) / (ENTRIES_W5 - 1000), "failed": 0, "calls": 0}


HALF = {}


def latency(server, seconds, peak_of=None):
    """p99 at half of its own peak, or of that of another server, which comes first in each round."""
    wrk(server.port, 1, "one")
    if peak_of in (None, server.name):
        most = wrk(server.port, seconds, "one")
        HALF["rate"] = int(most["answers"] / most["us"] * 1e6 / 2)
    rate, before = HALF["rate"], server.cpu_seconds()
    said = json.loads(run([TOOL, "rate", f"address=127.0.0.1:{server.port}", "path=" + CONVERSATION.format("c-0"),
                           f"header={KEY}", f"rate={rate}", f"seconds={seconds}", f"connections={CONNECTIONS}"]))
    return {"us": said["p99_ms"] * 1000, "failed": said["failed"], "calls": 0, "rate": said["answers"] / seconds,
            "busy": (server.cpu_seconds() - before) / seconds}


def servers(names):
    gateway = [GATEWAY, "serve", "--config", "{tmp}/gateway-{n}.toml"]
    all_of_them = {
        "gateway": lambda **more: Server("gateway", 8301, gateway, **more),
        # As in W1, for the workloads that are held against it.
        "own W1": lambda **_: Server("own W1", 8301, gateway),
        "two workers": lambda **_: Server("two workers", 8301, gateway, cores="0,1", workers=2),
        # Of one worker, an acceptor each.
        "two processes": lambda **_: Server("two processes", 8301, gateway, cores="0,1", workers=1, processes=2),
        "nginx": lambda **_: Server("nginx", 8303, ["nginx", "-c", "{tmp}/nginx.conf"], h2_port=8304),
        "haproxy": lambda **_: Server("haproxy", 8305, ["haproxy", "-db", "-f", "{tmp}/haproxy.cfg"]),
        "hyper": lambda **_: Server("hyper", 8307, [TOOL, "hyper", "port={port}"], h2_port=8308),
        "hyper-moka": lambda **_: Server("hyper-moka", 8309, [TOOL, "hyper-moka", "port={port}"], h2_port=8310),
    }
    return {name: all_of_them[name] for name in names}


ALL = ["gateway", "haproxy", "nginx", "hyper", "hyper-moka"]
KNOWN = ["own W1", "two workers", "two processes", *ALL]
OURS = ["gateway", "hyper-moka"]
# Workload: what it is, unit, the servers, how one is measured, and the options of the gateway.
WORK = {
    "W1": ("hot GET of one 6 KB conversation, 64 connections", "us", ALL, hot, {}),
    "W1u": ("10,000 conversations, all stored", "us", ["gateway", "haproxy", "nginx", "hyper-moka"], uniform, {}),
    "W2": ("stored POST, 200 KB", "us", ["gateway", "nginx", "hyper-moka"],
           lambda s, t: cost(s, t, lambda t: wrk(s.port, t, "window")), {}),
    "W3": ("pass-through: conversations that are not over", "us", ["gateway", "haproxy", "nginx"],
           lambda s, t: cost(s, t, lambda t: wrk(s.port, t, "open", IDS=100_000)), {}),
    "W4": ("500 at once for what is not stored, origin 300 ms: p99", "us", ["gateway", "haproxy", "nginx"], burst, {}),
    "W5": ("memory of an entry of 6 KB", "bytes", ["gateway", "nginx", "hyper-moka"], entry_bytes, {}),
    "W6": ("hot GET, cleartext HTTP/2", "us", ["gateway", "haproxy", "nginx", "hyper"],
           lambda s, t: cost(s, t, lambda t: h2load(s.h2_port, t)), {}),
    "W7": ("hot GET for a client that takes gzip", "us", ["gateway", "own W1", "haproxy", "nginx"],
           lambda s, t: hot(s, t) if s.name == "own W1" else hot(s, t, CODING="gzip"), {}),
    "log": ("hot GET, a JSON line for each request", "us", ["gateway", "own W1", "haproxy", "hyper"], logged, {"access": True}),
    "p99": ("p99 of each at half of its peak, constant rate", "us", ["gateway", "hyper"], latency, {}),
    "p99-same": ("p99 of both at half of the gateway's peak", "us", ["gateway", "hyper"],
                 lambda s, t: latency(s, t, peak_of="gateway"), {}),
    **{f"entries-{n}": (f"{n} conversations, all stored", "us", OURS, lambda s, t, n=n: uniform(s, t, ids=n), {"capacity": "16GiB"})
       for n in (1_000, 10_000, 100_000, 1_000_000)},
    **{f"clients-{n}": (f"hot GET by {n} clients in turn", "us", OURS, lambda s, t, n=n: hot(s, t, CLIENTS=n), {"clients": n})
       for n in (1, 10, 100, 1_000)},
    **{f"connections-{n}": (f"hot GET over {n} connections", "us", OURS, lambda s, t, n=n: hot(s, t, connections=n), {})
       for n in (64, 500, 5_000)},
    # On both cores, and so beside their load: compare these with each other only. The gateway has one worker.
    "workers": ("hot GET, on both cores", "us", ["gateway", "two workers", "two processes"], hot,
                {"cores": "0,1", "workers": 1}),
}


def table(work, rows):
    what, unit, *_ = WORK[work]
    print(f"\n### {work}: {what}\n\n| server | {unit} | lowest–highest | gateway ÷ it | answers/s | busy | reached origin | failed |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    median = {name: statistics.median(row["us"] for row in made) for name, made in rows.items()}
    for name, made in sorted(rows.items(), key=lambda item: median[item[0]]):
        figures = [row["us"] for row in made]
        pairs = zip(rows.get("gateway", []), made)
        ratio = statistics.median(ours["us"] / theirs["us"] for ours, theirs in pairs) if "gateway" in rows else float("nan")
        calls, failed = max(row["calls"] for row in made), sum(row["failed"] for row in made)
        rate, busy = (statistics.median(row.get(what, 0) for row in made) for what in ("rate", "busy"))
        of_time = f"{rate:,.0f} | {busy:.0%}" if rate else "– | –"
        print(f"| {name} | {median[name]:.2f} | {min(figures):.2f}–{max(figures):.2f} | {ratio:.2f} | {of_time} | {calls} | {failed} |")
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--work", default=",".join(WORK))
    parser.add_argument("-s", "--servers", default=",".join(KNOWN))
    parser.add_argument("-r", "--rounds", type=int, default=3)
    parser.add_argument("-t", "--seconds", type=int, default=3)
    arguments = parser.parse_args()
    known = servers(arguments.servers.split(","))
    origin = subprocess.Popen(["taskset", "-c", LOAD_CORE, TOOL, "origin", f"port={ORIGIN}"], preexec_fn=favoured)
    try:
        wait_for(ORIGIN, 10)
        for work in arguments.work.split(","):
            _, _, names, measure, options = WORK[work]
            rows = {}
            for _ in range(arguments.rounds):
                for name in (name for name in names if name in known):
                    with known[name](**options) as server:
                        rows.setdefault(name, []).append(measure(server, arguments.seconds))
            table(work, rows)
    finally:
        origin.terminate()


if __name__ == "__main__":
    main()
