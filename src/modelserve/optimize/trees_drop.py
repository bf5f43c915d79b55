"""Fewer trees: the first ones stay, scaled so that their sum reproduces that of all.

In a forest any k trees are as good as any others (choosing them greedily was measured no better); in boosting the first
rounds carry most. The scale comes from least squares on the samples, so that both cases need no telling apart.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper

from modelserve.errors import PlanError
from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.surgery import activations, tidy
from modelserve.optimize.trees import Ensemble, ensembles
from modelserve.tensors import Array

if TYPE_CHECKING:
    from onnx import ModelProto


def drop_trees(amount: float) -> Pass:
    """Leave out the share `amount` of the trees."""

    def change(draft: Draft, calibration: Calibration) -> Draft:
        if not calibration:
            raise PlanError("The trees that stay are scaled on samples, of which there are none. Give samples=.")
        model = draft.copy_model()
        found = ensembles(model)
        if all(_kept_count(ensemble, amount) >= len(ensemble.trees) for ensemble in found):
            raise InapplicableError("There are too few trees to leave some out.")
        for ensemble in found:
            _keep_first(ensemble, _kept_count(ensemble, amount))
        for ensemble, scale in zip(found, _scales(draft.model, model, calibration), strict=True):
            weights = ensemble.array("weights_weights")
            ensemble.put("weights_weights", weights * scale)
        tidy(model)
        return Draft(model, draft.session)

    return Pass("drop_trees", change, {"amount": amount})


def _kept_count(ensemble: Ensemble, amount: float) -> int:
    round_size = ensemble.scores if ensemble.has_one_score_a_tree else 1
    rounds = len(ensemble.trees) // round_size
    return max(1, round(rounds * (1 - amount))) * round_size


def _keep_first(ensemble: Ensemble, count: int) -> None:
    stay = ensemble.trees[:count]
    pairs_stay = np.isin(ensemble.array("weights_treeids"), stay)
    ensemble.keep_nodes(np.isin(ensemble.array("nodes_treeids"), stay))
    ensemble.keep_weights(pairs_stay)


def _scales(whole: ModelProto, part: ModelProto, calibration: Calibration) -> list[float]:
    """For each ensemble the factor by which its remaining trees come nearest to all of them."""
    wanted, got = _sums(whole, calibration), _sums(part, calibration)
    scales = []
    for name in wanted:
        power = float(np.square(got[name]).sum())
        scales.append(float((got[name] * wanted[name]).sum()) / power if power else 1.0)
    return scales


def _sums(model: ModelProto, calibration: Calibration) -> dict[str, Array]:
    """What the trees of each ensemble add up to, before the final transform and without the base value."""
    raw = Draft(model).copy_model()
    names = []
    for ensemble in ensembles(raw):
        node = ensemble.node
        for entry in [entry for entry in node.attribute if entry.name.startswith(("post_transform", "base_values"))]:
            node.attribute.remove(entry)
        node.attribute.append(helper.make_attribute("post_transform", "NONE"))
        names.append(node.output[-1])
    found = activations(Draft(raw), names, calibration)
    return {name: _one_sided(np.concatenate(found[name])) for name in names}


def _one_sided(scores: Array) -> Array:
    # Two scores may be one and its complement, which is no sum of trees.
    return scores[:, -1:] if scores.ndim == 2 and scores.shape[1] == 2 else scores
