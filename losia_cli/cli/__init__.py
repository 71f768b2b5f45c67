"""The `losia` command: each module here is one command and only parses, calls and prints."""

import logging
import os
import sys
import traceback
import warnings

import typer

from losia_cli.cli import (  # noqa: F401
    analyze,
    bench,
    chat,
    data,
    doctor,
    eval,
    merge,
    quickstart,
    recipes,
    reproduce,
    train,
)
from losia_cli.cli.app import app
from losia_cli.errors import TRACEBACK, UserError


def main() -> None:
    """Run the command; a `UserError` becomes one line on standard error and exit code 2."""
    _quieten_libraries()
    _put_cudnn_last()
    try:
        app(args=eval.spelled_out(sys.argv[1:]))
    except UserError as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exception(error)
        typer.secho(f"losia: {error}", err=True, fg="red")
        sys.exit(2)


def _quieten_libraries() -> None:
    """Warnings only, unless the user's environment asks for more; no bars where none can show."""
    os.environ.setdefault("LLAMAFACTORY_VERBOSITY", "WARN")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # asks for a kernel nobody needs
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated", module="jieba")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        os.environ.setdefault("TQDM_DISABLE", "1")


def _put_cudnn_last() -> None:
    """Torch 2.11's first attention on an H100 comes after the others, unless the user says else.

    It gives NaN in the gradient of some padded batches (pytorch/pytorch#196678) and makes a plan
    for every new shape, of which decoding has one at each token. Read at the first attention.
    """
    os.environ.setdefault("TORCH_CUDNN_SDPA_DEPRIORITIZED", "1")
