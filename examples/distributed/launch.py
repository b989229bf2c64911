"""Starts the servers and trainers of a DistDGL script on every host, and ends all of them when one of them dies.

    python examples/distributed/launch.py --hosts HOSTS --config parts/NAME.json SCRIPT [its options]

HOSTS: a line `address [port]` for every part of the partition, in that order. This machine's own addresses are served
directly, others over ssh without a password; program, script, data and this file lie under the same paths everywhere.
A host uses the ports from `port` (30050) on, one per server, and the first host one more. Several lines with one
address try several machines on one.

A keeper on each host starts the processes there, passes their output on and ends them as soon as it no longer hears
from here. Linux only. Exit status: 0, 1 where a process failed, 2 for wrong arguments, 130 after Ctrl-C.
"""

import argparse
import contextlib
import ctypes
import fcntl
import json
import os
import selectors
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

BEAT, SILENCE = 5.0, 30.0  # seconds between two signs of life, and without one until the keeper ends all
AFTER = 0.3  # seconds that what a killed process started has to notice and clean up, as Python's tracker does
GRACE = 5.0  # seconds that the keepers have to end their processes
TOGETHER = 0.5  # seconds in which the dead are collected, to name the one that took the others along
TAIL = 60.0  # seconds that the others have to end once a process has ended well
MEMORY = Path("/dev/shm")
SSH = "ssh -o BatchMode=yes -o ConnectTimeout=20 -o ServerAliveInterval=5 -o ServerAliveCountMax=3"


# ---- on every host ----


def keep():
    """The keeper: the processes to start come as the first line of stdin; its end, or silence, is their end."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(1))
    with open(0, "rb", buffering=0, closefd=False) as stdin:
        order = json.loads(stdin.readline())
    children = {}
    with shared_memory() as prefix, contextlib.suppress(BrokenPipeError):
        hosts = MEMORY / f"{prefix}hosts"  # DGL reads the addresses from a file
        hosts.write_text(order["hosts"])
        try:
            for process in order["processes"]:
                name = process["name"]
                children[name] = start(process, order, prefix, hosts)
            watch(children)
        except OSError as error:  # no such program or folder
            tell({"from": name, "line": str(error)})
            tell({"ended": name, "status": 127})
            while os.read(0, 65536):
                pass
        finally:
            end(children.values())


def start(process, order, prefix, hosts):
    threads = 1 if process["name"].startswith("server") else max(1, os.cpu_count() // order["trainers_here"])
    # By itself gloo listens where this host's name points to, which often is the loopback.
    environment = {"OMP_NUM_THREADS": str(threads), **interface(order["address"]), **os.environ}
    environment |= process["environment"]
    environment |= {"DGL_IP_CONFIG": str(hosts), "HGAT_SHARED_MEMORY": prefix, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        order["command"],
        env=environment,
        cwd=order["workspace"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a group of its own: what the process starts ends with it
        preexec_fn=die_with_parent(os.getpid()),
    )


def interface(address):
    """What tells gloo the interface with this address, if there is one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe, 0x8915, struct.pack("256s", name.encode()))  # SIOCGIFADDR
                if socket.inet_ntoa(answer[20:24]) == address:
                    return {"GLOO_SOCKET_IFNAME": name}
    return {}


def die_with_parent(parent):
    prctl = ctypes.CDLL(None).prctl

    def prepare():
        prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def watch(children):
    """Pass on what the processes print and how they end, until all have ended."""
    with selectors.DefaultSelector() as selector, woken_by_deaths() as wake:
        selector.register(0, selectors.EVENT_READ)
        selector.register(wake, selectors.EVENT_READ)
        for child in children.values():
            os.set_blocking(child.stdout.fileno(), False)
            selector.register(child.stdout, selectors.EVENT_READ)
        rest = {name: bytearray() for name in children}
        running, heard = set(children), time.monotonic()
        while running:
            ready = {key.fd for key, _ in selector.select(BEAT)}
            if wake in ready:
                os.read(wake, 65536)
            if 0 in ready:
                if not os.read(0, 65536):
                    return
                heard = time.monotonic()
            if time.monotonic() - heard > SILENCE:
                return
            for name in sorted(running):
                child = children[name]
                # The dead are kept until the end: a number that is free could be another group's by then.
                gone = os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                if read(child.stdout, rest[name]) and child.stdout in selector.get_map():
                    selector.unregister(child.stdout)
                pass_on(name, rest[name], gone is not None)
                if gone is not None:
                    running.remove(name)
                    by_signal = gone.si_code != os.CLD_EXITED
                    tell({"ended": name, "status": -gone.si_status if by_signal else gone.si_status})


@contextlib.contextmanager
def woken_by_deaths():
    """A pipe that something can be read from when a child has died."""
    reading, writing = os.pipe()
    for side in (reading, writing):
        os.set_blocking(side, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writing)
    try:
        os.write(writing, b"!")  # for those that died before
        yield reading
    finally:
        signal.set_wakeup_fd(-1)


