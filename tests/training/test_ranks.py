"""Several processes, one network: real ranks, connected with gloo, on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch

import resnetkit as rk
from conftest import TINY
from faults import plants
from faults.harness import Case, start, wait
from faults.runs import assert_same
from progress import children, finish, is_alive, until
from resnetkit.data.load import load_data
from resnetkit.evaluation.answers import answer
from resnetkit.evaluation.calibration import fit_temperature
from resnetkit.evaluation.score import score
from resnetkit.machine.ranks import Ranks
from resnetkit.runs import checkpoint

SMALL = ["--model.depths", "1", "1", "--model.widths", "8", "16", "--model.strides", "1", "2"]
SMALL += ["--model.stem-width", "8", "--precision", "fp32"]
SMALL += ["--data.limit", "300", "--checkpoint.every-steps", "4", "--checkpoint.keep", "20"]
PLANTED = str(Path(__file__).parent / "planted_rank.py")
WITH_TESTS = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
"""So that a process finds `faults`, as it finds `resnetkit`."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class World:
    """Ranks of `resnetkit train digits …` with the environment that torchrun gives them."""

    def __init__(
        self,
        out: Path,
        *words: object,
        each: dict[int, list[str]] | None = None,
        plants: dict | None = None,
        **env: str,
    ) -> None:
        env |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        command = ("train", "digits", "--out", out, *SMALL, *words)
        self.ranks = [
            start(
                Case(
                    (*command, *(each or {}).get(rank, [])),
                    env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    plant=(plants or {}).get(rank),
                )
            )
            for rank in range(2)
        ]

    def end(self) -> tuple[list[int], list[str]]:
        """Exit codes and messages of all ranks, none of which may hang."""
        ended = [wait(rank) for rank in self.ranks]
        return [each.code for each in ended], [each.err for each in ended]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks, 14 steps, nothing in their way."""
    out = tmp_path_factory.mktemp("ranks") / "run"
    codes, said = World(out, "--steps", 14).end()
    assert codes == [0, 0], said
    assert said[1] == ""
    return out


def test_two_ranks_equal_one_where_batchnorm_stands_still(tmp_path: Path) -> None:
    # 33 images a step: one rank has 16, the other 17.
    words = ["--steps", 10, "--freeze", "layer2", "--optim.ema", 0, "--seed", 3, "--data.batch-size", 33]
    codes, said = World(tmp_path / "two", *words).end()
    assert codes == [0, 0], said
    alone = rk.train(
        "digits", out=tmp_path / "one", quiet=True, steps=10, freeze="layer2", seed=3, optim={"ema": 0.0},
        data={"limit": 300, "batch_size": 33}, **TINY,
    )  # fmt: skip
    together = rk.load(tmp_path / "two")
    torch.testing.assert_close(together.network.fc.weight, alone.network.fc.weight, rtol=1e-5, atol=1e-7)
    assert not torch.equal(alone.network.fc.weight, rk.load(tmp_path / "one").network.fc.weight * 0)


OF_ONE_RANK = """
import sys, types
import resnetkit as rk

tracker = types.ModuleType("wandb")  # stands in for the package, which the first rank alone is to ask
tracker.init = lambda **_: types.SimpleNamespace(log=lambda *_, **__: print("logged"), finish=lambda: None)
sys.modules["wandb"] = tracker

class Ends:
    def on_step(self, run, figures):
        if run.rank == 1 and run.step == 2:
            MOMENT

