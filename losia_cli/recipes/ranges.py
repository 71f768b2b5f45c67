"""Values of the right type that no run can work with."""

import math
from typing import Any

from losia_cli.evaluation.suites import parse_limit

_AT_LEAST_1 = (
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "cutoff_len",
    "max_samples",
    "lora_rank",
    "galore_rank",
    "galore_update_interval",
    "preprocessing_num_workers",
    "eval_limit",
)
_AT_LEAST_0 = (
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
    "warmup_ratio",
    "adam_epsilon",
    "logging_steps",
    "save_steps",
    "eval_steps",
    "dataloader_num_workers",
)
_ABOVE_0 = ("learning_rate", "num_train_epochs", "eval_temperature")
_BELOW_1 = ("adam_beta1", "adam_beta2", "lora_dropout", "label_smoothing_factor")
# Key -> the lowest value, the highest, and how the range is said.
_RANGES = {
    **dict.fromkeys(_AT_LEAST_1, (1, math.inf, "at least 1")),
    **dict.fromkeys(_AT_LEAST_0, (0, math.inf, "at least 0")),
    **dict.fromkeys(_BELOW_1, (0, math.nextafter(1, 0), "at least 0 and below 1")),
    **dict.fromkeys(_ABOVE_0, (math.nextafter(0, 1), math.inf, "above 0")),
    "eval_top_p": (math.nextafter(0, 1), 1, "above 0 and at most 1"),
}


def out_of_range(key: str, value: Any) -> str | None:
    """What a recipe's `value`, of the right type, must be; None where a run can work with it."""
    if key.startswith("losia_"):
        return _refused_by_the_method(key.removeprefix("losia_"), value)
    if key == "eval_limit" and isinstance(value, str) and not _is_limit(value):
        return f'must be a whole number or a share such as "10%", not {value!r}'
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return f"must be a finite number, not {value}"
    if key == "max_steps" and value < 1 and value != -1:
        return f"must be at least 1, or -1 for num_train_epochs to decide, not {value}"
    lowest, highest, said = _RANGES.get(key, (-math.inf, math.inf, ""))
    return None if lowest <= value <= highest else f"must be {said}, not {value}"


def _is_limit(text: str) -> bool:
    try:
        number, percent = parse_limit(text)
    except ValueError:
        return False
    return number > 0 and (number <= 1 or not percent)


def _refused_by_the_method(name: str, value: Any) -> str | None:
    from losia_cli.method.config import LoSiAConfig, LoSiAError

    try:
        LoSiAConfig(**{name: value})
    except LoSiAError as error:
        return str(error).removeprefix(f"{name} ")
    return None
