"""What goes wrong while training ends with one sentence and loses nothing that was saved; so does tools/soak."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from training.tiny import TINY, assert_same_bits, position, weights

from ganfast import Trainer, cli, terminal
from ganfast.errors import InputError
from ganfast.recipes import DCGAN, R3GAN, WGANGP
from ganfast.training import TrainOptions, checkpoint, faults, pictures, run_directory
from ganfast.training.step import Step

ROOT = Path(__file__).resolve().parents[2]


def poisoned(trainer, when):
    """Weights become NaN before a step where ``when()``."""
    advance = trainer.advance

    def hurt():
        if when():
            with torch.no_grad():
                next(trainer.state.networks["D"].parameters()).fill_(torch.nan)
        advance()

    trainer.advance = hurt
    return trainer


def names(run):
    return [path.name for path in checkpoint.all_in(run)]


# -- a loss that is no number ------------------------------------------------------------------------------------------


def test_a_rollback_goes_on_from_the_checkpoint_with_other_data_and_noise(tiny, monkeypatch):
    trainer = poisoned(tiny(steps=9, on_nan="rollback"), lambda: position(trainer) == 6 * 8)
    restore, moment = trainer.restore, {}

    def watched(state):
        restore(state)
        moment.update(position=position(trainer), noise=trainer.state.noise.get_state(), step=trainer.step)

    monkeypatch.setattr(trainer, "restore", watched)
    run = trainer.train(progress=False)
    monkeypatch.undo()
    assert moment["step"] == 4 and moment["position"] == 8 * 8  # step 7 failed, and the row of step 8 told
    assert position(trainer) == (8 + 5) * 8

    by_hand = tiny(steps=9, resume=str(run / "checkpoint-000004"))
    assert not torch.equal(by_hand.state.noise.get_state(), moment["noise"])
    by_hand.state.loaders[0].position = moment["position"]
    by_hand.state.noise.set_state(moment["noise"])
    by_hand.train(progress=False)
    assert_same_bits(weights(by_hand), weights(trainer))

    rows = run_directory.read_stats(run)
    assert [row["step"] for row in rows] == list(range(1, 10)) and rows[-1]["images"] == (8 + 5) * 8
    assert [row.get("rollbacks") for row in rows] == [None] * 4 + [1] * 5
    tiny(steps=10, resume=str(run), on_nan="rollback").train(progress=False)
    assert run_directory.read_stats(run)[-1]["rollbacks"] == 1
    log = (run / "log.txt").read_text()
    assert "no longer finite at step 7: going on from" in log and "other noise (rollback 1 of this run)" in log


@pytest.mark.parametrize("recipe", [WGANGP, R3GAN])
def test_penalties_that_look_at_the_scores_do_not_stand_in_the_way(recipe, tmp_path):
    """On a CPU they raise on what is not finite."""
    options = {**TINY, "steps": 9, "outdir": str(tmp_path), "on_nan": "rollback"}
    trainer = Trainer(recipe(width=2, latent_dim=3, d_steps=2), "digits", **options)
    poisoned(trainer, lambda: position(trainer) == 2 * 6 * 8).train(progress=False)
    assert trainer.state.rollbacks["count"] == 1 and trainer.step == 9
    rows = run_directory.read_stats(trainer.run)
    assert len(rows) == 9 and rows[-1]["rollbacks"] == 1


def test_rollbacks_that_do_not_help_end(tiny):
    trainer = poisoned(tiny(steps=50, on_nan="rollback"), lambda: trainer.step == 6)
    with pytest.raises(InputError, match="3 rollbacks did not get past it: start a new run with a smaller --lr"):
        trainer.train(progress=False)
    assert trainer.state.rollbacks["count"] == 3 and names(trainer.run) == ["checkpoint-000004"]
    with pytest.raises(InputError, match=r"has failed: make another one \(resume="):
        trainer.train(progress=False)


def test_a_rollback_that_got_further_begins_to_count_again(tiny):
    failures = iter([6, 6, 6, 7, 7, 7])
    due = [next(failures)]

    def when():
        if trainer.step != due[0] or not next(trainer.state.networks["D"].parameters()).isfinite().all():
            return False
        due[0] = next(failures, -1)
        return True

    trainer = poisoned(tiny(steps=12, on_nan="rollback", log_every=1), when)
    trainer.train(progress=False)
    assert trainer.step == 12 and trainer.state.rollbacks["count"] == 6


def test_weights_that_are_no_numbers_are_not_saved(tiny):
    """Found where the losses have not told: at the checkpoint itself."""
    trainer = tiny(steps=50, log_every=100)
    advance = trainer.advance

    def hurt():
        advance()
        if trainer.step == 8:
            trainer.state.averages["G"].layers[0].bn.running_mean.fill_(torch.inf)

    trainer.advance = hurt
    with pytest.raises(InputError, match=r"a weight is no longer finite at step 8.*--on-nan rollback"):
        trainer.train(progress=False)
    assert names(trainer.run) == ["checkpoint-000004"]


# -- memory ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_for_a_step_says_what_to_lower(tiny, monkeypatch, error):
    def lacking(self, due):
        raise error

    monkeypatch.setattr(Step, "__call__", lacking)
    trainer = tiny(steps=3, batch=64)
    with pytest.raises(InputError, match=r"not enough memory on cpu for a step of batch 64: lower --batch, --width"):
        trainer.train(progress=False)
    assert "Stopped: there is not enough memory" in (trainer.run / "log.txt").read_text()


def test_too_little_memory_later_says_how_to_go_on(tiny, monkeypatch):
    """A capture that lacks memory fails with an error that came of it."""
    trainer = tiny(steps=9, sample_every=6)
    sample = trainer.sample

    def lacking(monitor):
        if trainer.step == 6:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory")
            except RuntimeError as error:
                raise InputError("the step cannot be captured") from error
        sample(monitor)

    trainer.sample = lacking
    with pytest.raises(InputError, match=r"memory on cpu: lower --batch.*go on from checkpoint-000004 with: ganfast"):
        trainer.train(progress=False)
    monkeypatch.setattr(DCGAN, "networks", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(InputError, match="not enough memory for the networks and the data: lower --width"):
        tiny()


# -- files -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, remedy", [(errno.ENOSPC, "make room"), (errno.EROFS, "make it writable")])
def test_a_picture_that_cannot_be_written_stops_the_run(tiny, monkeypatch, number, remedy):
    trainer = tiny(steps=9, sample_every=6)
    write = pictures.write_png

    def full(path, picture):
        if trainer.step == 6:
            raise OSError(number, os.strerror(number), str(path))
        write(path, picture)

    monkeypatch.setattr(pictures, "write_png", full)
    with pytest.raises(
        InputError, match=rf"fakes-000006.png cannot be written .*: {remedy}, then go on from checkpoint-"
    ):
        trainer.train(progress=False)
    monkeypatch.undo()
    resumed, whole = tiny(steps=9, resume=str(trainer.run)), tiny(steps=9)
    resumed.train(progress=False), whole.train(progress=False)
    assert_same_bits(weights(resumed), weights(whole))


def test_an_unreadable_checkpoint_is_passed_over(tiny, monkeypatch):
    run = tiny(steps=8).train(progress=False)
    real = checkpoint.sha256

    def refused(path):
        if path.parent.name == "checkpoint-000008" and path.name == "state.pt":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(checkpoint, "sha256", refused)
    resumed = tiny(steps=9, resume=str(run))
    assert resumed.step == 4 and "Permission denied" in next(iter(resumed.resumed.damaged.values()))


def test_damage_twice_at_the_same_step(tiny):
    run = tiny(steps=8).train(progress=False)
    for times in (1, 2):
        (run / "checkpoint-000008" / "state.pt").write_bytes(b"")
        assert tiny(steps=8, resume=str(run)).train(progress=False) == run
        assert len(list(run.glob("damaged-checkpoint-000008*"))) == times
    assert names(run) == ["checkpoint-000004", "checkpoint-000008"]


def test_a_checkpoint_in_the_way_is_not_deleted(tiny):
    trainer = tiny(steps=4)
    run = trainer.train(progress=False)
    trainer.saver.saved = None
    trainer.saver.save(trainer.state)
    assert names(run) == ["checkpoint-000004"] and (run / "replaced-checkpoint-000004" / "state.pt").exists()


def test_leftovers_of_a_killed_process_go(tiny):
    run = tiny(steps=4).train(progress=False)
    (run / ".stats.jsonl.partial").write_text("{")
    (run / ".partial-checkpoint-000008").mkdir()
    tiny(steps=5, resume=str(run)).train(progress=False)
    assert not [path.name for path in run.iterdir() if "partial" in path.name]


def test_the_data_of_a_resumed_run_has_moved(tiny):
    run = tiny(steps=4).train(progress=False)
    with pytest.raises(InputError, match=r"gone.npy: no such file.*; .* was trained on it: say where it is \(--data\)"):
        tiny(steps=5, resume=str(run), data="gone.npy")


# -- two at once -------------------------------------------------------------------------------------------------------


def test_numbers_of_runs_started_at_once(tmp_path):
    code = "import sys; from pathlib import Path; from ganfast.training import run_directory as r; sys.stdin.read(1)\n"
    code += "for _ in range(20): print(r.create(Path(sys.argv[1]), 'x').name)"
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    made = [name for process in processes for name in process.communicate(b"x")[0].split()]
    assert len(made) == len(set(made)) == 60


def test_one_run_is_trained_by_one_process(tiny, monkeypatch):
    monkeypatch.setattr(run_directory, "PATIENCE", 0.1)
    run = tiny(steps=4).train(progress=False)
    log = (run / "log.txt").read_text()
    with run_directory.locked(run) as warning:
        assert warning == ""
        with pytest.raises(InputError, match=rf"is being trained by process {os.getpid()} on .*: wait until"):
            tiny(steps=9, resume=str(run)).train(progress=False)
    assert (run / "log.txt").read_text() == log and names(run) == ["checkpoint-000004"]
    late = tiny(steps=9, resume=str(run))
    assert late.choose_run() == run
    late.choose_run = lambda: run
    tiny(steps=6, resume=str(run)).train(progress=False)
    with pytest.raises(InputError, match="was trained on by another process"):
        late.train(progress=False)


def test_a_file_system_without_locks_says_so(tmp_path, monkeypatch):
    import fcntl

    def unsupported(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    with run_directory.locked(tmp_path) as warning:
        assert "No locks available" in warning


# -- terminals ---------------------------------------------------------------------------------------------------------


class Gone:
    encoding = "utf-8"

    def write(self, text=""):
        raise BrokenPipeError(32, "Broken pipe")

    flush = fileno = write

    def isatty(self):
        return False


def test_a_terminal_that_is_gone_ends_nothing(tiny, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Gone())
    run = tiny(steps=3).train(progress=True)
    assert "Done: 3 steps" in (run / "log.txt").read_text()
    watched = terminal.Watched()
    assert watched.write("x") is None and watched.stream is None and not watched.isatty()
    assert cli.main(["train", "dcgan", "--data", "nowhere"]) == 2


def test_standard_streams_that_are_closed(tmp_path):
    """Their numbers must not go to the next file that is opened."""
    command = f'exec >&- 2>&- <&-; {sys.executable} -c "{{}}" '
    code = "from ganfast import terminal; terminal.open_streams(); print('é'); "
    code += f"f = open('{tmp_path}/x', 'w'); f.write(str(f.fileno()))"
    subprocess.run(["sh", "-c", command.format(code)], check=True)
    assert int((tmp_path / "x").read_text()) > 2


def test_other_threads_errors_are_still_shown(monkeypatch):
    shown = []
    monkeypatch.setattr(threading, "excepthook", lambda args: shown.append(args.exc_type))

    def fail(error):
        raise error

    with faults.quiet_writers():
        for error in (OSError(28, "full"), KeyError("shown")):
            thread = threading.Thread(target=fail, args=(error,))
            thread.start(), thread.join()
    assert shown == [KeyError]


def test_on_nan_may_change_when_a_run_goes_on(tiny):
    run = tiny(steps=4).train(progress=False)
    assert tiny(steps=5, resume=str(run), on_nan="rollback").step == 4
    assert TrainOptions(data="digits").on_nan == "stop"
