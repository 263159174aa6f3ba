"""Activations: sympy's form, numpy's, torch's and the closed-form Gaussian moments say the same."""

import math

import golden
import mpmath as mp
import numpy as np
import pytest
import sympy
import torch
from cases import ACTIVATION_NAMES

from rmtbn._checks import InvalidArgumentError
from rmtbn.activations import ACTIVATIONS, LEAKY_SLOPE, SELU_ALPHA, SELU_SCALE, Activation, activation, leaky_relu
from rmtbn.nets.activations import TORCH_ACTIVATIONS, activation_module

X = sympy.Symbol("x", real=True)
POINTS = np.concatenate([-np.geomspace(30, 1e-8, 41), np.geomspace(1e-8, 30, 41)])
MOMENTS = [
    pytest.param(record, which, id=f"{record.name}-{which}")
    for record in (*ACTIVATIONS.values(), leaky_relu(0.3))
    for which in ("second_moment", "slope_second_moment")
    if getattr(record, which) is not None
]


def symbolic(record: Activation) -> sympy.Expr:
    return sympy.sympify(record.formula, locals={"x": X})


def exact(expression: sympy.Expr, x: float) -> mp.mpf:
    """The expression at the exact float x, to 40 digits (900 on the way: 1 + erf(-30) starts at the 392nd)."""
    return mp.mpf(str(expression.subs(X, sympy.Rational(x)).evalf(40, maxn=900)))


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_numpy_values_are_the_formula(name):
    """φ(x) against sympy's 40 digits, over 9 decades of x; e^{-x²/2} loses up to x² ulp, 900 at x = 30."""
    record = ACTIVATIONS[name]
    formula = symbolic(record)
    expected = [float(exact(formula, x)) for x in POINTS]
    np.testing.assert_allclose(record.phi(POINTS), expected, rtol=2e-13 if name == "gelu" else 4e-16, atol=1e-300)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_numpy_slopes_are_the_derivative_of_the_formula(name):
    """φ′(x), away from the kinks, to rounding of φ′'s own scale 1 against sympy's derivative."""
    record = ACTIVATIONS[name]
    slope = sympy.diff(symbolic(record).rewrite(sympy.Piecewise), X)
    expected = [float(exact(slope, x)) for x in POINTS]
    np.testing.assert_allclose(record.dphi(POINTS), expected, rtol=1e-13, atol=3e-16)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_numpy_forms_stand_large_arguments(name):
    """No overflow, no NaN at ±1e8: φ(x)/x tends to the outer slopes and φ′ to them too."""
    record, x = ACTIVATIONS[name], np.array([-1e8, 1e8])
    assert np.isfinite(record.phi(x)).all()
    np.testing.assert_allclose(record.dphi(x), record.phi(x) / x, atol=1e-7)


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_kinks_are_where_the_slope_jumps(name):
    """Between kinks φ′ is continuous, at each it jumps or (SELU's mirror: nowhere) φ″ does."""
    record = ACTIVATIONS[name]
    grid = np.linspace(-3, 3, 600_001)
    jumps = grid[:-1][np.abs(np.diff(record.dphi(grid))) > 1e-3]
    np.testing.assert_allclose(np.unique(np.round(jumps, 3)) + 0.0, record.kinks, atol=2e-3)
    if record.slopes is not None:
        middles = np.array([-2.0, *record.kinks, 2.0])
        inner = (middles[1:] + middles[:-1]) / 2
        np.testing.assert_array_equal(record.dphi(inner), record.slopes)


@pytest.mark.parametrize(("record", "which"), MOMENTS)
@pytest.mark.parametrize("q", [1e-12, 1e-2, 1.0, 30.0, 1e4, 1e12])
def test_closed_form_moments_are_the_gaussian_integrals(record, which, q):
    """E φ(h)², E φ′(h)² for h ~ N(0, q), against 20-digit quadrature of sympy's φ, cut at kinks and scales."""
    expected = moment(record, which, q)
    assert float(getattr(record, which)(np.array(q))) == pytest.approx(float(expected), rel=1e-13)


