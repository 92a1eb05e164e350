"""A run that is asked to stop finishes its step, saves it, and says how to go on; the end is that of an undisturbed run."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file

from csametric.errors import StoppedError
from csametric.training import loop
from csametric.training.reid_task import ReidTask
from csametric.training.stopping import stop_requests
from tests.data import people
from tests.training import tiny_reid


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_step_is_saved_and_the_run_goes_on_to_the_same_weights(tmp_path, monkeypatch, number):
    market = people.write_market(tmp_path / "market")
    experiment = tiny_reid.experiment("market1501", market, "epochs=2", "checkpoint_every=1000")
    loop.train(experiment, tmp_path / "undisturbed")

    loss, calls = ReidTask.loss, []

    def signal_in_the_second_step(self, *arguments):
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return loss(self, *arguments)

    monkeypatch.setattr(ReidTask, "loss", signal_in_the_second_step)
    with pytest.raises(StoppedError, match=rf"stopped by signal {int(number)} at step 2 of \d+; the same command") as stopped:
        loop.train(experiment, tmp_path / "stopped")
    assert stopped.value.signal_number == number
    assert torch.load(tmp_path / "stopped" / "state" / "checkpoint.pt", weights_only=True)["step"] == 2
    monkeypatch.undo()
    loop.train(experiment, tmp_path / "stopped")
    ended, expected = (load_file(tmp_path / name / "weights.safetensors") for name in ("stopped", "undisturbed"))
    assert all(torch.equal(ended[name], tensor) for name, tensor in expected.items())


def test_handlers_are_restored_and_a_second_signal_acts_as_usual(monkeypatch):
    before = signal.default_int_handler
    monkeypatch.setattr(signal, "SIGINT", signal.SIGUSR1)  # test runners ignore SIGINT
    monkeypatch.setattr("csametric.training.stopping.SIGNALS", (signal.SIGUSR1,))
    signal.signal(signal.SIGINT, before)
    with stop_requests() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal_number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_can_train():
    seen = []

    def run():
        with stop_requests() as stop:
            seen.append(stop.signal_number)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [None]


STOPPED = """
import sys
from csametric.cli import app
from csametric.errors import StoppedError

def stop():
    raise StoppedError(15, "stopped by signal 15 at step 3 of 9; the same command goes on from there")

app.app = stop if sys.argv[1] == "term" else (lambda: sys.exit(130))
app.main()
"""


@pytest.mark.parametrize(
    ("how", "status", "words"), [("term", 143, "at step 3 of 9"), ("int", 130, "interrupted; run the same command")]
)
def test_the_command_says_so_and_exits_with_the_signal(how, status, words):
    done = subprocess.run([sys.executable, "-c", STOPPED, how], capture_output=True, text=True, check=False)
    assert done.returncode == status
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
