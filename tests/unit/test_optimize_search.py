"""The search: what it accepts, refuses, and says."""

import json
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from modelserve.bundle import Bundle, Origin, Step, write
from modelserve.optimize import Auto, Compact, Goal, Progress, Prune, Quantize, optimize, plot, plot_image
from modelserve.optimize import search as searching
from modelserve.optimize.confidence import Interval
from modelserve.optimize.contest import Contest
from modelserve.optimize.draft import Draft, Pass
from modelserve.optimize.recipes import Recipe
from modelserve.optimize.report import Candidate, Verdict
from modelserve.optimize.timing import Speed
from modelserve.session import Session
from modelserve.tensors import Signature, TensorSpec
from modelserve.testing import models


def wide_mlp(hidden: int = 256, *, rank: int = 24) -> Bundle:
    """`x` float32[batch, 32] -> `scores` float32[batch, 5]; its hidden units are `rank` units, each several times."""
    random = np.random.default_rng(0)
    distinct = random.normal(size=(32, rank)).astype(np.float32)
    weights = {
        "w1": np.tile(distinct, (1, -(-hidden // rank)))[:, :hidden],
        "b1": np.zeros(hidden, np.float32),
        "w2": (random.normal(size=(hidden, 5)) / hidden).astype(np.float32),
        "b2": np.zeros(5, np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["sums"]),
        helper.make_node("Relu", ["sums"], ["units"]),
        helper.make_node("Gemm", ["units", "w2", "b2"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "wide",
        [helper.make_tensor_value_info("x", 1, ["batch", 32])],
        [helper.make_tensor_value_info("scores", 1, ["batch", 5])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    signature = Signature(
        (TensorSpec("x", "float32", ("batch", 32)),), (TensorSpec("scores", "float32", ("batch", 5)),)
    )
    example = {"x": random.normal(size=(8, 32)).astype(np.float32)}
    return write(
        model,
        signature=signature,
        origin=Origin("test", "Wide"),
        lineage=(Step("make"),),
        example=example,
        rows_independent=True,
    )


def rows(count: int) -> np.ndarray:
    return np.random.default_rng(7).normal(size=(count, 32)).astype(np.float32)


def told(bundle: Bundle) -> dict:
    return dict(bundle.manifest.reports[-1])


def test_the_best_within_the_bound_is_chosen_and_its_report_says_everything():
    bundle = wide_mlp()
    smaller = optimize(bundle, Auto(max_drop=0.05, data=rows(2000), goal="size", budget_s=8))
    report = told(smaller)
    chosen = next(item for item in report["candidates"] if item["verdict"] == "chosen")
    assert smaller.size_bytes < bundle.size_bytes / 3
    assert smaller.signature == bundle.signature
    assert chosen["drop"]["high"] <= 0.05
    assert chosen["drop"]["rows"] == report["rows"]["judge"] == 1200
    assert report["original"]["digest"] == bundle.digest
    assert {"ratio", "low", "high", "p50_ms"} == set(chosen["batch_1"]) == set(chosen["batch_32"])
    assert json.loads(json.dumps(report)) == report
    assert smaller.manifest.lineage[0] == bundle.manifest.lineage[0]
    agree = Session(smaller).run({"x": rows(500)})["scores"].argmax(1) == Session(bundle).run({"x": rows(500)})[
        "scores"
    ].argmax(1)
    assert agree.mean() > 0.95


def test_the_bundle_given_is_left_as_it_was():
    bundle = wide_mlp()
    before = {path.name: path.read_bytes() for path in bundle.path.iterdir()}
    optimize(bundle, Prune(0.5) >> Quantize("int8"), rows(200))
    assert {path.name: path.read_bytes() for path in bundle.path.iterdir()} == before


def test_the_same_plan_on_the_same_rows_gives_the_same_digest():
    plan = Prune(0.5) >> Quantize("int8")
    first, second = (optimize(wide_mlp(), plan, rows(200)).digest for _ in range(2))
    assert first == second != wide_mlp().digest


def test_few_rows_end_in_not_enough_rows_and_how_many_it_takes():
    report = told(optimize(wide_mlp(), Auto(max_drop=0.01, data=rows(40), goal="size", budget_s=10)))
    few = [item for item in report["candidates"] if item["verdict"] == "not enough rows"]
    assert few
    assert "at least 497 are needed" in few[0]["reason"]
    assert not any(
        item["verdict"] in {"accepted", "chosen"} and "int8" in item["name"] for item in report["candidates"]
    )


def test_a_scrambled_candidate_is_rejected(monkeypatch: pytest.MonkeyPatch):
    def scramble(draft: Draft, _calibration: object) -> Draft:
        model = draft.copy_model()
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            shuffled = np.random.default_rng(0).permutation(array.ravel()).reshape(array.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
        return Draft(model)

    recipe = Recipe("scrambled", (Pass("scramble", scramble),))
    monkeypatch.setattr(searching, "candidates", lambda *_args, **_settings: [recipe])
    report = told(optimize(wide_mlp(), Auto(max_drop=0.05, data=rows(2000), goal="size")))
    assert report["chosen"] == ""
    assert report["candidates"][0]["verdict"] == "drop too large"


def test_a_pass_that_says_it_is_exact_is_compared_all_the_same(monkeypatch: pytest.MonkeyPatch):
    def shifted(draft: Draft, _calibration: object) -> Draft:
        """Other scores, and no other decision: agreement alone would not show it."""
        model = draft.copy_model()
        tensor = model.graph.initializer[-1]
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) + np.float32(0.5), tensor.name))
        return Draft(model)

    recipe = Recipe("says it is exact", (Pass("shift", shifted, is_exact=True),))
    monkeypatch.setattr(searching, "candidates", lambda *_args, **_settings: [recipe])
    found = told(optimize(wide_mlp(), Auto(max_drop=0.05, data=rows(400), goal="size")))["candidates"][0]
    assert found["verdict"] == "drop too large"
    assert found["reason"] == "Its answers differ by more than rounding."


def test_a_bound_of_zero_admits_only_what_is_exact_by_construction():
    report = told(optimize(wide_mlp(), Auto(max_drop=0, data=rows(500), goal="size", budget_s=10)))
    names = {step["name"] for item in report["candidates"] for step in item["steps"]}
    assert names <= {"simplify", "session", "compact"}


def test_when_the_budget_is_spent_the_rest_is_not_tried():
    report = told(optimize(wide_mlp(), Auto(max_drop=0.05, data=rows(500), goal="size", budget_s=1e-6)))
    assert {item["verdict"] for item in report["candidates"]} == {"not tried"}
    assert report["chosen"] == ""


def test_a_model_that_nothing_can_help_stays_and_the_report_says_why():
    bundle = models.two_inputs()
    data = {"left": np.ones((50, 3), np.float32), "right": np.arange(50)}
    same = optimize(bundle, Auto(max_drop=0.1, data=data))
    assert same.digest == bundle.digest
    assert told(same)["reason"]


@pytest.mark.parametrize(
    "plan", [Quantize("int8"), Prune(0.5), Compact(), Quantize("int4-weights"), Quantize("float16")]
)
def test_a_pass_that_the_graph_has_no_place_for_is_skipped_with_the_reason(plan):
    bundle = models.picky()
    same = optimize(bundle, plan, {"index": np.array([0, 1, 2, 3])})
    assert same.digest == bundle.digest or told(same)["chosen"]
    assert all(item["reason"] for item in told(same)["candidates"] if item["verdict"] == "skipped")


def test_progress_is_told():
    said: list[Progress] = []
    optimize(wide_mlp(), Prune(0.5), rows(100), on_progress=said.append)
    assert [str(progress) for progress in said] == ["[1/2] simplify", "[2/2] prune"]
    assert [progress.share for progress in said] == [0, 0.5]


def test_progress_follows_the_budget_where_that_ends_first():
    said: list[Progress] = []
    optimize(wide_mlp(), Auto(max_drop=0.05, data=rows(200), goal="size", budget_s=0.5), on_progress=said.append)
    shares = [progress.share for progress in said if not progress.doing.startswith("judging")]
    assert shares == sorted(shares)
    assert shares[0] < 0.5 < shares[-1] <= 1


def test_a_metric_that_is_no_number_for_a_candidate_is_within_no_bound():
    def on_original_only(truth: np.ndarray, answer: np.ndarray) -> float:
        return 1.0 if np.array_equal(answer, seen.setdefault(len(answer), answer)) else float("nan")

    seen: dict[int, np.ndarray] = {}
    report = told(optimize(wide_mlp(), Auto(max_drop=0.5, metric=on_original_only, data=rows(500), goal="size")))
    others = [item for item in report["candidates"] if "int8" in item["name"]]
    assert {item["verdict"] for item in others} == {"drop too large", "not tried"}
    assert "is not a number" in others[0]["reason"]


def test_a_sample_too_small_to_be_sure_is_told_how_many_rows_would_do(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        searching, "candidates", lambda *_args, **_settings: [Recipe("slightly wrong", (Pass("nudge", _nudge),))]
    )
    monkeypatch.setattr(Contest, "is_won", lambda *_args, **_settings: True)
    report = told(optimize(wide_mlp(), Auto(max_drop=0.05, data=rows(400), goal="size")))
    found = report["candidates"][0]
    assert found["verdict"] == "not sure enough"
    assert 0.02 < found["drop"]["drop"] < 0.05 < found["drop"]["high"]
    assert int(found["reason"].rpartition("about ")[2].split()[0]) > 400


def test_of_those_that_are_as_fast_the_smallest_is_chosen():
    contest = Contest(Draft(onnx.ModelProto()), Goal.LATENCY, {})
    made = [
        Candidate(Recipe(name, ()), Verdict.ACCEPTED, size_bytes=size, speeds={1: Speed(ratio, ratio, ratio, 1e-3)})
        for name, ratio, size in (("fastest", 2.0, 100), ("as fast", 1.96, 40), ("slower", 1.9, 10))
    ]
    assert contest.best(made) is made[1]


def _nudge(draft: Draft, _calibration: object) -> Draft:
    """Changes about 4 in 100 decisions."""
    model = draft.copy_model()
    tensor = model.graph.initializer[-1]
    array = numpy_helper.to_array(tensor) + np.array([0.055, 0, 0, 0, 0], np.float32)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return Draft(model)


def test_a_candidate_that_fails_is_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch):
    def fail(_draft: Draft, _calibration: object) -> Draft:
        raise RuntimeError("no kernel for it")

    monkeypatch.setattr(
        searching, "candidates", lambda *_args, **_settings: [Recipe("broken", (Pass("broken", fail),))]
    )
    bundle = wide_mlp()
    same = optimize(bundle, Auto(max_drop=0.05, data=rows(400)))
    assert same.digest == bundle.digest
    assert told(same)["candidates"][0]["verdict"] == "skipped"
    assert "no kernel for it" in told(same)["candidates"][0]["reason"]


def test_a_session_setting_travels_in_the_lineage_and_is_applied(monkeypatch: pytest.MonkeyPatch):
    from modelserve import session

    seen: list[dict[str, str]] = []
    load: Callable = session.load
    monkeypatch.setattr(session, "load", lambda *a, **k: (seen.append(k["settings"]), load(*a, **k))[1])
    bundle = wide_mlp()
    setting = {"optimization.disable_specified_optimizers": "SkipLayerNormFusion"}
    served = write(
        onnx.load(bundle.model_path),
        signature=bundle.signature,
        origin=Origin("test", "Wide"),
        lineage=(Step("session", {"session": setting}),),
        example=bundle.example(),
    )
    Session(served)
    assert seen == [setting]


@pytest.mark.long
def test_the_report_is_drawn_as_a_page_and_as_an_image(tmp_path):
    report = told(optimize(wide_mlp(), Auto(max_drop=0.05, data=rows(1500), goal="size", budget_s=5)))
    page = plot(report)
    assert page.count("<svg") == 2
    assert "bound 0.05" in page
    assert report["chosen"] in page
    assert "http" not in page
    plot_image(report, tmp_path / "report.png")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_bolder_one_of_the_family_is_judged_though_a_first_race_did_not_show_it_faster():
    search = searching.Search(Draft(onnx.ModelProto()), Auto(max_drop=0.1), None, _Hands(), "y")
    for name, family, size, ratio, high in (
        ("half", "trees", 50, 9.0, 0.02),  # a lucky first race
        ("a quarter", "trees", 25, 4.0, 0.03),
        ("another pass", "", 25, 3.0, 0.04),  # neither faster nor further along
        ("an eighth", "trees", 12, 8.0, 0.12),
        ("a tenth", "trees", 10, 9.5, 0.13),
        ("a twelfth", "trees", 8, 9.9, 0.14),  # more than two that may well fail are not tested
    ):
        search.tried.append(
            Candidate(
                Recipe(name, (Pass("drop", _nudge),), family),
                Verdict.NOT_JUDGED,
                size_bytes=size,
                drop=Interval(0.01, 0.0, high),
                speeds={1: Speed(ratio, ratio, ratio, 1e-3)},
            )
        )
    assert [item.recipe.name for item in search._finalists()] == ["half", "a quarter", "an eighth", "a tenth"]


class _Hands:
    """Rows that nobody asks for."""

    class fit:  # noqa: N801  # stands for an object
        tensors = ()
