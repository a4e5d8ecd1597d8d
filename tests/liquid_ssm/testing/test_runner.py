"""Backends that do what they should not, each in a process of its own, and the run goes on."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from liquid_ssm.errors import ParameterError
from liquid_ssm.testing import runner as module
from liquid_ssm.testing.runner import Outcome, Runner
from liquid_ssm.testing.suite import Check

CHECK = Check("within-bound", "liquid", "diagonal", "float64")
AGAIN = Check("repeatability", "liquid", "diagonal", "float64")
POSIX = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

FAULTY = """
import os, subprocess, sys, time
from pathlib import Path
import numpy as np

calls = 0
spoilt = []

def loop():
    while True:
        time.sleep(0.01)

class Faulty:
    scan_order = "sequential"

    def scan(self, a, b, c, u, state):
        global calls
        calls += 1
        do = Path("behaviour.txt").read_text()
        x = np.zeros((len(u), *a.shape), a.dtype) if state is None else state
        y = np.zeros_like(u)
        for k in range(u.shape[-1]):
            w = b * u[..., k, None]
            x = (a + w) * x + w
            y[..., k] = 2 * (c * x).sum(axis=-1).real
        if not u.any():
            return y, x
        if do == "raise":
            raise LookupError("no such block")
        if do == "leave":
            sys.exit(5)
        if do == "sleep":
            loop()
        if do == "crash":
            print("no memory left")
            os._exit(3)
        if do == "abort":
            os.abort()
        if do == "shape":
            return y[..., :-1], x
        if do == "dtype":
            return y.astype(np.float32), x
        if do == "nan":
            return y * np.nan, x
        if do == "inf":
            return y + np.inf, x
        if do == "list":
            return y.tolist(), x
        if do == "one":
            return y
        if do == "write u":
            u[:] = 0
        if do == "write a":
            a += 1
        if do == "write state":
            state = None if state is None else state.fill(0)
        if do == "noise":
            y = y + (calls % 2)
        if do == "once" and not spoilt:
            y = y + 1
            spoilt.append(True)
        if do == "print":
            print('{"status": "pass"}', flush=True)
            sys.__stdout__.write("not JSON\\n")
            os.write(1, b"not JSON either\\n")
            subprocess.run([sys.executable, "-c", "print('nor this')"])
        if do == "shout":
            for _ in range(20):
                print("x" * 100_000, file=sys.stderr)
        if do == "close":
            sys.stderr.close()
        if do == "ask":
            input("? ")
        if do == "fork":
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path("child.txt").write_text(str(child.pid))
            os._exit(3)
        return y, x
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The working directory of the backends."""
    path = tmp_path_factory.mktemp("adapters")
    (path / "faulty.py").write_text(FAULTY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")
        patch.delenv("PYTHONUNBUFFERED", raising=False)
        yield path


@pytest.fixture(scope="module")
def faulty(folder):
    with Runner("faulty:Faulty") as running:
        assert isinstance(running.load(), list)
        yield running


@pytest.fixture
def tried(faulty, folder, monkeypatch):
    """Runs a check while the backend behaves in some way; afterwards the next check must pass."""

    def call(behaviour, check=CHECK, time_limit=60.0, max_examples=8):
        monkeypatch.setattr(faulty, "time_limit", time_limit)
        (folder / "behaviour.txt").write_text(behaviour)
        return faulty.run(check, max_examples)

    yield call
    outcome = call("")
    assert outcome.status == "pass"
    assert outcome.examples == 24  # three times as many of this property


def test_a_good_backend_passes(tried):
    outcome = tried("")
    assert (outcome.check, outcome.status, outcome.kind, outcome.message) == (CHECK, "pass", "", "")
    assert 0 < outcome.seconds < 60


@pytest.mark.parametrize(
    ("behaviour", "kind", "said"),
    [
        ("raise", "raised", "scan raised LookupError: no such block (faulty.py, line "),
        ("leave", "raised", "scan raised SystemExit: 5 (faulty.py, line "),
        ("ask", "raised", "scan raised EOFError: EOF when reading a line (faulty.py, line "),
        ("shape", "shape", "y of scan has shape"),
        ("dtype", "dtype", "y of scan has dtype float32; expected float64"),
        ("nan", "not finite", "y of scan is nan at index"),
        ("inf", "not finite", "y of scan is inf at index"),
        ("list", "type", "y of scan is a builtins.list, not a NumPy array"),
        ("one", "type", "scan returned ndarray; expected the pair (y, final_state)"),
        ("write u", "mutated", "scan wrote into its argument u"),
        ("write a", "mutated", "scan wrote into its argument a"),
    ],
)
def test_a_broken_contract_is_told_with_an_example(tried, behaviour, kind, said):
    outcome = tried(behaviour)
    assert (outcome.status, outcome.kind) == ("fail", kind)
    assert outcome.message.startswith("within-bound: y is within its derived error bound of the exact value.\n")
    assert said in outcome.message
    assert "\nexample: mode liquid, diagonal, float64, conjugate_pairs=" in outcome.message
    assert outcome.examples > 0


def test_a_state_that_is_written_to(tried):
    outcome = tried("write state", Check("initial-state", "liquid", "diagonal", "float64"))
    assert (outcome.status, outcome.kind) == ("fail", "mutated")
    assert "scan wrote into its argument state" in outcome.message


def test_results_that_change_from_call_to_call(tried):
    outcome = tried("noise", AGAIN)
    assert (outcome.status, outcome.kind) == ("fail", "violated")
    assert "y differs from y of a second call" in outcome.message
    outcome = tried("once")
    assert (outcome.status, outcome.kind) == ("fail", "not repeatable")
    assert "failed once and passed, or failed in another way, when the same example" in outcome.message
    assert "times its bound" in outcome.message


@pytest.mark.parametrize("behaviour", ["print", "shout", "close"])
def test_what_is_printed_does_not_disturb(tried, behaviour):
    assert tried(behaviour, AGAIN, max_examples=2).status == "pass"


def test_a_hang_is_told_with_its_place(tried):
    started = time.monotonic()
    outcome = tried("sleep", time_limit=1.0)
    assert time.monotonic() - started < module._GRACE  # it left by itself
    assert (outcome.status, outcome.kind, outcome.seconds) == ("fail", "hang", 1.0)
    first, _, *frames = outcome.message.partition("\nexample: ")[0].splitlines()
    assert first == "within-bound: did not finish within 1 s."
    assert [line.split(", line ")[0].rpartition(os.sep)[2] for line in frames] == ['faulty.py"', 'faulty.py"']
    assert [line.rpartition(" in ")[2] for line in frames] == ["loop", "scan"]
    assert "\nexample: mode liquid, diagonal, float64" in outcome.message


def test_a_crash_is_told_with_its_last_words(tried):
    outcome = tried("crash")
    assert (outcome.status, outcome.kind) == ("fail", "crash")
    assert outcome.message.startswith("within-bound: the process died with exit code 3.\nits last words:\n")
    # Before them the same process may have said other things, in another test.
    assert "\nno memory left\nexample: mode liquid" in outcome.message


@POSIX
def test_a_crash_by_a_signal_is_told_by_its_name(tried):
    outcome = tried("abort")
    assert (outcome.status, outcome.kind) == ("fail", "crash")
    assert outcome.message.startswith("within-bound: the process died of SIGABRT.")


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "XZ"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks into /proc")
def test_processes_of_the_backend_end_with_it(tried, folder):
    assert tried("fork").kind == "crash"
    pid = int((folder / "child.txt").read_text())
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.01)
    assert not alive(pid)


def test_after_some_hangs_the_limit_is_cut(faulty, folder, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 2)
    monkeypatch.setattr(faulty, "hangs", 0)
    monkeypatch.setattr(faulty, "time_limit", 0.8)
    (folder / "behaviour.txt").write_text("sleep")
    outcomes = [faulty.run(CHECK, 5) for _ in range(3)]
    assert [o.kind for o in outcomes] == ["hang"] * 3
    assert [o.seconds for o in outcomes] == pytest.approx([0.8, 0.8, 0.08])
    assert "did not finish within 0.08 s" in outcomes[2].message


def test_loading(write, folder):
    with Runner("faulty:Faulty") as running:
        assert running.name == "faulty:Faulty"
        found = running.load()
        assert running.name == "Faulty"
    assert isinstance(found, list)
    assert {type(c) for c in found} == {Check}
    assert CHECK in found


def test_a_target_that_is_no_backend(folder):
    (folder / "nothing.py").write_text("")
    with Runner("nothing:Missing") as running, pytest.raises(ParameterError, match="'nothing' has no 'Missing'"):
        running.load()


def test_packages_that_a_backend_misses(folder):
    (folder / "needy.py").write_text(
        "from liquid_ssm.backend import Backend, Capabilities\n"
        "class Needy(Backend):\n"
        "    name, requires, install = 'needy', ('no_such_package',), 'Run: pip install no-such-package'\n"
        "    capabilities = Capabilities(primitives={'scan': ('diagonal',)})\n"
    )
    said = "needy:Needy needs no_such_package, which is not installed. Run: pip install no-such-package"
    with Runner("needy:Needy") as running, pytest.raises(ParameterError, match=said):
        running.load()


def test_an_import_that_hangs(folder):
    (folder / "endless.py").write_text("import time\ntime.sleep(600)\n")
    with Runner("endless:Class", time_limit=0.5) as running:
        outcome = running.load()
    assert isinstance(outcome, Outcome)
    assert (outcome.status, outcome.kind) == ("fail", "hang")
    assert outcome.message.startswith("load: did not finish within 0.5 s.\nit was in (innermost first):\n  File ")
    assert 'endless.py", line 2 in <module>' in outcome.message


def test_a_backend_that_can_be_loaded_only_once(folder):
    (folder / "behaviour.txt").write_text("crash")
    (folder / "once.py").write_text(FAULTY + "Path('once.txt').touch(exist_ok=False)\n")
    with Runner("once:Faulty") as running:
        running.load()
        assert running.run(CHECK, 5).kind == "crash"
        outcome = running.run(CHECK, 5)
        assert (outcome.status, outcome.kind) == ("fail", "crash")
        assert "it cannot be loaded again: cannot import 'once': FileExistsError" in outcome.message
        (folder / "once.txt").unlink()
        (folder / "behaviour.txt").write_text("")
        assert running.run(CHECK, 5).status == "pass"


def test_an_import_that_crashes_while_the_run_goes_on(folder):
    (folder / "behaviour.txt").write_text("crash")
    (folder / "later.txt").unlink(missing_ok=True)
    (folder / "later.py").write_text(FAULTY + "if Path('later.txt').exists(): os._exit(7)\nPath('later.txt').touch()\n")
    with Runner("later:Faulty") as running:
        running.load()
        assert "exit code 3" in running.run(CHECK, 5).message
        outcome = running.run(CHECK, 5)
    assert (outcome.check, outcome.status, outcome.kind) == (CHECK, "fail", "crash")
    assert outcome.message.startswith("load: the process died with exit code 7.")


def test_nothing_is_left_behind(folder):
    before = set(folder.iterdir())
    running = Runner("faulty:Faulty")
    running.load()
    process, storage = running._process, Path(running._folder.name)
    assert storage.is_dir()
    running.close()
    running.close()
    assert process.poll() is not None
    assert process.stdin.closed
    assert process.stdout.closed
    assert not storage.exists()
    assert set(folder.iterdir()) == before


@pytest.mark.parametrize("limit", [0, -1, 1e-3, float("nan"), float("inf")])
def test_limits_that_no_timer_takes(limit):
    with pytest.raises(ParameterError, match=r"time_limit is .*; it must be from 0.01 to 1e\+06 seconds"):
        Runner("faulty:Faulty", time_limit=limit)


@pytest.mark.parametrize("threads", ["", 'Thread 0x1 (most recent call first):\n  File "other.py", line 1 in wait\n\n'])
def test_the_place_is_that_of_the_thread_that_runs_the_suite(threads):
    ours = f'  File "{Path(module.__file__).parent}{os.sep}adapter.py", line 1 in _call\n'
    mine = f'Thread 0x2 (most recent call first):\n  File "mine.py", line 3 in scan\n{ours}'
    printed = f'Timeout (0:00:09)!\n  File "printed.py", line 3 in scan\n{ours}'
    said = f"{printed}Timeout (0:00:01.500000)!\n{threads}{mine}"
    assert module._where(said) == ["it was in (innermost first):", '  File "mine.py", line 3 in scan']


def test_a_place_so_deep_that_the_suite_is_cut_off():
    frames = "".join(f'  File "mine.py", line {i} in deeper\n' for i in range(100))
    said = f"Timeout (0:00:01)!\nThread 0x2 (most recent call first):\n{frames}  ...\n"
    assert len(module._where(said)) == 11
    assert module._where("Timeout (0:00:01)!\n") == []
