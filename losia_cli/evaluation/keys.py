"""A recipe's keys of what is evaluated after training, and how; `losia eval` reads them too."""

from typing import Any, Literal

EVALUATION_KEYS: dict[str, Any] = {
    "eval_suites": list[str],
    "eval_data": str,
    "eval_limit": int | str,
    "eval_dtype": Literal["auto", "float32", "bfloat16", "float16"],
    "eval_allow_code": bool | Literal["unsandboxed"],
    "eval_temperature": float,
    "eval_top_p": float,
}
