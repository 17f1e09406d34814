"""Signals ask politely the first time."""

import os
import signal
import time

import pytest

from cmid.train import Interrupted
from cmid.train.interrupts import TWICE_S, Interrupts


def test_a_signal_that_comes_twice_at_once_is_one_request():
    with Interrupts() as interrupts:
        for _ in range(2):  # one of them passed on by what started the run
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
        assert interrupts.requested == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            time.sleep(TWICE_S)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)


def test_a_second_signal_stops_at_once():
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
        assert interrupts.requested == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(1)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert Interrupted("x", signal.SIGINT).exit_code == 130
