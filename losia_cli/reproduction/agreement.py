"""Whether a table's cells were measured alike: by the same packages, on the same questions."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from losia_cli.evaluation.suites import SUITES
from losia_cli.files import sha256_of

# What an evaluation keeps of how a suite was asked -> what it is called.
_ASKED = {
    "shots": "examples in the prompt",
    "generation": "settings of generation",
    "samples": "numbers of samples",
    "configurations": "definitions of the task",
    "datasets": "documents",
    "hashes": "prompts or answers",
}


def disagreements(results: Iterable[Mapping[str, Any] | None]) -> Iterator[str]:
    """Each way in which these cells' results are not comparable, in words.

    Args:
        results: of the cells; None of one that has none.
    """
    measured = [result for result in results if result and result.get("scores")]
    for package, found in sorted(_versions(measured).items()):
        if len(found) > 1:
            of = ", ".join(f"{version} ({len(titles)})" for version, titles in found.items())
            yield f"cells were measured with different versions of {package}: {of}"
    for method, losses in sorted(_losses(measured).items()):
        if len(losses) > 1:
            yield (
                f"{method} was trained with the logits of whole batches and without, in which"
                " memory and seconds differ"
            )
    for (suite, part), found in sorted(_asked(measured).items()):
        most = max(found.values(), key=len)
        for few in (titles for titles in found.values() if titles is not most):
            more = f" and {len(few) - 1} more" if len(few) > 1 else ""
            yield f"{suite} was asked with other {_ASKED[part]} of {few[0]}{more}"


def shortened(results: Iterable[Mapping[str, Any] | None]) -> Iterator[str]:
    """The suites of which less is there than was published, as of local copies, in words.

    Args:
        results: of the cells; None of one that has none.
    """
    fewest: dict[str, int] = {}
    for result in results:
        for suite, scored in (result or {}).get("scores", {}).items():
            fewest[suite] = min(fewest.get(suite, scored["of"]), scored["of"])
    for suite, there in fewest.items():
        if there < SUITES[suite].documents:
            yield f"{suite} was asked of {there:,} of its {SUITES[suite].documents:,} documents"


def _versions(results: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, list[str]]]:
    """Package -> version -> the cells that were trained or scored with it."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for step in (result.get("training"), result.get("evaluation")):
            for package, version in ((step or {}).get("versions") or {}).items():
                if result["title"] not in found[package][version]:
                    found[package][version].append(result["title"])
    return found


def _losses(results: Iterable[Mapping[str, Any]]) -> dict[str, set[bool | None]]:
    """Method -> whether its loss was computed in chunks; None where that was not recorded."""
    found: dict[str, set[bool | None]] = defaultdict(set)
    for result in results:
        if result.get("training"):
            found[result["method"]].add(result["training"].get("loss_in_chunks"))
    return found


def _asked(results: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], dict[str, list[str]]]:
    """Suite and part -> its value, hashed -> the cells that were asked so."""
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for suite, scored in result["scores"].items():
            for part in _ASKED:
                if part in scored:
                    found[suite, part][sha256_of(scored[part])].append(result["title"])
    return found
