"""A process of actors stops at a signal, whatever its main thread does when the signal arrives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def run(body: str) -> subprocess.CompletedProcess[str]:
    script = f"import signal, sys, threading\nfrom actors.framework.stop_signals import StopSignals\n{body}"
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_stops_the_process_even_when_it_interrupts_no_call_of_the_main_thread(number: str) -> None:
    # A signal that another thread receives interrupts no call of the main thread. Nor does a signal that arrives just
    # before the main thread blocks, but a test cannot time that.
    done = run(
        f"""
stop = StopSignals()
def take_signal():
    signal.pthread_kill(threading.get_ident(), signal.{number})
threading.Timer(0.2, take_signal).start()
stop.wait()
print("stopped")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_a_signal_that_arrived_before_the_main_thread_waits_is_not_lost() -> None:
    done = run("stop = StopSignals()\nsignal.raise_signal(signal.SIGTERM)\nstop.wait()\nprint('stopped')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "stopped\n", "")


def test_any_thread_can_end_the_process() -> None:
    done = run("stop = StopSignals()\nthreading.Timer(0.1, stop.end).start()\nstop.wait()\nprint('ended')")
    assert (done.returncode, done.stdout, done.stderr) == (0, "ended\n", "")


def test_another_signal_runs_its_handler_and_stops_nothing() -> None:
    done = run(
        """
stop = StopSignals()
def dump(*_):
    print("dumped")
    stop.end()
signal.signal(signal.SIGUSR1, dump)
threading.Timer(0.1, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)).start()
stop.wait()
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "dumped\n", "")
