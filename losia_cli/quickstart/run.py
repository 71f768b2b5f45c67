"""The quickstart from the base model to the table: measure, teach with LoSiA-Pro, measure again."""

import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from losia_cli import recipes
from losia_cli.errors import UserError
from losia_cli.files import sha256, write_atomically, writing_into
from losia_cli.quickstart import problems, prompt, suites
from losia_cli.quickstart.model import MANIFEST, cache_folder, prepare_base_model
from losia_cli.quickstart.suites import Scores

RESULT = "quickstart.json"
TRAINED = "model"
RECIPE = "quickstart"
TRAIN_PROBLEMS = 600
HELDOUT_PROBLEMS = 60
RUN_KEYS = (
    *("seconds", "peak_memory_bytes", "trainable_parameters", "total_parameters"),
    *("steps", "tokens", "versions", "device"),
)


@dataclass(frozen=True)
class Paths:
    """What a quickstart keeps in its output folder."""

    root: Path

    @property
    def data(self) -> Path:
        """The generated problems, a LLaMA-Factory dataset folder."""
        return self.root / "data"

    @property
    def heldout(self) -> Path:
        """The held-out problems for lm-eval."""
        return self.data / problems.HELDOUT_FILE

    @property
    def trained(self) -> Path:
        """The taught model, `losia train`'s own output folder."""
        return self.root / TRAINED

    @property
    def result(self) -> Path:
        """Model and seed from the start, the whole result at the end."""
        return self.root / RESULT


def quickstart(
    output: Path, model: str | None, seed: int, again: bool, console: Console
) -> dict[str, Any]:
    """Teach `model` (the packaged one if None) the problems of `seed` and return the result.

    A complete result of the same model and seed in `output` is returned as it is, unless `again`.

    Raises:
        UserError: `output` holds something else or a result of another model or seed, the model
            cannot be had, or the training failed.
    """
    paths = Paths(output)
    with writing_into(output, "--output"):
        earlier = _earlier_result(paths)
    if earlier and "after" in earlier and not again:
        _expect_same(earlier, paths, model, seed)
        console.print(
            f"{paths.root} holds this result already: run it anew with --again, or into another"
            " folder with --output DIR"
        )
        return earlier
    if model:
        _check(model)
    started = time.monotonic()
    with writing_into(output, "--output"):
        save(paths.result, {"model": model, "seed": seed})
    console.rule("1/5 base model", align="left")
    base = model or str(prepare_base_model())
    console.print(base)
    console.rule("2/5 problems", align="left")
    write_problems(paths.data, seed, console)
    console.rule("3/5 what the base model can do", align="left")
    before = measure_base(base, paths.heldout, console)
    console.rule("4/5 losia train", align="left")
    train(base, paths, [f"seed={seed}"])
    console.rule("5/5 what the taught model can do", align="left")
    after = measure(str(paths.trained), paths.heldout)
    result = {
        "model": model,
        "seed": seed,
        "before": summary(before),
        "after": summary(after),
        "example": _example(paths.heldout, before, after),
        "training": training_record(paths.trained),
        "seconds": round(time.monotonic() - started, 1),
    }
    save(paths.root / "lm_eval_before.json", before.results)
    save(paths.root / "lm_eval_after.json", after.results)
    save(paths.result, result)
    return result


def write_problems(folder: Path, seed: int, console: Console) -> None:
    """Generate the training and the held-out problems of a seed into `folder`."""
    train_set = problems.generate("train", TRAIN_PROBLEMS, seed)
    heldout = problems.generate("heldout", HELDOUT_PROBLEMS, seed)
    problems.write(folder, train_set, heldout)
    console.print(
        f"{len(train_set)} to train on, {len(heldout)} held out, {len(problems.KINDS)} kinds;"
        f" written to {folder}; the first:"
    )
    console.print(f"{train_set[0].question}\n{train_set[0].answer}", style="dim")


def measure(model: str, heldout: Path) -> Scores:
    """Both suites on the model of a folder or hub name."""
    return suites.evaluate(suites.load_model(model), heldout)


