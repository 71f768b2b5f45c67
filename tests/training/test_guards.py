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
