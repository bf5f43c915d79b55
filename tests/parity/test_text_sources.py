"""Text vectorisers of scikit-learn: documents in, the source's own decisions, on documents that nobody had seen."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import onnx
import pytest
from asking import answers, bundle_of
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfTransformer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from modelserve.convert import convert, from_sklearn_rules, portable_or_live
from modelserve.errors import ConversionError, SignatureError, UnfaithfulError
from modelserve.session import open_session


def lines_of(load: Any) -> list[str]:
    return [line.strip() for line in load().DESCR.splitlines() if line.strip()]


ABOUT_FLOWERS, ABOUT_CELLS = lines_of(load_iris), lines_of(load_breast_cancer)
DOCUMENTS = [*ABOUT_FLOWERS[::2], *ABOUT_CELLS[::2]]
TOPICS = np.array(["flowers"] * len(ABOUT_FLOWERS[::2]) + ["cells"] * len(ABOUT_CELLS[::2]))
UNSEEN = [*ABOUT_FLOWERS[1::2], *ABOUT_CELLS[1::2], *lines_of(load_diabetes), "", "zzz", "  spaces  ", "A b C d 12 3.5"]

VECTORISERS = {
    "words": CountVectorizer(),
    "present or not": CountVectorizer(binary=True),
    "pairs of words": CountVectorizer(ngram_range=(1, 2)),
    "capitals kept": CountVectorizer(lowercase=False),
    "logarithms of counts": TfidfVectorizer(sublinear_tf=True),
    "no common words": CountVectorizer(stop_words="english"),
    "the most frequent": CountVectorizer(max_features=50),
    "words of one letter": CountVectorizer(token_pattern=r"[a-zA-Z0-9]+"),
    "weighed": TfidfVectorizer(),
    "weighed, shares": TfidfVectorizer(norm="l1"),
    "weighed, pairs": TfidfVectorizer(ngram_range=(2, 2), min_df=2),
}


@pytest.mark.parametrize("kind", list(VECTORISERS))
def test_documents_are_counted_and_decided_as_the_source_does(kind: str, record_source: Any) -> None:
    model = make_pipeline(VECTORISERS[kind], LogisticRegression(max_iter=500)).fit(DOCUMENTS, TOPICS)
    bundle = bundle_of(model, DOCUMENTS)
    assert [str(spec) for spec in bundle.signature.inputs] == ["string[batch]"]
    found = answers(bundle, UNSEEN)
    assert found["label"].tolist() == model.predict(UNSEEN).tolist()
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(UNSEEN), atol=1e-5)
    record_source("scikit-learn", f"Pipeline: {type(VECTORISERS[kind]).__name__} ({kind}), LogisticRegression", bundle)


def test_a_vectoriser_alone_gives_its_table() -> None:
    model = TfidfVectorizer(max_features=30).fit(DOCUMENTS)
    found = answers(bundle_of(model, DOCUMENTS), UNSEEN)["transformed"]
    np.testing.assert_allclose(found, model.transform(UNSEEN).toarray(), atol=1e-6)


def test_the_graphs_locale_is_one_that_every_machine_has() -> None:
    # The exporter writes en_US, which a slim container lacks: a node with it does not load there.
    bundle = bundle_of(CountVectorizer().fit(DOCUMENTS), DOCUMENTS)
    nodes = [node for node in onnx.load(bundle.model_path).graph.node if node.op_type == "StringNormalizer"]
    assert nodes
    assert {entry.s for node in nodes for entry in node.attribute if entry.name == "locale"} == {b"C"}
    ask = (
        "import sys; from modelserve.bundle import Bundle; from modelserve.session import Session; import numpy as np; "
    )
    ask += "print(Session(Bundle.open(sys.argv[1])).run({'X': np.array(['Iris'], object)})['transformed'].sum())"
    done = subprocess.run(
        [sys.executable, "-c", ask, str(bundle.path)],
        env={**os.environ, "LC_ALL": "C", "LANG": "C"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) == 1.0


class TestLettersBeyondAscii:
    CITIES = ["köln am rhein", "ulm an der donau", "köln hat den dom", "ulm hat das münster"]  # noqa: RUF012

    def test_they_are_letters_of_words_like_all_others(self) -> None:
        cities = ["koeln hat den dom", "ulm hat das muenster", "zur donau", "zum rhein"]
        model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(cities, [0, 1, 1, 0])
        # Taken apart at its ü, the last one would hold "nster", "m" and so on.
        rows = ["köln hat den dom", "ulm hat das münster", "übermünster zur donau", "rhein"]
        bundle = bundle_of(model, cities)
        np.testing.assert_allclose(answers(bundle, rows)["probabilities"], model.predict_proba(rows), atol=1e-5)

    def test_where_the_model_knows_such_words_their_capitals_are_refused_and_never_missed(self) -> None:
        # The one locale that every machine has makes no Ö small.
        model = make_pipeline(CountVectorizer(), LogisticRegression()).fit(self.CITIES, [0, 1, 0, 1])
        with pytest.raises(UnfaithfulError, match="capital letters"):
            convert(model, self.CITIES)
        live = portable_or_live(model, self.CITIES)
        rows = np.array(["KÖLN", "Münster"], object)
        answer = open_session(live).run({"X": rows}, ["probabilities"])["probabilities"]
        # The classifier behind the vectoriser runs as a graph of float32.
        np.testing.assert_allclose(answer, model.predict_proba(rows), atol=1e-6)

    def test_where_capitals_stay_capitals_they_are_served(self) -> None:
        model = make_pipeline(CountVectorizer(lowercase=False), LogisticRegression()).fit(self.CITIES, [0, 1, 0, 1])
        rows = ["KÖLN am rhein", "das münster", "Köln köln"]
        found = answers(bundle_of(model, self.CITIES), rows)["probabilities"]
        np.testing.assert_allclose(found, model.predict_proba(rows), atol=1e-5)


@pytest.mark.parametrize("norm", ["l1", "l2", None])
@pytest.mark.parametrize("use_idf", [True, False])
def test_logarithms_of_counts_are_those_of_the_source(norm: str | None, use_idf: bool) -> None:
    vectoriser = TfidfVectorizer(sublinear_tf=True, norm=norm, use_idf=use_idf, ngram_range=(1, 2))
    model = make_pipeline(vectoriser, LogisticRegression()).fit(DOCUMENTS, TOPICS)
    rows = [f"{document} {document} {DOCUMENTS[0]}" for document in DOCUMENTS]
    found = answers(bundle_of(model, DOCUMENTS), rows)
    np.testing.assert_allclose(found["probabilities"], model.predict_proba(rows), atol=1e-5)
    assert found["label"].tolist() == model.predict(rows).tolist()


def test_logarithms_of_counts_that_were_made_before_are_those_of_the_source() -> None:
    model = make_pipeline(CountVectorizer(), TfidfTransformer(sublinear_tf=True), LogisticRegression())
    model.fit(DOCUMENTS, TOPICS)
    rows = [f"{document} {document}" for document in DOCUMENTS]
    found = answers(bundle_of(model, DOCUMENTS), rows)["probabilities"]
    np.testing.assert_allclose(found, model.predict_proba(rows), atol=1e-5)


def test_an_error_of_the_exporter_is_found_out_and_names_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    # Left alone it takes log(count + 1) for 1 + log(count).
    monkeypatch.delitem(from_sklearn_rules._RULES, TfidfVectorizer)
    monkeypatch.delitem(from_sklearn_rules._RULES, TfidfTransformer)
    model = make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression()).fit(DOCUMENTS, TOPICS)
    with pytest.raises(UnfaithfulError, match="first step that differs is 'tfidfvectorizer"):
        convert(model, DOCUMENTS)


def test_documents_that_are_no_text_are_refused() -> None:
    model = CountVectorizer().fit(DOCUMENTS)
    with pytest.raises(SignatureError, match="no rows"):
        convert(model, np.array([], object))
    bundle = bundle_of(model, DOCUMENTS)
    with pytest.raises(SignatureError):
        bundle.signature.check([1.0, 2.0])


@pytest.mark.parametrize(
    "vectoriser",
    [HashingVectorizer(n_features=64), CountVectorizer(analyzer=str.split)],
    ids=["hashed", "a function of the user's"],
)
def test_what_has_no_portable_form_is_refused_and_runs_as_it_is(vectoriser: Any) -> None:
    model = make_pipeline(vectoriser, LogisticRegression(max_iter=500)).fit(DOCUMENTS, TOPICS)
    with pytest.raises(ConversionError):
        convert(model, DOCUMENTS)
    live = portable_or_live(model, DOCUMENTS)
    found = open_session(live).run({"X": np.array(UNSEEN, object)})["label"]
    assert found.tolist() == model.predict(UNSEEN).tolist()
