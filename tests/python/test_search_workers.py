"""One Optuna study, several worker processes, one of them killed in the middle of a trial: the study goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx")
optuna = pytest.importorskip("optuna", reason='needs pip install "lowbit[search]"')

from lowbit.mixed_precision import Evaluator, Space, sample  # noqa: E402
from lowbit.mixed_precision.sampler import database  # noqa: E402
from search_nets import residual  # noqa: E402

HEARTBEAT = 2  # seconds; a worker that is silent for two of them counts as dead
CHOICES = ["float32", "int8", "int:4/8"]


class Mortal(Evaluator):
    """Kills its process in the middle of an evaluation."""

    left = -1

    def error(self, assignment):
        self.left -= 1
        if self.left == 0:
            time.sleep(HEARTBEAT)  # a trial without a single heartbeat is nobody's, for Optuna
            os.kill(os.getpid(), signal.SIGKILL)
        return super().error(assignment)


def work(storage, seed, trials, dies_at=-1):
    space = Space(residual(), CHOICES)
    inputs = np.random.default_rng(1).standard_normal((4, 3, 6, 6), np.float32)
    evaluator = Mortal(space, inputs, threads=1)
    evaluator.left = dies_at
    budget = {"size": 0.9 * space.cost(space.uniform("float32"), "size")}
    return sample(
        evaluator,
        budget,
        trials=trials,
        seed=seed,
        storage=database(storage, HEARTBEAT) if "://" in storage else storage,
        first=[space.uniform("int8")],
    )


def worker(*arguments):
    return subprocess.Popen([sys.executable, __file__, *map(str, arguments)], env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_a_killed_workers_trial_is_tried_again(tmp_path):
    storage = f"sqlite:///{tmp_path / 'study.db'}"
    assert worker(storage, 1, 5, 3).wait(timeout=120) == -signal.SIGKILL
    study = optuna.load_study(study_name="lowbit", storage=storage)
    running = [t for t in study.trials if t.state == optuna.trial.TrialState.RUNNING]
    assert len(running) == 1
    lost = running[0].params
    both = [worker(storage, seed, 6) for seed in (2, 3)]
    assert [process.wait(timeout=120) for process in both] == [0, 0]

    def again():
        done = [t for t in study.trials if t.params == lost and t.state == optuna.trial.TrialState.COMPLETE]
        return [t for t in done if t.system_attrs.get("failed_trial") == running[0].number]

    deadline = time.monotonic() + 60  # the two may end before the dead one counts as dead
    while not again() and time.monotonic() < deadline:
        work(storage, 4, 2)
    assert again()
    states = [t.state for t in study.trials]
    assert states.count(optuna.trial.TrialState.RUNNING) == 0 and states.count(optuna.trial.TrialState.FAIL) == 1
    finished = [t for t in study.trials if t.state == optuna.trial.TrialState.COMPLETE]
    assert len(finished) >= 12 + running[0].number  # of both workers, and of the dead one what it had finished


def test_a_journal_file_is_shared_too(tmp_path):
    storage = str(tmp_path / "study.journal")
    workers = [worker(storage, 1, 5, 3), worker(storage, 2, 6)]
    assert [process.wait(timeout=120) for process in workers] == [-signal.SIGKILL, 0]
    found = work(storage, 3, 4)
    backend = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(storage))
    trials = optuna.load_study(study_name="lowbit", storage=backend).trials
    assert sum(t.state == optuna.trial.TrialState.COMPLETE for t in trials) >= 10 and found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    work(sys.argv[1], *map(int, sys.argv[2:]))
