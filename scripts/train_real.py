"""SmolLM2-135M on real GSM8K rows: held-out loss curves of LoSiA-Pro, LoRA and full fine-tuning.

    python scripts/train_real.py [--data FILE] [--steps N] [--output DIR]

The rows come from FILE, in the original columns, else from the hub's openai/gsm8k. Each method is
one `losia train` in a process of its own, kept in the output folder: started again, the script does
only what is missing. Writes docs/benchmarks/train-real.json and .png.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from losia_cli.files import sha256
from losia_cli.quickstart.compare import lora_rank
from losia_cli.quickstart.model import prepare_base_model
from losia_cli.recipes import override

ROOT = Path(__file__).resolve().parent.parent
METHODS = {
    "LoSiA-Pro": ("losia-pro", 1e-3),
    "LoRA, as many parameters": ("lora", 1e-3),
    "full fine-tuning": ("full", 3e-5),
}


def main() -> None:
    """Train what is missing, then write the figures and the plot."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--output", type=Path, default=ROOT / "runs/train-real")
    parser.add_argument("--report", type=Path, default=ROOT / "docs/benchmarks")
    options = parser.parse_args()
    base = prepare_base_model()
    rows = sha256(options.data) if options.data else "the hub's"
    data = register(options.data, options.output / "data")
    results = {}
    for name, (overlay, rate) in METHODS.items():
        folder = options.output / overlay
        known = folder / "rows.txt"
        same = known.is_file() and known.read_text() == rows
        if not same or steps_of(folder) != options.steps:
            train(base, data, folder, overlay, rate, options.steps)
            known.write_text(rows)
        results[name] = read(folder)
    options.report.mkdir(parents=True, exist_ok=True)
    (options.report / "train-real.json").write_text(json.dumps(results, indent=1) + "\n")
    plot(results, options.report / "train-real.png")


def register(source: Path | None, folder: Path) -> Path:
    """A LLaMA-Factory dataset folder with GSM8K in it."""
    folder.mkdir(parents=True, exist_ok=True)
    entry: dict[str, Any] = {"columns": {"prompt": "question", "response": "answer"}}
    if source is None:
        entry |= {"hf_hub_url": "openai/gsm8k", "subset": "main"}
    else:
        entry["file_name"] = str(source.resolve())
    (folder / "dataset_info.json").write_text(json.dumps({"gsm8k": entry}))
    return folder


def train(base: Path, data: Path, folder: Path, overlay: str, rate: float, steps: int) -> None:
    """One `losia train` of 2 rows a step, padded about 512 tokens; held-out loss now and then."""
    changes: dict[str, Any] = {
        "model_name_or_path": base,
        "dataset_dir": data,
        "dataset": "gsm8k",
        "output_dir": folder,
        "max_steps": steps,
        "per_device_train_batch_size": 2,
        "cutoff_len": 512,
        "learning_rate": rate,
        "val_size": 48,
        "eval_strategy": "steps",
        "eval_steps": 50,
        "eval_on_start": True,
        "per_device_eval_batch_size": 8,
        "overwrite_output_dir": True,
    }
    if overlay.startswith("losia"):
        changes["losia_period"] = 10
    if overlay == "lora":
        rank = lora_rank(str(base))
        changes |= {"lora_rank": rank, "lora_alpha": 2 * rank}
    pairs = [override(key, value) for key, value in changes.items()]
    command = [sys.executable, "-m", "losia_cli", "train", "quickstart", *pairs]
    subprocess.run([*command, "--method", overlay], check=True)


def steps_of(folder: Path) -> int | None:
    """How many steps a finished run was asked for."""
    path = folder / "losia_run.json"
    return json.loads(path.read_text())["recipe"]["max_steps"] if path.is_file() else None


def read(folder: Path) -> dict[str, Any]:
    """The curve and the figures of a finished run."""
    record = json.loads((folder / "losia_run.json").read_text())
    log = json.loads((folder / "trainer_state.json").read_text())["log_history"]
    keys = ("trainable_parameters", "steps", "seconds", "tokens", "peak_memory_bytes", "device")
    return {
        **{key: record[key] for key in keys},
        "seconds_per_step": record["seconds"] / record["steps"],
        "learning_rate": record["recipe"]["learning_rate"],
        "held_out_loss": [(e["step"], e["eval_loss"]) for e in log if "eval_loss" in e],
    }


def plot(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Held-out loss against steps and against seconds, the base model's left out."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    base = next(iter(results.values()))["held_out_loss"][0][1]
    for name, result in results.items():
        steps, losses = zip(*result["held_out_loss"][1:], strict=True)
        by_step.plot(steps, losses, label=name)
        by_time.plot([step * result["seconds_per_step"] for step in steps], losses, label=name)
    by_step.set(xlabel="optimizer steps", ylabel=f"held-out loss (base model: {base:.3f})")
    by_step.set_title("SmolLM2-135M on GSM8K")
    by_time.set(xlabel="seconds, evaluation included")
    by_step.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
