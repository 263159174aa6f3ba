"""Printed numbers of papers and of the project's theory notes, each with its digits and its source."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Printed:
    """A number as it stands in print: text keeps the digits, source says where."""

    text: str
    source: str

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text)

    @property
    def half_unit(self) -> float:
        """Half a unit of the last printed digit (and a hair for rounding ties)."""
        return 0.501 * 10.0 ** -len(self.text.partition(".")[2])

    def agrees(self, value: float) -> bool:
        """Whether `value` rounds to what is printed."""
        return abs(value - self.value) <= self.half_unit


def _table(source: str, rows: dict[tuple[object, ...], str]) -> dict[tuple[object, ...], Printed]:
    return {key: Printed(text, source) for key, text in rows.items()}


# (φ, σ_b²) → σ_w² on the order-to-chaos line
CRITICAL_WEIGHT_VARIANCE = _table(
    "theory notes on unnormalised networks, section C",
    {
        ("tanh", 0.0): "1",
        ("tanh", 0.01): "1.4242052905",
        ("tanh", 0.05): "1.7609546396",
        ("tanh", 0.1): "1.9860726411",
        ("tanh", 0.25): "2.4014892351",
        ("erf", 0.0): "0.7853981634",
        ("erf", 0.01): "1.1142800634",
        ("erf", 0.05): "1.3758390073",
        ("erf", 0.1): "1.5521178553",
        ("erf", 0.25): "1.8805472588",
        ("hard_tanh", 0.0): "1",
        ("hard_tanh", 0.01): "1.0520612094",
        ("hard_tanh", 0.05): "1.1655446896",
        ("hard_tanh", 0.1): "1.2634059324",
        ("hard_tanh", 0.25): "1.4717276992",
    },
)
CRITICAL_LENGTH = _table(
    "theory notes on unnormalised networks, section C: q* at σ_b² = 0.05", {("tanh", 0.05): "0.5700478816"}
)
# φ → (σ_w², σ_b², q*) where the critical fixed point turns from repelling to attracting
HALF_STABLE = {
    name: tuple(Printed(text, "theory notes on unnormalised networks, section C") for text in texts)
    for name, texts in {
        "gelu": ("1.9830582574", "0.1729223908", "3.5615528128"),
        "silu": ("1.9880046783", "0.5551431707", "14.3201736180"),
    }.items()
}
# (φ, B) → λ_G, growth of the squared gradient norm per batch-normalised layer
EXPLOSION_RATE = _table(
    "theory notes on batch normalisation, section A",
    {
        ("linear", 8): "1.2",
        ("relu", 8): "1.788190",
        ("tanh", 8): "1.358548",
        ("linear", 32): "1.034483",
        ("relu", 32): "1.521953",
        ("tanh", 32): "1.208303",
        ("linear", 128): "1.008",
        ("relu", 128): "1.479681",
        ("tanh", 128): "1.184853",
        ("tanh", float("inf")): "1.177807",
        ("erf", float("inf")): "1.225700",
        ("gelu", float("inf")): "1.318845",
        ("relu", float("inf")): "1.466942",
    },
)
# (φ, weights, L) → ln of the upper edge of the Jacobian's squared singular values at criticality
LOG_EDGE = _table(
    "theory notes on unnormalised networks, section D",
    {
        (activation, weights, depth): text
        for (activation, weights), row in {
            ("linear", "gaussian"): ("1.9095425", "3.1394889", "5.1666552", "7.9319599"),
            ("relu", "gaussian"): ("2.4060591", "3.7738863", "5.8520506", "8.6246191"),
            ("relu", "orthogonal"): ("1.3862944", "3.0141613", "5.1510296", "7.9309834"),
            ("tanh", "orthogonal"): ("1.0057428", "2.1248883", "4.1025889", "6.8602812"),  # σ_b² = 0.05
            ("tanh", "gaussian"): ("2.1431115", "3.4156902", "5.4585990", "8.2261600"),  # σ_b² = 0.05
        }.items()
        for depth, text in zip((2, 8, 64, 1024), row, strict=True)
    },
)
SELU_CONSTANTS = {
    "scale": Printed("1.0507", "Klambauer et al. 2017, arXiv:1706.02515, section 2: λ"),
    "alpha": Printed("1.6733", "Klambauer et al. 2017, arXiv:1706.02515, section 2: α"),
}
