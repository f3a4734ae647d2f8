import contextvars
import functools
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.errors import PipelineError
from tasks.running.child_process import last_error_line, name_of, run_child, stopping_children
from tasks.running.turns import stop_event

ROOT = Path(__file__).parents[3]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", textwrap.dedent(code)]


def test_every_line_is_handed_over_and_the_whole_output_is_appended_to_the_log(tmp_path):
    log = tmp_path / "new folder" / "trainer.log"
    lines = []
    for _ in range(2):
        run_child(python("print('one'); print('two', end='')"), log=log, on_line=lines.append)
    assert lines == ["one", "two"] * 2
    assert log.read_text() == "one\ntwoone\ntwo"


def test_a_line_comes_while_the_child_still_runs(tmp_path):
    came_after_s = []
    started_s = time.monotonic()
    run_child(
        python("import time; print('first'); time.sleep(3)"),
        log=tmp_path / "log",
        on_line=lambda _: came_after_s.append(time.monotonic() - started_s),
    )
    assert came_after_s[0] < 2.5


def test_redraws_of_a_progress_bar_are_lines_and_bad_bytes_do_no_harm(tmp_path):
    lines = []
    code = r"import sys; sys.stdout.buffer.write(b'10%\r20%\r\nf\xffine\n\n')"
    run_child(python(code), log=tmp_path / "log", on_line=lines.append)
    assert lines == ["10%", "20%", "f�ine"]


def test_standard_error_variables_and_an_empty_standard_input_reach_the_child(tmp_path):
    lines = []
    run_child(
        python("""
            import os, sys
            sys.stderr.write(os.environ["CUDA_VISIBLE_DEVICES"] + repr(sys.stdin.read()))
        """),
        log=tmp_path / "log",
        on_line=lines.append,
        env={"CUDA_VISIBLE_DEVICES": "0,3"},
    )
    assert lines == ["0,3''"]


def test_a_failure_quotes_the_child_s_own_error_and_names_the_log(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(PipelineError) as caught:
        run_child(
            python("""
                import sys
                print("loading")
                sys.stderr.write("error: train.jsonl:7 has no audio; run convert again\\n")
                print("goodbye")
                sys.exit(3)
            """),
            log=log,
            on_line=lambda _: None,
        )
    assert str(caught.value) == (
        f"{Path(sys.executable).name} failed (exit code 3): train.jsonl:7 has no audio; "
        f"run convert again; its output is in {log}"
    )


def test_a_failure_quotes_this_run_and_not_the_run_before(tmp_path):
    log = tmp_path / "log"
    with pytest.raises(PipelineError, match="ValueError: old"):
        run_child(python("raise ValueError('old')"), log=log, on_line=lambda _: None)
    with pytest.raises(PipelineError) as caught:
        run_child(python("import sys; sys.exit(4)"), log=log, on_line=lambda _: None)
    assert "old" not in str(caught.value)


def test_try_again_later_passes_through(tmp_path):
    with pytest.raises(PipelineError) as caught:
        run_child(python("import sys; sys.exit(75)"), log=tmp_path / "log", on_line=print)
    assert caught.value.exit_code == 75


def test_a_killed_child_is_told_from_a_failed_one(tmp_path):
    with pytest.raises(PipelineError, match="ended by SIGKILL, as when memory runs out"):
        run_child(python("import os; os.kill(os.getpid(), 9)"), log=tmp_path / "log", on_line=print)


def test_a_program_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PipelineError, match="cannot start /no/such/torchrun: No such file"):
        run_child(["/no/such/torchrun"], log=tmp_path / "log", on_line=lambda _: None)


def test_the_rank_s_error_is_quoted_not_torchrun_s_summary(tmp_path):
    """torch marks a rank's traceback; the mark was not known, and a line of ==== was quoted."""
    log = tmp_path / "log"
    summary = (
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
        "============================================================\n"
        "  exitcode  : 1 (pid: 99)\n"
        "  traceback : Signal 9 (SIGKILL) received by PID 99\n"
        "============================================================\n"
    )
    log.write_text(
        "[rank1]: Traceback (most recent call last):\n"
        '[rank1]:   File "model/train/trainer.py", line 115, in fit\n'
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n"
        + summary
    )
    assert last_error_line(log) == (
        "[rank1]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB"
    )
    log.write_text(summary)
    assert last_error_line(log) == "traceback : Signal 9 (SIGKILL) received by PID 99"


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["/usr/bin/python3", "-m", "model.run_training", "run.json"], "model.run_training"),
        (
            ["python", "-m", "torch.distributed.run", "-m", "model.run_training"],
            "model.run_training",
        ),
        (["/usr/bin/env"], "env"),
    ],
)
def test_a_command_is_called_by_its_module(command, name):
    assert name_of(command) == name


