"""The nodes of one training: the same command on several machines, where they meet, and how each learns of the others.

A node is a machine, or a task of SLURM. The commands meet at one address, which the first of them serves. While they
train, each says there that it lives; a node that fails says why, and one that falls silent counts as dead.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from platform import node
from typing import TYPE_CHECKING, Any, NoReturn

from dcae_bench.base.errors import ConfigError, ProcessError
from dcae_bench.records.provenance import command_line

if TYPE_CHECKING:  # importing torch takes seconds, which a command in one process need not spend
    from torch.distributed import Store

MEETING = "DCAE_BENCH_MEETING"
"""Environment variable with the address where the nodes of a training meet, as HOST:PORT."""
PATIENCE_S = 600.0
"""Seconds until all nodes must have come."""
TOLD_S = 2.0
"""Seconds after which a node that waits for others says so."""
BEAT_S = 1.0
SILENT_S = 30.0
"""Seconds after which a node that says nothing counts as dead."""
CUT_OFF_S = 6.0
"""The same for a node whose processes have lost their connections to those of another."""
LEAVE_S = 20.0
"""Seconds for which the node that serves the meeting waits until the others have read how it ended."""
POLL_S = 0.1
PORTS = range(20000, 30000)
SIOCGIFADDR = 0x8915  # linux/sockios.h


@dataclass(frozen=True)
class Address:
    """Where the nodes of a training meet."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read HOST:PORT. Raises :class:`ConfigError` for other texts."""
        host, _, port = text.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
            raise ConfigError(f"{MEETING}={text}: is no address; write HOST:PORT, as in node1:29500")
        return cls(host, int(port))

    @property
    def is_here(self) -> bool:
        """Whether the host is this machine. Raises :class:`ConfigError` for a host that nobody knows."""
        try:
            found = socket.getaddrinfo(self.host, 0, type=socket.SOCK_STREAM)
        except OSError as error:
            raise ConfigError(f"{MEETING}={self}: {self.host} cannot be found ({error.strerror})") from error
        for family, kind, protocol, _, place in found:
            with contextlib.suppress(OSError), socket.socket(family, kind, protocol) as probe:
                probe.bind(place)  # only the machine itself can
                return True
        return False


