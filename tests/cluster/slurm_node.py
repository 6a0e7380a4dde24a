"""A real Slurm of one node on the loopback interface, without systemd, control groups or accounting."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

__all__ = ["PROGRAMS", "SlurmNode"]

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
SrunPortRange={first_port}-{last_port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={socket}
CredType=cred/munge
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=1
KillWait=2
InactiveLimit=0
ReturnToService=2
MinJobAge={forget_seconds}
MessageTimeout=30
SlurmctldTimeout=60
SlurmdTimeout=120
RebootProgram=/bin/false
DefMemPerCPU=1000
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={megabytes} State=UNKNOWN
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 State=UP OverSubscribe=NO
"""


class SlurmNode:
    """Context manager that starts Slurm's daemons, and leaves no process behind.

    Parameters
    ----------
    folder
        For configuration, state and logs.
    cpus
        That the node is said to have, whatever the machine has.
    forget_seconds
        After which Slurm forgets a job that has ended.
    """

    def __init__(self, folder: Path, cpus: int, forget_seconds: int = 300) -> None:
        self.folder, self._cpus, self._forget = folder, cpus, forget_seconds
        self._pids: list[int] = []
        # munged refuses folders that others could write into, as those in /tmp are.
        base = "/run" if os.access("/run", os.W_OK) else None
        self._munge = Path(tempfile.mkdtemp(prefix="munge-", dir=base))
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> SlurmNode:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        subprocess.run(["scancel", "-u", "root"], env=self._variables(), check=False)
        until = time.monotonic() + 30
        while self.queue() and time.monotonic() < until:
            time.sleep(0.2)
        self._stop()

    def queue(self) -> list[str]:
        """Return the jobs that Slurm has, as "123_4 RUNNING"."""
        return self.run("squeue", "-h", "-r", "-o", "%i %T").split("\n")[:-1]

    def run(self, *command: str) -> str:
        """Run a command of Slurm and return what it prints."""
        return subprocess.run(
            command, env=self._variables(), capture_output=True, text=True, check=True
        ).stdout

    def ports(self) -> list[str]:
        """Return the local addresses that the daemons listen on."""
        listed = subprocess.run(["ss", "-ltnp"], capture_output=True, text=True, check=True).stdout
        return [
            line.split()[3]
            for line in listed.splitlines()
            if any(f"pid={pid}," in line for pid in self._pids)
        ]

    def _variables(self) -> dict[str, str]:
        return os.environ | self.environment

    def _start(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True, mode=0o700)
        self._munge.chmod(0o755)
        key, munge_socket = self._munge / "key", self._munge / "socket"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        ports = _free_ports(2)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
        text = CONFIGURATION.format(
            host=socket.gethostname().split(".")[0],
            controller_port=ports[0],
            node_port=ports[1],
            first_port=61000,
            last_port=61999,
            socket=munge_socket,
            folder=self.folder,
            cpus=self._cpus,
            megabytes=memory - 512,
            forget_seconds=self._forget,
        )
        (self.folder / "slurm.conf").write_text(text, encoding="utf-8")
        files = {name: self._munge / name for name in ("pid", "log", "seed")}
        self._daemon(
            "munged",
            f"--key-file={key}",
            f"--socket={munge_socket}",
            f"--pid-file={files['pid']}",
            f"--log-file={files['log']}",
            f"--seed-file={files['seed']}",
            "--num-threads=2",
            pid_file=files["pid"],
        )
        self._daemon("slurmctld", "-c", pid_file=self.folder / "slurmctld.pid")
        self._daemon("slurmd", pid_file=self.folder / "slurmd.pid")
        until = time.monotonic() + 60
        while "idle" not in self.run("sinfo", "-h", "-o", "%T"):
            if time.monotonic() > until:
                raise TimeoutError((self.folder / "slurmctld.log").read_text())
            time.sleep(0.2)

    def _daemon(self, *command: str, pid_file: Path) -> None:
        subprocess.run(command, env=self._variables(), check=True, stdin=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while not (pid_file.exists() and pid_file.read_text().strip()):
            if time.monotonic() > until:
                raise TimeoutError(f"{command[0]} did not start")
            time.sleep(0.05)
        self._pids.append(int(pid_file.read_text()))

    def _stop(self) -> None:
        for pid in reversed(self._pids):
            _end(pid)
        self._pids.clear()
        shutil.rmtree(self._munge, ignore_errors=True)


def _end(pid: int) -> None:
    """End a process, and wait for it."""
    for how, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        until = time.monotonic() + seconds
        try:
            os.kill(pid, how)
            while time.monotonic() < until:
                os.kill(pid, 0)
                time.sleep(0.05)
        except ProcessLookupError:
            return


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
