"""Lossless compaction of tree ensembles: what changes no answer is left out.

* pairs of a leaf and a score whose weight is zero (a pure leaf of a forest has one that is not)
* statistics of the training, and flags that have their default everywhere
"""

from __future__ import annotations

import numpy as np

from modelserve.optimize.draft import Calibration, Draft, InapplicableError, Pass
from modelserve.optimize.surgery import tidy
from modelserve.optimize.trees import Ensemble, ensembles


def compact_trees() -> Pass:
    """Write tree ensembles in fewer bytes, with the same answers."""
    return Pass("compact", _compact, is_exact=True)


def _compact(draft: Draft, _calibration: Calibration) -> Draft:
    model = draft.copy_model()
    for ensemble in ensembles(model):
        _drop_zero_weights(ensemble)
        _drop_defaults(ensemble)
    tidy(model)
    if model.ByteSize() >= draft.model.ByteSize():
        raise InapplicableError("The tree ensemble is as compact as it can be already.")
    return Draft(model, draft.session)


def _drop_zero_weights(ensemble: Ensemble) -> None:
    weights = ensemble.array("weights_weights")
    leaves = np.stack([ensemble.array("weights_treeids"), ensemble.array("weights_nodeids")])
    # Every leaf, and every score, keeps one pair: the runtime reads from them which there are.
    _, first_of_leaf = np.unique(leaves, axis=1, return_index=True)
    _, first_of_score = np.unique(ensemble.array("weights_ids"), return_index=True)
    kept = weights != 0
    lone = np.ones(len(weights), bool)
    lone[kept] = False
    has_weight = {tuple(leaf) for leaf in leaves[:, kept].T.tolist()}
    for index in first_of_leaf:
        if lone[index] and tuple(leaves[:, index].tolist()) not in has_weight:
            kept[index] = True
    kept[first_of_score] = True
    ensemble.keep_weights(kept)


def _drop_defaults(ensemble: Ensemble) -> None:
    for name in ("nodes_hitrates", "nodes_hitrates_as_tensor"):
        if ensemble.has(name):
            ensemble.drop(name)
    tracks = "nodes_missing_value_tracks_true"
    if ensemble.has(tracks) and not ensemble.array(tracks).any():
        ensemble.drop(tracks)