def moment(record: Activation, which: str, q: float) -> mp.mpf:
    """∫ f(h)² N(h; 0, q) dh by mpmath, panel by panel."""
    formula = symbolic(record)
    expression = formula if which == "second_moment" else sympy.diff(formula.rewrite(sympy.Piecewise), X)
    f = sympy.lambdify(X, expression, modules="mpmath")
    with mp.workdps(20):
        root = mp.sqrt(mp.mpf(q))
        scales = [s * mp.mpf(t) for t in (0.01, 0.3, 1, 2, 4, 8, 16, 32) for s in (1, root)] + [root * 14]
        cuts = sorted({t for s in scales for t in (s, -s) if abs(t) <= 14 * root} | {mp.mpf(k) for k in record.kinks})
        cuts = sorted({*cuts, mp.mpf(0)})
        return mp.quad(lambda h: f(h) ** 2 * mp.exp(-h * h / (2 * q)), cuts) / (root * mp.sqrt(2 * mp.pi))


@pytest.mark.parametrize("name", ACTIVATION_NAMES)
def test_torch_values_and_slopes_are_those_of_numpy(name):
    """Forward and autograd's derivative to rounding of the scale 1, and the same choice of slope at the kinks."""
    record = ACTIVATIONS[name]
    points = np.concatenate([POINTS, record.kinks])
    x = torch.tensor(points, requires_grad=True)
    y = activation_module(name)(x)
    np.testing.assert_allclose(y.detach().numpy(), record.phi(points), rtol=1e-14, atol=1e-15)
    (slope,) = torch.autograd.grad(y.sum(), x)
    np.testing.assert_allclose(slope.numpy(), record.dphi(points), rtol=1e-12, atol=1e-15)


def test_both_registries_hold_the_same_names():
    """Every activation that theory knows can be built, and the other way round; a record's name is its key."""
    assert set(TORCH_ACTIVATIONS) == set(ACTIVATIONS)
    assert all(record.name == name for name, record in ACTIVATIONS.items())


def test_constants_are_those_in_print():
    """SELU's λ and α: the fixed point mean 0, variance 1 of N(0, 1) inputs, and the digits in the paper."""
    assert golden.SELU_CONSTANTS["scale"].agrees(SELU_SCALE)
    assert golden.SELU_CONSTANTS["alpha"].agrees(SELU_ALPHA)
    with mp.workdps(30):
        scale, alpha = mp.mpf(SELU_SCALE), mp.mpf(SELU_ALPHA)
        below = [mp.quad(lambda z, k=k: mp.npdf(z) * mp.expm1(z) ** k, [-mp.inf, -1, 0]) for k in (1, 2)]
        assert abs(scale * (mp.npdf(0) + alpha * below[0])) < 1e-15
        assert abs(scale**2 * (mp.mpf(1) / 2 + alpha**2 * below[1]) - 1) < 1e-14
    assert torch.nn.LeakyReLU().negative_slope == LEAKY_SLOPE


def test_leaky_relu_of_any_slope_is_between_linear_and_relu():
    """a = 1 is linear, a = 0 is ReLU."""
    q = np.geomspace(1e-3, 1e3, 7)
    for slope, twin in ((1.0, "linear"), (0.0, "relu")):
        record = leaky_relu(slope)
        np.testing.assert_allclose(record.phi(POINTS), ACTIVATIONS[twin].phi(POINTS))
        np.testing.assert_allclose(record.second_moment(q), ACTIVATIONS[twin].second_moment(q))
        np.testing.assert_allclose(record.slope_second_moment(q), ACTIVATIONS[twin].slope_second_moment(q))


def test_records_pass_where_names_do():
    """A record of one's own is as good as a name."""
    own = Activation(name="square", formula="x**2", phi=np.square, dphi=lambda x: 2 * x)
    assert activation(own) is own
    assert activation("relu") is ACTIVATIONS["relu"]


@pytest.mark.parametrize("find", [activation, activation_module])
def test_unknown_names_are_refused(find):
    """The message lists what there is."""
    with pytest.raises(InvalidArgumentError, match=r"`activation` must be one of 'linear', 'relu', .*; got 'Relu'"):
        find("Relu")


def test_leaky_relu_refuses_a_slope_that_is_no_number():
    """The slope is a finite number."""
    with pytest.raises(InvalidArgumentError, match="`negative_slope` must be a finite number; got nan"):
        leaky_relu(math.nan)