def test_a_child_that_falls_silent_is_stopped_with_its_ranks(silent_trainer, tmp_path):
    with pytest.raises(PipelineError, match="wrote nothing for 2 s and was stopped as hung"):
        run_child(silent_trainer.command, log=tmp_path / "log", on_line=lambda _: None, silence_s=2)
    silent_trainer.await_death(wait_s=1)


def test_an_error_of_the_caller_stops_the_child(silent_trainer, tmp_path):
    def on_line(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_child(["sh", "-c", 'echo go; exec "$@"', "sh", *silent_trainer.command],
                  log=tmp_path / "log", on_line=on_line)  # fmt: skip
    if silent_trainer.pid_file.exists():
        silent_trainer.await_death(wait_s=1)


def test_ctrl_c_in_the_main_thread_stops_a_silent_child(silent_trainer, tmp_path):
    def interrupt() -> None:
        silent_trainer.pids()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        run_child(silent_trainer.command, log=tmp_path / "log", on_line=lambda _: None)
    silent_trainer.await_death(wait_s=1)


def test_a_child_runs_from_a_thread_as_well(silent_trainer, tmp_path):
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(
            run_child,
            silent_trainer.command,
            log=tmp_path / "log",
            on_line=lambda _: None,
            silence_s=2,
        )
        with pytest.raises(PipelineError, match="as hung"):
            future.result()
    silent_trainer.await_death(wait_s=1)


def start_parent(trainer, tmp_path: Path) -> subprocess.Popen[bytes]:
    """Another process that sits in run_child, and heeds SIGHUP although these tests do not."""
    code = (
        "import signal, sys; from pathlib import Path; "
        "from tasks.running.child_process import run_child; "
        "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # ignored under nohup
        "run_child(sys.argv[2:], log=Path(sys.argv[1]), on_line=print)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log"), *trainer.command]
    return subprocess.Popen(command, cwd=ROOT)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_killed_parent_takes_a_silent_child_and_its_deaf_rank_along(
    number, silent_trainer, tmp_path
):
    parent = start_parent(silent_trainer, tmp_path)
    silent_trainer.pids()
    parent.send_signal(number)
    parent.wait(10)
    silent_trainer.await_death(wait_s=6)


def test_a_killed_supervisor_takes_the_child_along_and_is_reported(silent_trainer, tmp_path):
    """Its rank is the child's own to stop then: torchrun's on SIGTERM, ours by die_with_parent."""

    def kill() -> None:
        os.kill(silent_trainer.pids()[2], signal.SIGKILL)

    threading.Thread(target=kill).start()
    with pytest.raises(PipelineError, match="ended by SIGKILL"):
        run_child(silent_trainer.command, log=tmp_path / "log", on_line=lambda _: None)
    trainer, rank, _ = silent_trainer.pids()
    deadline_s = time.monotonic() + 5
    while os.path.exists(f"/proc/{trainer}") and time.monotonic() < deadline_s:  # noqa: PTH110
        time.sleep(0.1)
    assert not Path(f"/proc/{trainer}").exists()
    os.kill(rank, signal.SIGKILL)


def test_what_the_child_leaves_behind_in_the_background_is_stopped(tmp_path):
    lines = []
    run_child(
        python("""
            import subprocess, sys
            rank = [sys.executable, "-c", "import time; time.sleep(600)"]
            print(subprocess.Popen(rank, start_new_session=True).pid)
        """),
        log=tmp_path / "log",
        on_line=lines.append,
    )
    assert not Path(f"/proc/{lines[0]}").exists()


def test_an_entry_point_dies_with_a_parent_that_is_killed_but_only_under_a_supervisor():
    """A rank whose torchrun was killed -9, in a session of its own."""
    entry = (
        "import time; from storage.host.supervisor import die_with_parent; "
        "die_with_parent(); print('up', flush=True); time.sleep(600)"
    )
    middle = f"""
        import subprocess, sys
        rank = subprocess.Popen([sys.executable, "-c", {entry!r}], stdout=subprocess.PIPE)
        rank.stdout.readline()
        print(rank.pid, flush=True)
        rank.wait()
    """
    for supervised, expected in (({"R1_AQA_SUPERVISED": "1"}, False), ({}, True)):
        parent = subprocess.Popen(
            python(middle), cwd=ROOT, stdout=subprocess.PIPE, env=os.environ | supervised
        )
        assert parent.stdout is not None
        rank = int(parent.stdout.readline())
        parent.kill()
        parent.wait()
        time.sleep(0.5)
        stat = Path(f"/proc/{rank}/stat")
        lives = stat.exists() and b") Z" not in stat.read_bytes()
        if lives:
            os.kill(rank, signal.SIGKILL)
        assert lives is expected