def measure_base(base: str, heldout: Path, console: Console) -> Scores:
    """As `measure`, but kept in the cache and reused (and said so) for the same files."""
    if not Path(base).is_dir():
        return measure(base, heldout)
    kept = cache_folder() / "measured" / f"{fingerprint(base, heldout)}.json"
    if kept.exists():
        console.print("measured before with these files and versions; taken from", str(kept))
        return suites.read_scores(json.loads(kept.read_text()))
    scores = measure(base, heldout)
    save(kept, scores.results)
    return scores


def train(base: str, paths: Paths, overrides: Sequence[str], options: Sequence[str] = ()) -> None:
    """`losia train` on the quickstart's recipe in a process of its own.

    Raises:
        UserError: it failed; its own message has been printed above.
    """
    places = {"dataset_dir": paths.data, "output_dir": paths.trained}
    given = [*model_overrides(base), *(recipes.override(*each) for each in places.items())]
    given += ["overwrite_output_dir=true", *overrides]
    command = [sys.executable, "-m", "losia_cli", "train", RECIPE, *given, *options]
    done = subprocess.run(command, check=False)
    if done.returncode != 0:
        raise UserError(
            f"`losia train` ended with exit code {done.returncode}, as its message above says;"
            " mend that and start the same command again"
        )


def model_overrides(base: str) -> list[str]:
    """What the recipe has to say about this base model."""
    return [recipes.override("model_name_or_path", base), *prompt.template_overrides(base)]


def training_record(trained: Path) -> dict[str, Any]:
    """What `losia train` recorded of its run."""
    from losia_cli.run_folder import RECORD

    record = json.loads((trained / RECORD).read_text())
    return {key: record[key] for key in RUN_KEYS}


def _earlier_result(paths: Paths) -> dict[str, Any] | None:
    """What an earlier quickstart, finished or not, left in the folder."""
    if paths.result.exists():
        return json.loads(paths.result.read_text())
    if paths.root.exists() and any(paths.root.iterdir()):
        raise UserError(
            f"{paths.root} is not empty, and what it holds is no quickstart's: choose another"
            " folder with --output DIR"
        )
    return None


def _check(model: str) -> None:
    """Refuse what `losia train` would, before minutes are spent on measuring it."""
    from losia_cli.training.model import check_model, settings_of

    recipe = recipes.load(RECIPE, overrides=[recipes.override("model_name_or_path", model)])
    check_model(recipe.values, settings_of(recipe))


def _expect_same(earlier: dict[str, Any], paths: Paths, model: str | None, seed: int) -> None:
    if (earlier["model"], earlier["seed"]) != (model, seed):
        raise UserError(
            f"{paths.root} holds the result of another model or seed: choose another folder with"
            " --output DIR, or replace it with --again"
        )


def summary(scores: Scores) -> dict[str, Any]:
    """Both scores for a result's JSON."""
    return {"skill": asdict(scores.skill), "known": asdict(scores.known)}


def _example(heldout: Path, before: Scores, after: Scores) -> dict[str, str]:
    """The first held-out problem, with both models' answers."""
    problem = json.loads(heldout.read_text().splitlines()[0])
    answers = {"before": suites.response(before, 0), "after": suites.response(after, 0)}
    return {"question": problem["question"], "answer": problem["answer"], **answers}


def fingerprint(model: str, heldout: Path) -> str:
    """A hash over all that decides a measurement: model, documents, versions, a GPU.

    A hub's model counts by its name.
    """
    import torch

    folder = Path(model)
    digest = hashlib.sha256(b"" if folder.is_dir() else model.encode())
    files = sorted(p for p in folder.glob("*") if p.is_file() and p.name != MANIFEST)
    for path in (*files, heldout, *sorted(suites.TASKS.iterdir())):
        digest.update(bytes.fromhex(sha256(path)))
    for package in ("lm-eval", "transformers", "torch"):
        digest.update(f"{package} {version(package)}".encode())
    digest.update(f"batch {suites.BATCH_SIZE}".encode())
    if torch.cuda.is_available():
        digest.update(torch.cuda.get_device_name().encode())  # its seconds are no processor's
    return digest.hexdigest()[:32]


def save(path: Path, content: dict[str, Any]) -> None:
    """Write JSON into a file that is whole or not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(content, indent=1))
