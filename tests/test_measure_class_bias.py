"""Gradients at the logits: softmax by hand, one class for all, ties and rows of zeros."""

import numpy as np
import pytest
import torch
from cases import inputs, network
from scipy.special import softmax
from torch import nn

from rmtbn._checks import InvalidArgumentError
from rmtbn.measure.class_bias import class_bias, mean_cosine

Y = torch.tensor([0, 1, 2, 2, 1, 0, 0])


def biased(bias):
    """Logits that are `bias` for every input."""
    net = nn.Sequential(nn.Linear(3, len(bias))).double()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].bias.copy_(torch.tensor(bias))
    return net


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_gradients_are_softmax_minus_the_target(norm):
    """∂L_b/∂O_{b,j} = softmax(O_b)_j - [j = y_b], by scipy; predictions are the largest logits."""
    net, x = network(norm=norm, out_features=3), inputs(7, 12)
    found = class_bias(net, x, Y)
    logits = net(x).detach().numpy()
    expected = softmax(logits, axis=1) - np.eye(3)[Y]
    np.testing.assert_allclose(found.gradient, expected, atol=1e-14)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-12)
    np.testing.assert_array_equal(found.predicted, logits.argmax(axis=1))
    np.testing.assert_allclose(found.class_sums, expected.sum(axis=0), atol=1e-13)
    counts = np.bincount(logits.argmax(axis=1), minlength=3)
    assert found.modal_fraction == counts.max() / 7
    assert found.modal_class == counts.argmax()
    sizes = np.abs(expected.sum(axis=0))
    assert found.largest_class_share == pytest.approx(sizes.max() / sizes.sum())


def test_row_cosines_are_the_mean_over_all_pairs():
    """Mean of ⟨g_a, g_b⟩/(‖g_a‖‖g_b‖) over a ≠ b, pair by pair."""
    rows = inputs(9, 5).numpy()
    pairs = [
        rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b])
        for a in range(9)
        for b in range(9)
        if a != b
    ]
    assert mean_cosine(rows) == pytest.approx(np.mean(pairs), rel=1e-12)
    assert mean_cosine(rows * 1e-200) == pytest.approx(np.mean(pairs), rel=1e-12)


def test_one_class_for_all_has_row_cosine_one_half():
    """Large logits for class 3: rows e_3 - e_y, whose cosine is 1/2 for different y; no example is of class 3."""
    found = class_bias(biased([0.0, 0.0, 0.0, 60.0]), inputs(3, 3), torch.tensor([0, 1, 2]))
    assert (found.modal_class, found.modal_fraction, found.zero_rows, found.tied) == (3, 1.0, 0, 0)
    assert found.row_cosine == pytest.approx(0.5)
    np.testing.assert_allclose(found.class_sums, [-1, -1, -1, 3], atol=1e-12)
    assert found.largest_class_share == pytest.approx(0.5)


def test_rows_of_zeros_are_left_out_and_counted():
    """Examples of the class itself have a gradient of exactly 0 at logits of 1e3: they have no direction."""
    found = class_bias(biased([0.0, 0.0, 1000.0]), inputs(7, 3), Y)
    assert found.zero_rows == 2
    rows = found.gradient[(Y != 2).numpy()]
    assert found.row_cosine == pytest.approx(mean_cosine(rows))
    assert np.isfinite(found.row_cosine)


def test_too_few_rows_have_no_cosine():
    """All examples right, beyond the digits of float64: no row is left, and there is nothing to share."""
    found = class_bias(biased([0.0, 1000.0]), inputs(4, 3), torch.ones(4, dtype=torch.long))
    assert found.zero_rows == 4
    assert np.isnan(found.row_cosine)
    assert np.isnan(found.largest_class_share)


def test_single_precision_does_not_make_rows_of_zeros():
    """1 - softmax = e^-30 is 0 in float32, and is not 0 here: the softmax is taken in float64."""
    net = biased([0.0, 30.0]).float()
    found = class_bias(net, inputs(2, 3, dtype=torch.float32), torch.ones(2, dtype=torch.long))
    assert found.zero_rows == 0
    assert found.gradient[0, 0] == pytest.approx(np.exp(-30), rel=1e-6)


def test_ties_are_counted():
    """Logits of 0 for all classes (Fixup at its start) put no example in any class."""
    found = class_bias(biased([0.0, 0.0, 0.0]), inputs(7, 3), Y)
    assert found.tied == 7
    np.testing.assert_allclose(found.gradient, 1 / 3 - np.eye(3)[Y], atol=1e-15)


@pytest.mark.parametrize(
    ("net", "x", "y", "message"),
    [
        (biased([0.0, 1.0]), inputs(7, 3), Y, r"`y` must be classes 0 to 1; got \(0, 2\)"),
        (biased([0.0, 1.0, 1.0]), inputs(7, 3) / 0, Y, "`x` must be finite; got "),
        (biased([0.0, 1.0, float("inf")]), inputs(7, 3), Y, "`module` must be finite at x; got 'inf or NaN in its"),
    ],
)
def test_batches_without_a_gradient_are_refused(net, x, y, message):
    """One line that names argument, rule and value."""
    with pytest.raises(InvalidArgumentError, match=message):
        class_bias(net, x, y)
