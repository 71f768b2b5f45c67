"""LoSiA as a library: `attach` it to a model, make an optimizer, `drive` it, `start`, train."""

from losia_cli.method.chunked_loss import use_chunked_loss
from losia_cli.method.config import LoSiAConfig, LoSiAError
from losia_cli.method.controller import LoSiAController, Selection, attach

__all__ = [
    "LoSiAConfig",
    "LoSiAController",
    "LoSiAError",
    "Selection",
    "attach",
    "use_chunked_loss",
]
