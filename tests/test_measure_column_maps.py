"""Maps of columns against dense matrices: Kronecker products and block diagonals."""

import pytest
import torch
from cases import inputs

from rmtbn.measure.column_maps import Blocks, Mixing

K, FEATURES = 4, 3
MIXING = Mixing(weight=inputs(FEATURES, FEATURES), rows=K)
BLOCKS = Blocks(blocks=inputs(FEATURES, K, K))
DENSE = {
    "mixing": (MIXING, torch.kron(MIXING.weight, torch.eye(K).double())),
    "blocks": (BLOCKS, torch.block_diag(*BLOCKS.blocks)),
}


@pytest.mark.parametrize("name", DENSE)
def test_maps_are_their_matrices(name):
    """W ⊗ I and diag(A_1, …), their transposes and inverses."""
    move, matrix = DENSE[name]
    columns = inputs(FEATURES * K, 5)
    torch.testing.assert_close(move(columns), matrix @ columns)
    torch.testing.assert_close(move.transposed()(columns), matrix.mT @ columns)
    torch.testing.assert_close(move.inverse()(columns), torch.linalg.solve(matrix, columns))
    torch.testing.assert_close(move.inverse().inverse()(columns), matrix @ columns)


def test_inverses_given_are_taken():
    """Of a block known better than by inversion, transposed too."""
    move = Blocks(blocks=BLOCKS.blocks, back=2.0 * BLOCKS.blocks)
    assert torch.equal(move.inverse().blocks, 2.0 * BLOCKS.blocks)
    assert torch.equal(move.transposed().inverse().blocks, 2.0 * BLOCKS.blocks.mT)


@pytest.mark.parametrize("move", [
    Mixing(weight=inputs(3, 2), rows=K),
    Mixing(weight=torch.ones(2, 2).double(), rows=K),
    Blocks(blocks=inputs(2, 4, 3)),
    Blocks(blocks=torch.zeros(2, 3, 3).double()),
    Blocks(blocks=inputs(2, 3, 3), back=torch.full((2, 3, 3), torch.inf).double()),
])  # fmt: skip
def test_maps_without_inverse_say_so(move):
    """Not square, or singular."""
    assert move.inverse() is None


def test_isometries_change_no_singular_value():
    """Q R of tall blocks: R has the same values; square blocks stay."""
    tall = Blocks(blocks=inputs(2, 5, 3))
    cut = tall.without_isometry()
    assert cut.blocks.shape == (2, 3, 3)
    torch.testing.assert_close(torch.linalg.svdvals(cut.blocks), torch.linalg.svdvals(tall.blocks))
    assert BLOCKS.without_isometry() is BLOCKS
