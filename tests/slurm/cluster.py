"""A SLURM cluster of this machine alone, with folders, keys and ports of its own."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel", "sinfo")
PATIENCE_S = 60
KEY_BYTES = 1024
MEMORY_MB = 16000
"""Memory that the node offers. SLURM only counts it, so that the machine may have less."""

# No cgroups, no accounting, no user of SLURM's own: what a container or a bare machine can do.
CONFIGURATION = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
KillWait=10
MinJobAge=300
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory}
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class SlurmError(Exception):
    """The cluster does not do what it was asked for; the text holds the ends of its logs."""


def missing() -> list[str]:
    """Programs of SLURM that this machine lacks. Daemons lie where only root looks."""
    return [name for name in PROGRAMS if _find(name) is None]


class Cluster:
    """A running cluster; ``environment`` makes SLURM's programs use it."""

    def __init__(self, folder: Path, cpus: int):
        self.folder, self.cpus, self.node = folder, cpus, socket.gethostname().partition(".")[0]
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": f"{folder}/bin:{os.environ['PATH']}"}
        self._daemons: list[subprocess.Popen] = []

    @classmethod
    @contextlib.contextmanager
    def running(cls, cpus: int = 2) -> "Iterator[Cluster]":
        """A cluster of one node with ``cpus`` processors, which ends with the context."""
        with tempfile.TemporaryDirectory(prefix="cluster-") as folder:
            cluster = cls(Path(folder).resolve(), cpus)
            try:
                cluster._start()
                yield cluster
            finally:
                cluster._stop()

    def call(self, *words: str, check: bool = True) -> str:
        """Run a program of SLURM and return what it says. Raises :class:`SlurmError` where it fails."""
        done = subprocess.run(words, env=os.environ | self.environment, capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise SlurmError(f"{' '.join(words)}: {done.stderr.strip()}\n{self._logs()}")
        return done.stdout.strip()

    def jobs(self, *states: str) -> dict[str, str]:
        """Comments of the jobs in some states (squeue's names, such as RUNNING), by number; oldest first."""
        listed = self.call("squeue", "--noheader", "--sort=i", f"--states={','.join(states)}", "--format=%i|%k")
        return dict(line.split("|", 1) for line in listed.splitlines())

    def time_limit(self, job: str) -> str:
        """Time limit of a job, as squeue prints it."""
        return self.call("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%l")

    def set_state(self, state: str) -> None:
        """Set the state of the node: drain or resume."""
        self.call("scontrol", "update", f"nodename={self.node}", f"state={state}", "reason=test")

    def _start(self) -> None:
        for name in ("munge", "state", "spool", "bin"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        (self.folder / "munge").chmod(0o711)
        key = self.folder / "munge" / "key"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(KEY_BYTES))
        controller, daemon = _free_ports()
        configuration = CONFIGURATION.format(
            host=self.node,
            user=getpass.getuser(),
            folder=self.folder,
            controller=controller,
            daemon=daemon,
            cpus=self.cpus,
            memory=MEMORY_MB,
        )
        (self.folder / "slurm.conf").write_text(configuration)
        # Snakemake's plugin starts srun in a job without SLURM_CONF.
        srun = self.folder / "bin" / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {_find("srun")} "$@"\n')
        srun.chmod(0o755)
        munge = self.folder / "munge"
        self._daemon(
            "munged", "--foreground", f"--key-file={key}", f"--socket={munge}/socket", f"--pid-file={munge}/pid",
            f"--log-file={munge}/log", f"--seed-file={munge}/seed", "--num-threads=2",
        )  # fmt: skip
        self._wait_for("munged", (munge / "socket").exists)
        self._daemon("slurmctld", "-D", "-i")
        self._daemon("slurmd", "-D")
        self._wait_for("an idle node", lambda: "idle" in self.call("sinfo", "--noheader", "--format=%T", check=False))

    def _daemon(self, name: str, *arguments: str) -> None:
        with open(self.folder / f"{name}.out", "wb") as out:
            self._daemons.append(
                subprocess.Popen(
                    [str(_find(name)), *arguments],
                    env=os.environ | self.environment,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                )
            )

    def _wait_for(self, what: str, reached) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            ended = [daemon.args[0] for daemon in self._daemons if daemon.poll() is not None]
            if ended or time.monotonic() > deadline:
                raise SlurmError(f"waited for {what}; ended: {', '.join(ended) or 'nothing'}\n{self._logs()}")
            time.sleep(0.2)

    def _stop(self) -> None:
        if len(self._daemons) > 1:
            self.call("scancel", f"--user={getpass.getuser()}", check=False)
        for daemon in reversed(self._daemons):
            daemon.terminate()
            try:
                daemon.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def _logs(self) -> str:
        """Last lines of every log."""
        logs = [*sorted(self.folder.glob("*.log")), *sorted(self.folder.glob("*.out")), self.folder / "munge" / "log"]
        ends = {path: path.read_text(errors="replace").splitlines()[-8:] for path in logs if path.is_file()}
        return "\n".join(f"{path.name}: {line}" for path, lines in ends.items() for line in lines)


def _find(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def _free_ports() -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(2)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