callbacks = [Ends()]
"""


@pytest.mark.parametrize("moment", ["return rk.STOP", "raise ZeroDivisionError('one and nothing')"])
def test_a_callback_of_one_rank_ends_all_of_them(moment: str, tmp_path: Path) -> None:
    (tmp_path / "ends.py").write_text(OF_ONE_RANK.replace("MOMENT", moment))
    words = ("--steps", 10, "--plugin", tmp_path / "ends.py", "--log", "wandb")
    codes, said = World(tmp_path / "run", *words).end()
    if "STOP" in moment:
        assert codes == [0, 0], said
        assert f"stopped at epoch {2 * 64 / 299:.4g}: a callback of another rank has said so" in said[0]
    else:
        assert codes == [2, 2], said
        assert said[0].count("error:") + said[1].count("error:") == 1
        assert "error: on_step of the callback Ends failed in" in said[1]
    assert (tmp_path / "run" / "checkpoints" / "step-00000002").is_dir()


def test_the_shares_of_any_number_of_ranks_join_to_the_whole() -> None:
    for size in range(1, 9):
        for count in range(30):
            parts = [list(range(count))[Ranks(rank, size).share(count)] for rank in range(size)]
            assert [each for part in parts for each in part] == list(range(count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_ranks_score_every_image_once(undisturbed: Path) -> None:
    end = json.loads((undisturbed / "metrics.jsonl").read_text().splitlines()[-1])
    figures = score(rk.load(undisturbed), load_data("digits").test)
    assert end["count"] == figures.count == 359  # an odd number for two ranks
    assert end["top1"] == figures.top1
    assert end["loss"] == pytest.approx(figures.loss, rel=1e-6)


def test_the_temperature_of_two_ranks_is_that_of_one(undisturbed: Path) -> None:
    classifier = rk.load(undisturbed)
    found = answer(classifier, load_data("digits").validation)
    assert classifier.temperature == fit_temperature(found.logits, found.labels) != 1


def test_one_rank_killed_ends_all_and_resuming_is_exact(undisturbed: Path, tmp_path: Path) -> None:
    world = World(tmp_path / "run", "--steps", 14)
    until((tmp_path / "run" / "checkpoints" / "step-00000004").exists, *world.ranks)
    os.kill(world.ranks[1], signal.SIGKILL)
    codes, said = world.end()
    assert codes == [8, -signal.SIGKILL]
    assert said[0].count("error: another rank has gone") == 1
    codes, said = World(tmp_path / "run", "--steps", 14, "--resume").end()
    assert codes == [0, 0], said
    assert_same(tmp_path / "run", undisturbed)


def test_a_signal_to_one_rank_saves_and_stops_all(undisturbed: Path, tmp_path: Path) -> None:
    waits = partial(plants.before_step, 6, plants.wait_to_be_asked)
    world = World(tmp_path / "run", "--steps", 14, plants={1: waits})
    until((tmp_path / "run" / "checkpoints" / "step-00000004").exists, *world.ranks)
    os.kill(world.ranks[1], signal.SIGTERM)
    codes, said = world.end()
    assert codes == [143, 143], said
    assert "is saved in" in said[0]
    assert "error" not in said[1]
    codes, said = World(tmp_path / "run", "--steps", 14, "--resume").end()
    assert codes == [0, 0], said
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(
    ("flags", "key"),
    [(["--seed", "1"], "seed"), pytest.param(["--optim.lr", "0.3"], "optim.lr", marks=pytest.mark.slow)],
)
def test_ranks_that_disagree_leave_and_say_on_what(flags: list[str], key: str, tmp_path: Path) -> None:
    codes, said = World(tmp_path / "run", "--steps", 4, each={1: flags}).end()
    assert codes == [2, 2]
    assert f"the ranks disagree on the recipe's {key}: rank 0 has" in said[0]
    assert said[1] == ""
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_mistake_is_said_by_one_rank_only(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "letter.txt").write_text("dear")
    codes, said = World(tmp_path / "run", "--steps", 4).end()
    assert codes == [2, 2]
    assert said[0].count("error: the output folder holds other files") == 1
    assert said[1] == ""


@pytest.mark.slow
def test_a_rank_that_hangs_ends_all_in_time(tmp_path: Path) -> None:
    # Its patience has to last while ranks start, too, one of which may be far behind on a busy machine.
    world = World(tmp_path / "run", "--steps", 4000, RESNETKIT_PEER_SECONDS="20")
    until((tmp_path / "run" / "checkpoints" / "step-00000004").exists, *world.ranks)
    os.kill(world.ranks[1], signal.SIGSTOP)
    try:
        ended = wait(world.ranks[0])
    finally:
        os.kill(world.ranks[1], signal.SIGKILL)
        wait(world.ranks[1])
    assert ended.code == 8
    assert "another rank has gone" in ended.err


@pytest.mark.slow
def test_a_slow_rank_is_named(tmp_path: Path) -> None:
    slow = partial(plants.before_step, None, partial(time.sleep, 0.5))
    codes, said = World(tmp_path / "run", "--epochs", 2, plants={1: slow}).end()
    assert codes == [0, 0], said
    assert "s for rank 1" in said[0]


def torchrun(out: Path, *words: object, restarts: int = 0, **more: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [f"--max-restarts={restarts}", PLANTED]
    command += ["train", "digits", "--out", str(out), *SMALL, *map(str, words)]
    return subprocess.Popen(
        command,
        env=os.environ | WITH_TESTS | more,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )


def test_torchrun_starts_the_same_command_again_and_it_goes_on_exactly(undisturbed: Path, tmp_path: Path) -> None:
    agent = torchrun(tmp_path / "run", "--steps", 14, restarts=1, DIES="1", AT="6")
    _, said = finish(agent)
    assert agent.returncode == 0, said
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("dies", ["0", "1"])
@pytest.mark.parametrize("at", ["0", "1", "4", "5", "7", "8", "9", "11", "12", "13"])
def test_any_rank_may_die_at_any_step(dies: str, at: str, undisturbed: Path, tmp_path: Path) -> None:
    agent = torchrun(tmp_path / "run", "--steps", 14, restarts=1, DIES=dies, AT=at)
    _, said = finish(agent)
    assert agent.returncode == 0, said
    assert_same(tmp_path / "run", undisturbed)


def test_an_agent_that_is_killed_leaves_no_rank_behind(tmp_path: Path) -> None:
    agent = torchrun(tmp_path / "run", "--steps", 40000)
    ranks = []
    try:
        until((tmp_path / "run" / "checkpoints" / "step-00000004").exists, agent.pid)
        ranks = children(agent.pid)
        assert len(ranks) == 2
        agent.kill()
        agent.wait()
        until(lambda: not any(map(is_alive, ranks)), *ranks, asleep=10, work=20)
    finally:
        for each in filter(is_alive, [agent.pid, *ranks]):
            os.kill(each, signal.SIGKILL)
        agent.communicate()
    assert checkpoint.newest(tmp_path / "run" / "checkpoints")[0] is not None


@pytest.fixture
def hosts():
    """Two machines, made of network namespaces joined by a cable; their names."""
    names = [f"rk{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            subprocess.run(["ip", "netns", "add", name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no right to make network namespaces")
    cable = ["ip", "link", "add", "eth0", "netns", names[0], "type", "veth", "peer", "name", "eth0", "netns", names[1]]
    try:
        subprocess.run(cable, check=True)
        for number, name in enumerate(names, 1):
            for words in (f"addr add 10.77.0.{number}/24 dev eth0", "link set eth0 up", "link set lo up"):
                subprocess.run(["ip", "-n", name, *words.split()], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


@pytest.mark.slow
def test_two_hosts_one_of_which_dies(hosts: list[str], undisturbed: Path, tmp_path: Path) -> None:
    """c10d rendezvous over the cable; the second host is lost at step 6 and comes back."""

    def start(host: int, **more: str) -> subprocess.Popen:
        command = ["ip", "netns", "exec", hosts[host], sys.executable, "-m", "torch.distributed.run"]
        command += ["--nnodes=2", "--nproc-per-node=1", "--max-restarts=3", "--rdzv-backend=c10d", "--rdzv-id=7"]
        command += ["--rdzv-endpoint=10.77.0.1:29400", f"--local-addr=10.77.0.{host + 1}"]
        command += ["--rdzv-conf=join_timeout=60,last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=2"]
        command[-1] += f",is_host={int(host == 0)}"  # it cannot tell by the name, which both share
        command += [PLANTED, "train", "digits", "--out", str(tmp_path / "run"), *SMALL]
        command += ["--steps", "14", "--resume"]
        environment = os.environ | WITH_TESTS | {"GLOO_SOCKET_IFNAME": "eth0"} | more
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    agents = [start(0, SLOW="yes"), start(1, DIES="1", AT="6")]
    said = [finish(agent)[1] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    assert_same(tmp_path / "run", undisturbed)


@pytest.mark.slow
def test_the_slurm_script_saves_requeues_and_goes_on_exactly(undisturbed: Path, tmp_path: Path) -> None:
    """The script as it is, with commands of SLURM's names that do their part of the work on this machine."""
    commands, asked = tmp_path / "bin", tmp_path / "asked"
    commands.mkdir()
    written = {
        "srun": 'shift\nexec "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "${{@:1:6}}" {PLANTED} "${{@:9}}"',
        "scontrol": f'case "$1" in show) echo 127.0.0.1;; *) echo "$@" >> {asked};; esac',
    }
    for name, text in written.items():
        (commands / name).write_text(f"#!/bin/bash\n{text}\n")
        (commands / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "here", "SLURM_JOB_NUM_NODES": "1", "SLURM_JOB_ID": "7", "SLURM_GPUS_ON_NODE": "2"}
    job["PATH"] = f"{commands}:{os.environ['PATH']}"
    script = [
        "bash",
        Path(__file__).parents[2] / "docs" / "train.sbatch",
        "digits",
        "--out",
        tmp_path / "run",
        *SMALL,
        "--steps",
        "14",
    ]

    def submit(**more: str) -> subprocess.Popen:
        environment = os.environ | WITH_TESTS | job | more
        return subprocess.Popen(script, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)

    first = submit(WAITS="yes", AT="6")
    until((tmp_path / "run" / "checkpoints" / "step-00000004").exists, first.pid)
    first.send_signal(signal.SIGUSR1)
    said = finish(first)[1]
    assert first.returncode == 143, said
    assert asked.read_text() == "requeue 7\n"
    second = submit()
    said = finish(second)[1]
    assert second.returncode == 0, said
    assert_same(tmp_path / "run", undisturbed)