def interface_of(address: str) -> str | None:
    """Name of this machine's network interface with an IPv4 address; None where the system does not tell."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                found = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                if socket.inet_ntoa(found[20:24]) == address:
                    return name
    return None


def find_meeting(profile: str, nodes: int) -> Address:
    """Address where the nodes of this command meet: the user's, or one that follows from a job of SLURM.

    In a job of SLURM that runs this command once, the call does not return: ``srun`` takes the command's place and
    starts it on each node. Raises :class:`ConfigError` where nobody says where to meet, or the job has too few nodes.
    """
    if text := os.environ.get(MEETING):
        return Address.parse(text)
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise ConfigError(
            f"profile {profile}: nodes is {nodes}; run the same command on each of {nodes} machines with "
            f"{MEETING}=HOST:PORT, HOST being one of them, or run it in a job of SLURM with {nodes} nodes"
        )
    there = int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    if there < nodes:
        raise ConfigError(f"profile {profile}: nodes is {nodes}, and job {job} of SLURM has {there}; ask for more")
    tasks, hosts = os.environ.get("SLURM_STEP_NUM_TASKS"), os.environ.get("SLURM_STEP_NODELIST")
    if tasks == str(nodes) and os.environ.get("SLURM_STEP_NUM_NODES") == str(nodes) and hosts:
        step = int(os.environ.get("SLURM_STEP_ID", "0"))
        return Address(_hosts(hosts)[0], PORTS[(int(job) * 31 + step) % len(PORTS)])
    start_by_srun(nodes)


def start_by_srun(nodes: int) -> NoReturn:
    """Let ``srun`` take the place of this command, and run it once on each node. Raises :class:`ConfigError`."""
    if (srun := shutil.which("srun")) is None:
        raise ConfigError(f"nodes is {nodes}: this is a job of SLURM, and srun is not in PATH; set {MEETING}=HOST:PORT")
    threads = os.environ.get("SLURM_CPUS_PER_TASK")
    each = [f"--cpus-per-task={threads}"] if threads else []
    nodes_of = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1", "--kill-on-bad-exit=0"]
    # A job that SLURM counts as one task on its first node would start all tasks there.
    for name in ("SLURM_NTASKS", "SLURM_NPROCS", "SLURM_NTASKS_PER_NODE", "SLURM_TASKS_PER_NODE", "SLURM_DISTRIBUTION"):
        os.environ.pop(name, None)
    os.execv(srun, [srun, *nodes_of, *each, sys.executable, "-m", "dcae_bench", *sys.argv[1:]])


def _hosts(listed: str) -> list[str]:
    """Names of the hosts in a list of SLURM, such as ``node[1-3]``. Raises :class:`ConfigError`."""
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", listed], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ConfigError(f"scontrol cannot name the hosts {listed} ({error}); set {MEETING}=HOST:PORT") from error
    return done.stdout.split()


class Meeting:
    """The nodes of one training, from the view of one of them."""

    def __init__(self, address: Address, nodes: int):
        """Come to the meeting and wait until all nodes are there with the same command.

        Raises :class:`ProcessError` if they do not come, and :class:`ConfigError` if they run other commands.
        """
        self.address, self.nodes = address, nodes
        self.store, self.sides = _open_store(address)
        self.number = self.store.add("nodes", 1)
        if self.number > nodes:
            raise ProcessError(
                f"{MEETING}={address}: {nodes} nodes are there already, of another training; take another port"
            )
        if self.number == 1:
            self.store.set("run", uuid.uuid4().hex)
        self.store.set(self._key("node"), json.dumps({"host": node(), "command": command_line(), **vars(self.sides)}))
        found = self._wait_for_all()
        self.hosts = [note["host"] for note in found]
        self.own = self._own_address([note["reached"] for note in found if note["reached"]])
        self.run_id = self.store.get("run").decode()
        self.reason: str | None = None
        """Why another node has ended this one's work; None: no other has."""
        self._silent_s, self._silent = SILENT_S, set[int]()

    @property
    def serves(self) -> bool:
        """Whether this process serves the notes of the meeting."""
        return self.sides.own is None

    @property
    def launch(self) -> dict[str, Any]:
        """What torch's launcher must know of the nodes."""
        return {
            "min_nodes": self.nodes,
            "max_nodes": self.nodes,
            "run_id": self.run_id,
            "rdzv_endpoint": str(self.address),
            "rdzv_configs": {"is_host": self.serves},
            "local_addr": self.own,
        }

    @contextlib.contextmanager
    def attended(self, stop: Callable[[], None]) -> Iterator[None]:
        """Say that this node lives, and call ``stop`` again and again once another has failed or is silent."""
        self._over = threading.Event()
        watch = threading.Thread(target=self._watch, args=(stop,), name="meeting", daemon=True)
        watch.start()
        try:
            yield
        finally:
            self._over.set()
            watch.join()

    def why(self) -> str:
        """Why the processes of this node lost the others': what another node says, or that it is silent."""
        self._silent_s = CUT_OFF_S
        deadline = time.monotonic() + 2 * CUT_OFF_S
        while self.reason is None and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return self.reason or (
            f"a process lost its connection to another of {self.nodes} nodes; run the same command again on each to go "
            "on"
        )

    def leave(self, error: str | None = None) -> None:
        """Tell the other nodes how this one ended. The node that serves the meeting leaves last."""
        with contextlib.suppress(Exception):  # the others may be gone
            if error is not None and self.reason is None:
                self.store.set(self._key("end"), error)
            left = self.store.add("left", 1)
            deadline = time.monotonic() + LEAVE_S
            while self.serves and left < self.nodes - len(self._silent) and time.monotonic() < deadline:
                time.sleep(POLL_S)
                left = self.store.add("left", 0)

    def _own_address(self, reached: list[str]) -> str:
        """Address under which the other nodes reach this one; ``reached`` are those under which they see the host.

        The host's own name often stands for its loopback interface, which nobody else can reach.
        """
        if self.sides.own and not _is_loopback(self.sides.own):
            return self.sides.own
        return next((address for address in reached if not _is_loopback(address)), self.sides.own or self.address.host)

    def _wait_for_all(self) -> list[dict[str, str]]:
        """What all nodes say of themselves, in the order in which they came."""
        start, told = time.monotonic(), False
        keys = [self._key("node", number) for number in range(1, self.nodes + 1)]
        while not self.store.check(keys):
            waited = time.monotonic() - start
            there = sum(self.store.check([key]) for key in keys)
            if waited > PATIENCE_S:
                raise ProcessError(
                    f"{MEETING}={self.address}: {there} of {self.nodes} nodes came within {PATIENCE_S / 60:.0f} "
                    "minutes; run the same command on each"
                )
            if not told and waited > TOLD_S:
                line = f"dcae-bench: {self.address}: waiting for {self.nodes - there} of {self.nodes} nodes"
                print(line, file=sys.stderr, flush=True)
                told = True
            time.sleep(POLL_S)
        found = [json.loads(self.store.get(key)) for key in keys]
        for other in found:
            if other["command"] != found[0]["command"]:
                raise ConfigError(
                    f"{MEETING}={self.address}: {other['host']} runs `{other['command']}`, and {found[0]['host']} runs "
                    f"`{found[0]['command']}`; run the same command on each node, and give each training a port"
                )
        return found

    def _watch(self, stop: Callable[[], None]) -> None:
        seen: dict[int, tuple[bytes, float]] = {}
        others = [number for number in range(1, self.nodes + 1) if number != self.number]
        beats = 0
        while not self._over.wait(BEAT_S):
            beats += 1
            try:
                self.store.set(self._key("beat"), str(beats))
                self.reason = next(filter(None, (self._end_of(number, seen) for number in others)), None)
            except Exception:  # whatever torch raises where nobody answers
                self.reason = f"{self._name(1)} does not answer at {self.address}"
            if self.reason is not None:
                self.reason += "; run the same command again on each node to go on"
                stop()
                while not self._over.wait(BEAT_S):  # processes that had not begun yet would wait for the other node's
                    stop()
                return

    def _end_of(self, number: int, seen: dict[int, tuple[bytes, float]]) -> str | None:
        """How another node ended; None while it lives."""
        if self.store.check([self._key("end", number)]):
            return f"{self._name(number)} failed: {self.store.get(self._key('end', number)).decode().strip()}"
        key = self._key("beat", number)
        beat = self.store.get(key) if self.store.check([key]) else b""
        before, since = seen.get(number, (None, 0.0))
        if beat != before:
            seen[number] = beat, time.monotonic()
        elif time.monotonic() - since > self._silent_s:
            self._silent.add(number)
            return f"{self._name(number)} is silent, as where its command was killed"
        return None

    def _name(self, number: int) -> str:
        return f"node {number} of {self.nodes} ({self.hosts[number - 1]})"

    def _key(self, what: str, number: int | None = None) -> str:
        return f"{what} {number or self.number}"


