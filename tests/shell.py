"""`hgat` as a shell runs it: a process of its own, with its exit status, output, signals and limits.

Importing PyTorch and DGL takes seconds, so one process does it once and forks a child for every command. The
child calls `hgat.cli.main` and nothing else; all that a test sees of it is what a shell would see.
"""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass

__all__ = ["Done", "Shell"]

SERVER = r"""
import json, os, resource, signal, sys, traceback
import hgat.cli, hgat.doctor, hgat.explain, hgat.train, hgat.train.run
import hgat.data.acm3025, hgat.data.dblp, hgat.data.movielens, hgat.data.planetoid, hgat.data.rdf
try:
    import matplotlib.figure, matplotlib.backends.backend_agg
except ImportError:
    pass

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            for number, path in ((1, job["out"]), (2, job["err"])):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(job["cwd"])
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if job["limit"]:
                resource.setrlimit(resource.RLIMIT_FSIZE, (job["limit"], job["limit"]))
            if job["save_every"] is not None:
                hgat.train.run.SAVE_EVERY = job["save_every"]
            status = hgat.cli.main(job["argv"])
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(status or 0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Done:
    """A command that ended: its status (minus the signal's number, if one killed it), and what it printed."""

    status: int
    out: str
    err: str


class Shell:
    """Runs one `hgat` command at a time in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("HGAT_DATA", None)
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._server.stdout.readline() == "ready\n"
        self.process = None

    def start(self, *argv, cwd=None, limit=None, save_every=None, quiet=True):
        """Start a command; gives its process id. limit: bytes that a file may grow to. quiet: what `hgat train` says of
        its progress is left out. See `wait`."""
        if self.process is not None:  # a test that failed before it waited
            self.kill()
            self.wait()
        self._files = [self.folder / "stdout.txt", self.folder / "stderr.txt"]
        job = {
            "argv": [str(a) for a in argv] + ["--quiet"] * (quiet and argv[0] == "train"),
            "out": str(self._files[0]),
            "err": str(self._files[1]),
            "cwd": str(cwd or self.folder),
            "limit": limit,
            "save_every": save_every,
        }
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        self.process = int(self._server.stdout.readline())
        return self.process

    def kill(self, number=signal.SIGKILL):
        """Send the running command a signal; one that has just ended does not mind."""
        with suppress(ProcessLookupError):
            os.kill(self.process, number)

    def alive(self):
        """True while the command runs."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        return True

    def wait(self):
        """Wait for the command that `start` started."""
        status, self.process = int(self._server.stdout.readline()), None
        return Done(status, *(path.read_text() for path in self._files))

    def __call__(self, *argv, **options):
        self.start(*argv, **options)
        return self.wait()

    def close(self):
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
