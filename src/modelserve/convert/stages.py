"""What a source computes on its way to its answers, step by step, so that a refusal can name the first that differs.

Nothing here imports a framework: pipelines and modules are used by what they can do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from modelserve.convert.contract import Stages
from modelserve.tensors import Array, Tensors

_ANSWERS = ("predict_proba", "decision_function", "predict", "transform")


def pipeline_stages(pipeline: Any, rebuild: Callable[[Tensors], Any]) -> Stages | None:
    """Each step's result of a scikit-learn pipeline; None for an estimator that has no steps.

    Args:
        rebuild: The way from tensors by name to what the pipeline takes.
    """
    if not hasattr(pipeline, "steps"):
        return None

    def stages(tensors: Tensors) -> Iterator[tuple[str, Array]]:
        given = rebuild(tensors)
        steps = [(name, step) for name, step in pipeline.steps if step not in (None, "passthrough")]
        for name, step in steps[:-1]:
            given = step.transform(given)
            yield _titled(name, step), _dense(given)
        name, last = steps[-1]
        method = next(method for method in _ANSWERS if hasattr(last, method))
        yield _titled(name, last), _dense(getattr(last, method)(given))

    return stages


def module_stages(module: Any, run: Callable[[Tensors], Any]) -> Stages | None:
    """The output of every submodule of a torch module; None for one that takes no hooks, as scripted ones do.

    Args:
        run: Calls the module on tensors by name.
    """
    if not hasattr(module, "named_modules") or hasattr(module, "inlined_graph"):
        return None

    def stages(tensors: Tensors) -> Iterator[tuple[str, Array]]:
        found: list[tuple[str, Array]] = []
        hooks = [part.register_forward_hook(_keeping(found, path)) for path, part in module.named_modules() if path]
        try:
            run(tensors)
        finally:
            for hook in hooks:
                hook.remove()
        yield from found

    return stages


def _keeping(found: list[tuple[str, Array]], path: str) -> Callable[[Any, Any, Any], None]:
    def keep(part: Any, _given: Any, answer: Any) -> None:
        first = answer[0] if isinstance(answer, tuple | list) and answer else answer
        if hasattr(first, "detach"):
            found.append((_titled(path, part), first.detach().cpu().numpy()))

    return keep


def _titled(name: str, part: Any) -> str:
    return f"{name} ({type(part).__name__})"


def _dense(value: Any) -> Array:
    return np.asarray(value.toarray() if hasattr(value, "toarray") else value)
