"""Signals while a training runs."""

import signal

from losia_cli.training.guards import StopOnInterrupt


def test_a_training_that_begins_again_gives_the_signals_back_as_they_were():
    before = signal.getsignal(signal.SIGINT)
    listening = StopOnInterrupt()
    listening.on_train_begin()
    assert signal.getsignal(signal.SIGINT) != before
    listening.on_train_begin()
    listening.release()
    assert signal.getsignal(signal.SIGINT) == before


def test_a_terminal_that_goes_away_asks_once_unless_it_is_ignored():
    before = signal.getsignal(signal.SIGHUP)
    try:
        for handler, asked in ((signal.SIG_DFL, True), (signal.SIG_IGN, False)):
            signal.signal(signal.SIGHUP, handler)
            listening = StopOnInterrupt()
            listening.on_train_begin()
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGHUP)  # the second stops nothing at once
            listening.release()
            assert listening._asked is asked
            assert signal.getsignal(signal.SIGHUP) is handler
    finally:
        signal.signal(signal.SIGHUP, before)