@dataclass(frozen=True)
class _Sides:
    """The two ends of a node's connection to the meeting; None in the process that serves it."""

    own: str | None = None
    reached: str | None = None


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


def _open_store(address: Address) -> "tuple[Store, _Sides]":
    """The notes of the meeting, and how this process is connected to them. Raises :class:`ProcessError`."""
    from torch.distributed import PrefixStore, TCPStore

    def opened(*, serve: bool) -> "Store":
        # Torch's rendezvous opens the same port again; in the process that serves it, it gets the same server.
        store = TCPStore(
            address.host,
            address.port,
            is_master=serve,
            wait_for_workers=False,
            multi_tenant=True,
            timeout=timedelta(seconds=SILENT_S),
        )
        return PrefixStore("dcae-bench", store)

    if address.is_here:
        with contextlib.suppress(RuntimeError, ValueError):  # another node of this machine serves there already
            return opened(serve=True), _Sides()
    deadline = time.monotonic() + PATIENCE_S
    while True:  # torch would tell each attempt on the terminal
        try:
            with socket.create_connection((address.host, address.port), timeout=5) as connection:
                sides = _Sides(connection.getsockname()[0], connection.getpeername()[0])
            return opened(serve=False), sides
        except OSError as error:
            if time.monotonic() > deadline:
                raise ProcessError(
                    f"{MEETING}={address}: nobody answers there ({error}); start the command on {address.host} too"
                ) from error
        except RuntimeError as error:
            raise ProcessError(f"{MEETING}={address}: another program answers there; take another port") from error
        time.sleep(POLL_S)