def test_a_signal_to_the_main_thread_stops_the_children_of_other_threads(silent_trainer, tmp_path):
    """Prefect waits for submitted tasks when a signal ends the flow: for ever, on SIGTERM alone."""

    def interrupt() -> None:
        silent_trainer.pids()
        os.kill(os.getpid(), signal.SIGINT)

    with (  # noqa: PT012  the submitting belongs inside, as in a flow
        ThreadPoolExecutor(1) as pool,
        pytest.raises(KeyboardInterrupt),
        stopping_children(),
    ):
        future = pool.submit(
            contextvars.copy_context().run,
            functools.partial(
                run_child, silent_trainer.command, log=tmp_path / "log", on_line=lambda _: None
            ),
        )
        threading.Thread(target=interrupt).start()
        future.result()
    with pytest.raises(PipelineError, match="stopped with its flow while python"):
        future.result()
    silent_trainer.await_death(wait_s=1)


def test_a_flow_in_a_thread_is_stopped_with_the_tasks_that_it_waits_for(tmp_path, silent_trainer):
    stop = threading.Event()

    def flow() -> None:
        stop_event.set(stop)
        with stopping_children():
            run_child(silent_trainer.command, log=tmp_path / "log", on_line=lambda _: None)

    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(contextvars.copy_context().run, flow)
        silent_trainer.pids()
        stop.set()
        with pytest.raises(PipelineError, match="stopped with its flow while python"):
            future.result()
    silent_trainer.await_death(wait_s=1)


def test_one_task_s_failure_does_not_stop_the_others(tmp_path):
    with pytest.raises(ValueError, match="mine"), stopping_children():  # noqa: PT012  inside both
        context = contextvars.copy_context()
        raise ValueError("mine")
    lines = []
    call = functools.partial(
        run_child, python("print('up')"), log=tmp_path / "log", on_line=lines.append
    )
    context.run(call)
    assert lines == ["up"]


@pytest.mark.long
def test_torchrun_s_silent_ranks_die_with_a_killed_parent(tmp_path, monkeypatch):
    """Each rank has a session of its own, so that no signal to a group reaches it."""
    monkeypatch.setenv("R1_AQA_GRACE_S", "2")
    script = tmp_path / "rank.py"
    script.write_text(
        textwrap.dedent(f"""
            import os, signal, time
            from pathlib import Path
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            rank = os.environ["RANK"]
            Path({str(tmp_path)!r}, "part" + rank).write_text(str(os.getpid()))
            Path({str(tmp_path)!r}, "part" + rank).rename(Path({str(tmp_path)!r}, "rank" + rank))
            time.sleep(600)
        """)
    )
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    code = (
        "import sys; from pathlib import Path; from tasks.running.child_process import run_child; "
        "run_child(sys.argv[2:], log=Path(sys.argv[1]), on_line=print)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "log"), sys.executable, *torchrun]
    parent = subprocess.Popen(command, cwd=ROOT)
    files = [tmp_path / "rank0", tmp_path / "rank1"]
    give_up_s = time.monotonic() + 120
    while not all(file.exists() for file in files):
        assert time.monotonic() < give_up_s, (tmp_path / "log").read_text()
        time.sleep(0.2)
    parent.kill()
    parent.wait()
    give_up_s = time.monotonic() + 10
    while any(Path("/proc", file.read_text()).exists() for file in files):
        assert time.monotonic() < give_up_s
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("code", "is_tried_again"),
    [
        ("import no_such_package", False),
        ("len(None)", False),
        ("import sys; sys.exit('error: grpo.reward f fails: ConnectionError: timed out')", False),
        ("raise SystemExit('error: x cannot be loaded (We couldn\\'t connect to hub)')", True),
        ("import os; os.kill(os.getpid(), 9)", True),
        ("raise RuntimeError('CUDA error: uncorrectable ECC error encountered')", True),
        ("raise RuntimeError('CUDA error: device-side assert triggered')", False),
        ("raise ConnectionResetError('Connection reset by peer')", True),
        ("print('[rank1]: TypeError: mine'); raise OSError('Connection closed by peer')", False),
    ],
)
def test_only_what_may_pass_by_itself_is_tried_again(tmp_path, code, is_tried_again):
    """A missing wandb was found after the 7B was loaded, three times."""
    with pytest.raises(PipelineError) as caught:
        run_child(python(code), log=tmp_path / "log", on_line=lambda _: None)
    assert caught.value.is_transient is is_tried_again
