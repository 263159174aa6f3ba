"""Weight files: every kind of file, names and order, and one clear error for whatever is wrong with them."""

import math
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from rmtbn._checks import InvalidArgumentError
from rmtbn.data.weights import check_chain, choose_weights, natural_key, read_weights

STATE = {
    "fc10.weight": torch.arange(6.0).view(2, 3),
    "fc10.bias": torch.ones(2),
    "fc2.weight": torch.eye(3, dtype=torch.float64),
    "steps": torch.tensor([[7, 8]]),
    "half": torch.full((2, 2), 0.5, dtype=torch.bfloat16),
}


def save(path, state=STATE):
    """Write a state in the manner of the file's ending."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.float().numpy() for name, tensor in state.items()})
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("ending", [".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz"])
def test_every_kind_of_file_gives_the_same_tensors(ending, tmp_path):
    """What is written is read back, to the last bit of what the file holds; integers are left out."""
    found = read_weights(save(tmp_path / f"net{ending}"))
    assert {"fc10.weight", "fc10.bias", "fc2.weight", "half"} <= set(found)
    assert all(
        torch.equal(found[name].double(), STATE[name].double()) for name in ("fc10.weight", "fc2.weight", "half")
    )
    assert all(tensor.is_floating_point() for tensor in found.values())
    if ending != ".npz":
        assert "steps" not in found
        assert {name: tensor.dtype for name, tensor in found.items()} == {name: STATE[name].dtype for name in found}


def test_names_of_nested_checkpoints_are_joined_by_dots(tmp_path):
    """{"model": {"a": tensor}, "epoch": 3} holds the tensor model.a."""
    path = tmp_path / "checkpoint.pt"
    torch.save({"model": {"a": torch.eye(2)}, "epoch": 3, "note": "x"}, path)
    assert list(read_weights(path)) == ["model.a"]


@pytest.mark.parametrize("order", ["<f4", ">f8"])
def test_a_single_array_is_named_after_its_file(order, tmp_path):
    """`.npy`, in either byte order; a tensor alone in a `.pt` too."""
    np.save(tmp_path / "first.npy", np.arange(4.0).reshape(2, 2).astype(order))
    (tensor,) = read_weights(tmp_path / "first.npy").values()
    assert tensor.tolist() == [[0, 1], [2, 3]]
    torch.save(torch.eye(2), tmp_path / "one.pt")
    assert list(read_weights(tmp_path / "first.npy")) == ["first"]
    assert list(read_weights(tmp_path / "one.pt")) == ["one"]


def test_weights_come_in_the_order_of_their_numbers_or_of_the_file():
    """fc2 before fc10; biases are no weights; "file" leaves the order alone."""
    floating = {name: tensor for name, tensor in STATE.items() if tensor.is_floating_point()}
    assert list(choose_weights(floating)) == ["fc2.weight", "fc10.weight", "half"]
    assert list(choose_weights(floating, order="file")) == ["fc10.weight", "fc2.weight", "half"]
    assert sorted(["a10b2", "a2b10", "a2b9", "a"], key=natural_key) == ["a", "a2b9", "a2b10", "a10b2"]


def test_patterns_choose_and_order():
    """The names of the first pattern come first, each name once."""
    assert list(choose_weights(STATE, patterns=["fc*", "*"]))[:2] == ["fc2.weight", "fc10.weight"]
    assert list(choose_weights(STATE, patterns=["half", "fc1?.*", "fc*"])) == ["half", "fc10.weight", "fc2.weight"]


def test_a_pattern_without_match_is_refused_with_the_names_there_are():
    with pytest.raises(InvalidArgumentError, match=r"matches one of 'fc10\.weight', 'fc2\.weight'.*got 'conv\*'"):
        choose_weights({name: STATE[name] for name in ("fc10.weight", "fc2.weight")}, patterns=["conv*"])
    with pytest.raises(InvalidArgumentError, match="and 4 more"):
        choose_weights({str(i): torch.eye(2) for i in range(12)}, patterns=["conv*"])


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ({"a": torch.ones(3)}, "weight matrices"),
        ({}, "weight matrices"),
        ({"a": torch.full((2, 2), math.nan)}, "finite.*infinity in a"),
        ({"a": torch.eye(2), "b": torch.full((2, 2), math.inf)}, "finite.*infinity in b"),
        ({"a": torch.ones(0, 2)}, r"not empty.*a of shape \(0, 2\)"),
        ({"a": torch.zeros(2, 2)}, "not all 0.*a is 0"),
    ],
)
def test_weights_that_are_no_good_are_named(state, said):
    with pytest.raises(InvalidArgumentError, match=said):
        choose_weights(state)


def test_matrices_that_do_not_chain_are_both_named():
    """(outputs, inputs): 5 outputs do not go into 4 inputs."""
    check_chain({"a": (5, 3), "b": (2, 5)})
    with pytest.raises(InvalidArgumentError, match="a with 5 outputs before b with 4 inputs"):
        check_chain({"a": (5, 3), "b": (2, 4)})
    with pytest.raises(InvalidArgumentError, match=r"matrices for a product.*conv of shape \(4, 3, 2, 2\)"):
        check_chain({"conv": (4, 3, 2, 2), "b": (2, 4)})


class Stranger:
    """Something that is no tensor."""


def test_files_that_are_no_good_are_named(tmp_path):
    """Missing, of another kind, truncated, text, with other objects than tensors: the file and the rule."""
    whole = {ending: save(tmp_path / f"whole{ending}").read_bytes() for ending in (".safetensors", ".pt", ".npz")}
    for ending, content in whole.items():
        (tmp_path / f"half{ending}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"text{ending}").write_text("weights")
        for name in (f"half{ending}", f"text{ending}"):
            with pytest.raises(InvalidArgumentError, match=rf"`file` must be a.*{name}"):
                read_weights(tmp_path / name)
    torch.save({"a": Stranger()}, tmp_path / "objects.pt")
    np.save(tmp_path / "objects.npy", np.array([Stranger()]), allow_pickle=True)
    for name, rule in (("objects.pt", "state_dict"), ("objects.npy", "numbers"), ("none.pt", "existing")):
        with pytest.raises(InvalidArgumentError, match=f"{rule}.*{name}"):
            read_weights(tmp_path / name)
    (tmp_path / "net.onnx").write_text("")
    with pytest.raises(InvalidArgumentError, match=r"known kind \(\.safetensors.*net\.onnx"):
        read_weights(tmp_path / "net.onnx")


def test_without_the_library_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = save(tmp_path / "net.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors", None)
    with pytest.raises(InvalidArgumentError, match=r"pip install safetensors.*net\.safetensors"):
        read_weights(path)