def read(pipe, rest):
    """Append what has come; True at the end."""
    with contextlib.suppress(BlockingIOError):
        while content := os.read(pipe.fileno(), 65536):
            rest += content
        return True
    return False


def pass_on(name, rest, last):
    """The whole lines, and of the last also one without a newline."""
    *lines, after = bytes(rest).split(b"\n")
    rest[:] = b"" if last else after
    for line in [*lines, after] if last and after else lines:
        tell({"from": name, "line": line.decode(errors="replace")})


def tell(what):
    content = json.dumps(what).encode() + b"\n"
    while content:
        content = content[os.write(1, content) :]


def end(children):
    """Kill every process and its group; at once, because what a script saves is whole at any moment."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for child in children:
        child.kill()
    time.sleep(AFTER)
    for child in children:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


@contextlib.contextmanager
def shared_memory():
    """What this start's files in shared memory begin with. They are removed at the end, and those of the dead before.

    A killed server leaves its part in memory; who holds the lock of its files is alive.
    """
    for lock in MEMORY.glob("hgat-*-lock"):
        with contextlib.suppress(OSError), open(lock) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            sweep(lock.name.removesuffix("lock"))
    prefix = f"hgat-{os.urandom(6).hex()}-"
    with open(MEMORY / f"{prefix}lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        try:
            yield prefix
        finally:
            sweep(prefix)


def sweep(prefix):
    for path in MEMORY.glob(f"{prefix}*"):
        with contextlib.suppress(OSError):
            path.unlink()


# ---- where it is called ----


def orders(args, hosts):
    """What the keeper of each host is told."""
    clients = len(hosts) * args.trainers * (1 + args.samplers)
    shared = {
        "DGL_DIST_MODE": "distributed",
        "DGL_CONF_PATH": str(Path(args.workspace, args.config)),
        "DGL_NUM_SERVER": args.servers,
        "DGL_NUM_CLIENT": clients,
        "DGL_NUM_SAMPLER": args.samplers,
        "DGL_GRAPH_FORMAT": args.format,
        "MASTER_ADDR": hosts[0][0],
        "MASTER_PORT": hosts[0][1] + args.servers,
        "WORLD_SIZE": len(hosts) * args.trainers,
        "LOCAL_WORLD_SIZE": args.trainers,
    }
    for machine, (address, _) in enumerate(hosts):
        processes = []
        for number in range(machine * args.servers, (machine + 1) * args.servers):
            own = {"DGL_ROLE": "server", "DGL_SERVER_ID": number}
            processes.append({"name": f"server {number}", "environment": {**shared, **own}})
        for local in range(args.trainers):
            rank = machine * args.trainers + local
            own = {"DGL_ROLE": "client", "RANK": rank, "LOCAL_RANK": local}
            processes.append({"name": f"trainer {rank}", "environment": {**shared, **own}})
        for process in processes:
            environment = {**process["environment"], "HGAT_MACHINE": machine}
            process["environment"] = {key: str(value) for key, value in environment.items()}
        yield {
            "address": address,
            "hosts": "".join(f"{address} {port}\n" for address, port in hosts),
            "command": [args.python, args.script, *args.arguments],
            "workspace": args.workspace,
            "trainers_here": args.trainers * sum(address == other for other, _ in hosts),
            "processes": processes,
        }


class Keeper:
    """The keeper on one host, as seen from here."""

    def __init__(self, args, address, order):
        self.address, self.rest = address, b""
        self.running = {process["name"] for process in order["processes"]}
        command = [args.python, os.path.abspath(__file__), "--keep"]
        if not is_here(address):
            command = [
                *shlex.split(args.ssh),
                address,
                f"cd {shlex.quote(args.workspace)} && exec {shlex.join(command)}",
            ]
        # A session of its own: Ctrl-C is for this process, which then ends the others.
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, bufsize=0
        )
        self.write(json.dumps(order).encode() + b"\n")

    def write(self, content):
        with contextlib.suppress(BrokenPipeError):  # its end is seen where its output is read
            self.process.stdin.write(content)

    def read(self):
        """The whole lines that have come, or None at the end."""
        content = os.read(self.process.stdout.fileno(), 65536)
        if not content:
            return None
        *lines, self.rest = (self.rest + content).split(b"\n")
        return [self.event(line) for line in lines]

    def event(self, line):
        """What the keeper says, or else the shell that started it."""
        try:
            event = json.loads(line)
        except ValueError:
            event = None
        return event if isinstance(event, dict) else {"from": self.address, "line": line.decode(errors="replace")}

    def end(self):
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        self.process.stdout.close()  # a keeper that waits for a reader does not read

    def wait(self, until):
        try:
            self.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def run(keepers):
    """Pass everything on until all is over; gives one sentence for what went wrong, or None."""
    beat, first, dead, until = time.monotonic(), None, [], float("inf")
    with selectors.DefaultSelector() as selector:
        for keeper in keepers:
            selector.register(keeper.process.stdout, selectors.EVENT_READ, keeper)
        while selector.get_map():
            if time.monotonic() > until:
                break
            for key, _ in selector.select(0.1 if dead else 1.0):
                keeper, events = key.data, key.data.read()
                if events is None:
                    selector.unregister(key.fileobj)
                    if keeper.running:
                        dead.append((0, f"lost {keeper.address}, where {', '.join(sorted(keeper.running))} ran"))
                for event in events or ():
                    if "line" in event:
                        print(f"[{event['from']}] {event['line']}", flush=True)
                        continue
                    keeper.running.remove(event["ended"])
                    status = event["status"]
                    if status != 0:
                        rank = 0 if status == -signal.SIGKILL else 1 if status < 0 else 2
                        dead.append((rank, f"{event['ended']} on {keeper.address} {how(status)}"))
                    first = first or time.monotonic()
            if dead:
                until = min(until, time.monotonic() + TOGETHER)
            now = time.monotonic()
            if now - beat > BEAT:
                beat = now
                for keeper in keepers:
                    keeper.write(b"\n")
            left = sorted(name for keeper in keepers for name in keeper.running)
            if first and left and now - first > TAIL:
                dead.append((3, f"{', '.join(left)}: expected to end within {TAIL:.0f} s of the others, still running"))
                break
    # The first to die, but what was killed before what fell over it.
    return min(dead, key=lambda death: death[0])[1] if dead else None


def how(status):
    return f"ended with status {status}" if status > 0 else f"was killed by {signal.Signals(-status).name}"


def is_here(address):
    """Whether the address is one of this machine's."""
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def read_hosts(args):
    """[(IPv4 address, port)] of the file; SystemExit with one sentence for what does not fit."""
    try:
        lines = [line.split() for line in Path(args.hosts).read_text().splitlines() if line.strip()]
        parts = json.loads(Path(args.workspace, args.config).read_text())["num_parts"]
    except (OSError, ValueError, KeyError) as error:
        refuse(f"expected a file of hosts and the NAME.json of a partition, got: {error}")
    hosts = []
    for words in lines:
        try:
            name, port = words if len(words) > 1 else (*words, "30050")
            hosts.append((socket.gethostbyname(name), int(port)))
        except (ValueError, OSError):
            refuse(f"{args.hosts}: expected lines `address [port]`, got {' '.join(words)!r}")
    if len(hosts) != parts:
        refuse(f"{args.hosts}: expected {parts} lines, one for each part of {args.config}, got {len(hosts)}")
    local = [address.startswith("127.") for address, _ in hosts]
    if any(local) and not all(local):
        refuse(f"{args.hosts}: expected addresses that all hosts can reach, got {hosts[local.index(True)][0]}")
    taken = [(address, port + k) for address, port in hosts for k in range(args.servers)]
    taken.append((hosts[0][0], hosts[0][1] + args.servers))
    if len(set(taken)) < len(taken):
        refuse(f"{args.hosts}: expected ports apart on one address, {args.servers + 1} for each line")
    return hosts


