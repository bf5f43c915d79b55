"""Jitted JAX functions and Flax modules: the bundle answers what they answer."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import numpy as np
import pytest
from asking import CLOSE, answers, bundle_of, numbers, step

from modelserve.convert import convert
from modelserve.errors import ConversionError, ExampleRequiredError, SignatureError, UnsupportedSourceError

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # the framework's own deprecations are not ours to mend
    pytest.mark.timeout(300),  # the converter reads all its rules when it is first used
]

long = pytest.mark.long


@pytest.fixture(scope="module")
def jax() -> Any:
    import jax

    return jax


class TestFunctions:
    @pytest.mark.long
    def test_a_jitted_function_over_a_tree_of_parameters_takes_any_batch(self, jax: Any, record_source: Any) -> None:
        parameters = {"first": {"w": numbers(4, 8), "b": numbers(8)}, "second": numbers(8, 3)}

        def network(parameters: Any, x: Any) -> Any:
            hidden = jax.nn.gelu(x @ parameters["first"]["w"] + parameters["first"]["b"])
            return jax.nn.softmax(hidden @ parameters["second"])

        function = jax.jit(partial(network, parameters))
        bundle = bundle_of(function, numbers(5, 4))
        assert [str(spec) for spec in bundle.signature.inputs] == ["float32[batch, 4]"]
        for rows in (1, 2, 9):
            x = numbers(rows, 4)
            np.testing.assert_allclose(answers(bundle, x)["output"], np.asarray(function(x)), **CLOSE)
        record_source("JAX", "Jitted function, parameters in a tree", bundle)

    @long
    def test_several_inputs_a_scan_over_any_length_and_a_dict_of_outputs(self, jax: Any, record_source: Any) -> None:
        weight = numbers(4, 4)

        @jax.jit
        def recur(x: Any, state: Any) -> Any:
            def one(carry: Any, at: Any) -> Any:
                carry = jax.numpy.tanh(at @ weight + carry)
                return carry, carry

            last, states = jax.lax.scan(one, state, jax.numpy.swapaxes(x, 0, 1))
            return {"last": last, "states": jax.numpy.swapaxes(states, 0, 1)}

        bundle = bundle_of(recur, (numbers(3, 7, 4), numbers(3, 4)))
        assert step(bundle)["dynamic"][0] == "batch"
        length = 11 if "sequence" in step(bundle)["dynamic"] else 7
        x, state = numbers(2, length, 4), numbers(2, 4)
        wanted = recur(x, state)
        for name, array in answers(bundle, {"x": x, "state": state}).items():
            np.testing.assert_allclose(array, np.asarray(wanted[name]), **CLOSE)
        limits = "" if length == 11 else "sequences of the example's length only"
        record_source("JAX", "Scan over a sequence, two inputs", bundle, limits=limits)

    @pytest.mark.long
    def test_a_dict_of_inputs_may_be_one_argument(self, jax: Any) -> None:
        given = {"u": numbers(3, 4), "v": numbers(3, 4)}
        bundle = bundle_of(jax.jit(lambda parts: parts["u"] - parts["v"]), given)
        np.testing.assert_allclose(answers(bundle, given)["output"], given["u"] - given["v"])

    @long
    def test_sixty_four_bits_are_taken_and_answered_as_jax_answers_them(self, jax: Any) -> None:
        function, x = jax.jit(lambda x: x * 2), numbers(5, 4).astype(np.float64)
        bundle = bundle_of(function, x)
        # JAX computes in 32 bits unless it is told otherwise, and so does the bundle, whatever it is given.
        assert (bundle.signature.inputs[0].dtype, bundle.signature.outputs[0].dtype) == ("float64", "float32")
        np.testing.assert_allclose(answers(bundle, x)["output"], np.asarray(function(x)), **CLOSE)
        with jax.enable_x64(True):
            wide = bundle_of(jax.jit(lambda x: x / 3), x)
        assert wide.signature.outputs[0].dtype == "float64"
        np.testing.assert_allclose(answers(wide, x)["output"], x / 3, rtol=1e-15)

    def test_a_plain_python_function_is_nobodys_model(self, jax: Any) -> None:
        with pytest.raises(UnsupportedSourceError):
            convert(lambda x: jax.numpy.tanh(x), numbers(3, 4))

    def test_listing_and_refusing_plain_functions_imports_no_framework(self) -> None:
        program = (
            "import sys\n"
            "from modelserve.convert import convert\n"
            "try:\n"
            "    convert(print, [[1.0]])\n"
            "except Exception:\n"
            "    pass\n"
            "assert not {'jax', 'flax', 'torch', 'tensorflow'} & set(sys.modules)"
        )
        subprocess.run([sys.executable, "-c", program], check=True, timeout=100)

    @pytest.mark.parametrize(
        ("example", "error"),
        [(None, ExampleRequiredError), (numbers(3, 5), SignatureError), ((numbers(3, 4),) * 2, SignatureError)],
    )
    def test_an_example_that_does_not_fit_is_answered_clearly(self, jax: Any, example: Any, error: Any) -> None:
        weight = numbers(4, 3)
        with pytest.raises(error):
            convert(jax.jit(lambda x: x @ weight), example)

    @long
    def test_what_has_no_counterpart_is_refused(self, jax: Any, record_source: Any) -> None:
        function = jax.jit(lambda x: jax.pure_callback(np.sort, jax.ShapeDtypeStruct(x.shape, x.dtype), x))
        with pytest.raises(ConversionError) as caught:
            convert(function, numbers(3, 4))
        record_source("JAX", "pure_callback", refused=str(caught.value))


class TestFlax:
    @long
    def test_an_nnx_module_answers_in_inference_mode_and_is_left_as_it_was(self, jax: Any, record_source: Any) -> None:
        from flax import nnx

        class Network(nnx.Module):  # type: ignore[misc]
            def __init__(self, rngs: Any) -> None:
                self.first = nnx.Linear(4, 8, rngs=rngs)
                self.norm = nnx.BatchNorm(8, rngs=rngs)
                self.drop = nnx.Dropout(0.9, rngs=rngs)
                self.second = nnx.Linear(8, 3, rngs=rngs)

            def __call__(self, rows: Any) -> Any:
                return self.second(self.drop(self.norm(nnx.gelu(self.first(rows)))))

        module = Network(nnx.Rngs(0))
        mean = np.asarray(module.norm.mean)
        bundle = bundle_of(module, numbers(5, 4))
        assert (module.drop.deterministic, module.norm.use_running_average) == (False, False)
        np.testing.assert_array_equal(np.asarray(module.norm.mean), mean)
        assert bundle.signature.inputs[0].name == "rows"
        module.eval()
        for rows in (1, 7):
            x = numbers(rows, 4)
            np.testing.assert_allclose(answers(bundle, x)["output"], np.asarray(module(x)), **CLOSE)
        record_source("JAX", "Flax nnx module", bundle)

    @long
    def test_convolutions_of_nnx_are_a_source(self, jax: Any, record_source: Any) -> None:
        from flax import nnx

        rngs = nnx.Rngs(0)
        module = nnx.Sequential(
            nnx.Conv(3, 4, (3, 3), rngs=rngs),
            nnx.relu,
            partial(nnx.max_pool, window_shape=(2, 2), strides=(2, 2)),
            lambda x: x.mean((1, 2)),
            nnx.Linear(4, 2, rngs=rngs),
        )
        bundle, x = bundle_of(module, numbers(3, 12, 12, 3)), numbers(2, 12, 12, 3)
        np.testing.assert_allclose(answers(bundle, x)["output"], np.asarray(module(x)), **CLOSE)
        record_source("JAX", "Flax nnx convolutions", bundle)

    @long
    def test_a_linen_module_is_a_source_once_its_variables_are_bound(self, jax: Any, record_source: Any) -> None:
        from flax import linen

        class Network(linen.Module):  # type: ignore[misc]
            @linen.compact
            def __call__(self, x: Any, train: bool = False) -> Any:
                hidden = linen.Dropout(0.9, deterministic=not train)(linen.relu(linen.Dense(8)(x)))
                return linen.Dense(3)(hidden)

        module, x = Network(), numbers(5, 4)
        with pytest.raises(UnsupportedSourceError, match="bind"):
            convert(module, x)
        variables = module.init(jax.random.key(0), x)
        bundle = bundle_of(module.bind(variables), x)
        np.testing.assert_allclose(
            answers(bundle, x[:2])["output"], np.asarray(module.apply(variables, x[:2])), **CLOSE
        )
        record_source("JAX", "Flax linen module, bound", bundle)