def refuse(sentence):
    print(f"launch: {sentence}", file=sys.stderr)
    sys.exit(2)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hosts", required=True, help="file with a line `address [port]` for every part")
    parser.add_argument("--config", required=True, help="NAME.json of the partition")
    parser.add_argument("--trainers", type=int, default=1, help="trainers on each host (default: 1)")
    parser.add_argument("--servers", type=int, default=1, help="servers on each host, for one part (default: 1)")
    parser.add_argument("--samplers", type=int, default=0, help="processes that sample for each trainer (default: 0)")
    parser.add_argument("--format", default="csc", help="DGL's format of the structure on servers (default: csc)")
    parser.add_argument("--workspace", default=os.getcwd(), help="folder to run in on every host (default: this one)")
    parser.add_argument("--python", default=sys.executable, help="Python on every host (default: this one)")
    parser.add_argument("--ssh", default=SSH, help="how to reach the others (default: %(default)s)")
    parser.add_argument("script")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if min(args.trainers, args.servers) < 1 or args.samplers < 0:
        refuse("expected --trainers and --servers of 1 or more and --samplers of 0 or more")
    hosts = read_hosts(args)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    keepers, failure = [], None
    try:
        keepers += (Keeper(args, host[0], order) for host, order in zip(hosts, orders(args, hosts), strict=True))
        failure = run(keepers)
    except KeyboardInterrupt:
        failure = "stopped"
    except OSError as error:
        failure = f"could not start: {error}"
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for keeper in keepers:
            keeper.end()
        until = time.monotonic() + GRACE
        for keeper in keepers:
            keeper.wait(until)
    if failure:
        print(f"launch: {failure}; all other processes were ended", file=sys.stderr)
        return 130 if failure == "stopped" else 1
    return 0


if __name__ == "__main__":
    sys.exit(keep() if sys.argv[1:] == ["--keep"] else main())
