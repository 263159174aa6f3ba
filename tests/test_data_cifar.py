"""CIFAR-10's binary files: records come back as they were written, damaged files are named."""

import numpy as np
import pytest
import torch

from rmtbn._checks import InvalidArgumentError
from rmtbn.data.cifar import RECORD, cifar10


def test_images_and_labels_are_those_of_the_file(tmp_path, write_cifar):
    """1 label byte, then R, G and B planes of 32 × 32 row by row; pixels up to one shift and one scale."""
    labels = [3, 0, 9, 5]
    pixels = write_cifar("data_batch_1.bin", labels).astype(np.float64)
    found = cifar10(tmp_path)
    assert found.targets.tolist() == labels
    assert found.classes == 10
    assert found.inputs.shape == (4, 3, 32, 32)
    raw = found.inputs.numpy() * pixels.std() + pixels.mean()
    np.testing.assert_allclose(raw.reshape(4, 3072), pixels, atol=1e-10)
    assert raw[2, 1, 5, 7] == pytest.approx(pixels[2, 1024 + 5 * 32 + 7])


def test_files_are_read_in_the_order_of_their_names(tmp_path, write_cifar):
    """Partial sets are sets: any number of batches of any number of records; the test batch is apart."""
    write_cifar("data_batch_3.bin", [3, 3])
    write_cifar("data_batch_1.bin", [1])
    write_cifar("test_batch.bin", [7, 8, 9])
    (tmp_path / "batches.meta.txt").write_text("airplane\n")
    assert cifar10(tmp_path).targets.tolist() == [1, 3, 3]
    assert cifar10(str(tmp_path), split="test").targets.tolist() == [7, 8, 9]
    assert cifar10(tmp_path).name == "CIFAR-10 (train, 3 images)"


def by_bytes(folder, name):
    """Return a file's images by the mean and deviation of the training files, found by counting their bytes."""
    files = {path.name: np.frombuffer(path.read_bytes(), dtype=np.uint8) for path in folder.glob("*.bin")}
    pixels = {file: raw.reshape(-1, 3073)[:, 1:] for file, raw in files.items()}
    training = [part for file, part in pixels.items() if file.startswith("data_batch")]
    counts = sum(np.bincount(part.ravel(), minlength=256) for part in training)
    values, total = np.arange(256), counts.sum()
    mean = counts @ values / total
    variance = (counts @ values**2 * total - (counts @ values) ** 2) / total**2
    return (pixels[name].astype(np.float64).reshape(-1, 3, 32, 32) - mean) / np.sqrt(variance)


def write_dark(path, labels):
    """Write images whose pixels are 0 to 63, as those of `write_cifar` (0 to 255) are not."""
    pixels = np.random.default_rng(7).integers(0, 64, size=(len(labels), 3072), dtype=np.uint8)
    path.write_bytes(np.column_stack([np.asarray(labels, dtype=np.uint8), pixels]).tobytes())


def test_training_images_are_standardised(tmp_path, write_cifar):
    """Mean 0 and variance 1 over all files, in float64."""
    write_cifar("data_batch_1.bin", range(10))
    write_dark(tmp_path / "data_batch_2.bin", [1, 2])
    x = cifar10(tmp_path).inputs
    assert x.dtype == torch.float64
    assert float(x.mean()) == pytest.approx(0, abs=1e-14)
    assert float(x.square().mean()) == pytest.approx(1, rel=1e-12)


def test_test_images_are_standardised_by_the_training_images(tmp_path, write_cifar):
    """(x - m)/s, m and s of all training files: a darker test set stays darker, one byte is one number."""
    write_cifar("data_batch_1.bin", range(10))
    write_dark(tmp_path / "data_batch_2.bin", [1, 2])
    write_dark(tmp_path / "test_batch.bin", [3, 4, 5])
    test, train = cifar10(tmp_path, split="test").inputs, cifar10(tmp_path).inputs
    np.testing.assert_allclose(test.numpy(), by_bytes(tmp_path, "test_batch.bin"), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(train[10:].numpy(), by_bytes(tmp_path, "data_batch_2.bin"), rtol=1e-12, atol=1e-13)
    assert float(test.mean()) < -0.9
    assert set(test.unique().tolist()) <= set(train.unique().tolist())


def test_training_images_of_one_grey_are_refused(tmp_path):
    """They have no scale."""
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (tmp_path / name).write_bytes(bytes([3]) + bytes([90]) * 3072)
    for split in ("train", "test"):
        with pytest.raises(InvalidArgumentError, match="`inputs` must be not all the same number; got 90"):
            cifar10(tmp_path, split=split)


def test_bytes_are_counted_over_all_records(tmp_path):
    """2,400 images, more than are counted at a time: half of them at 0, half at 2, give -1 and 1."""
    pixels = np.repeat(np.array([0, 2], dtype=np.uint8), 1200)[:, None] * np.ones((1, 3072), dtype=np.uint8)
    records = np.column_stack([np.zeros(2400, dtype=np.uint8), pixels])
    (tmp_path / "data_batch_1.bin").write_bytes(records.tobytes())
    x = cifar10(tmp_path).inputs
    assert bool((x[:1200] == -1).all() & (x[1200:] == 1).all())


def test_test_images_of_one_grey_are_read(tmp_path, write_cifar):
    """They need a scale of the training images alone."""
    write_cifar("data_batch_1.bin", range(10))
    (tmp_path / "test_batch.bin").write_bytes(bytes([3]) + bytes([90]) * 3072)
    x = cifar10(tmp_path, split="test").inputs
    np.testing.assert_allclose(x.numpy(), by_bytes(tmp_path, "test_batch.bin"), rtol=1e-12)


def test_test_images_without_training_images_are_refused(tmp_path, write_cifar):
    """Nothing to standardise by; a damaged training file is named too."""
    write_cifar("test_batch.bin", [1, 2])
    with pytest.raises(InvalidArgumentError, match=r"holds data_batch_\*\.bin to standardise by; got '.*'") as found:
        cifar10(tmp_path, split="test")
    assert "\n" not in str(found.value)
    write_cifar("data_batch_1.bin", [1], surplus=b"\x01")
    with pytest.raises(InvalidArgumentError, match=r"data_batch_1\.bin: 3074 bytes"):
        cifar10(tmp_path, split="test")


@pytest.mark.parametrize("surplus", [b"\x01", b"\x00" * (RECORD - 1)])
def test_files_of_a_wrong_length_are_named(tmp_path, write_cifar, surplus):
    """A file is a whole number of records of 3,073 bytes."""
    write_cifar("data_batch_1.bin", [1, 2])
    write_cifar("data_batch_2.bin", [1, 2], surplus=surplus)
    size = 2 * RECORD + len(surplus)
    with pytest.raises(
        InvalidArgumentError, match=f"whole records of 3073 bytes; got .*data_batch_2.bin: {size} bytes"
    ):
        cifar10(tmp_path)


def test_empty_files_are_named(tmp_path):
    """Nothing is no record."""
    (tmp_path / "test_batch.bin").touch()
    with pytest.raises(InvalidArgumentError, match=r"`folder` must be .*test_batch\.bin: 0 bytes"):
        cifar10(tmp_path, split="test")


@pytest.mark.parametrize("label", [10, 255])
def test_files_with_labels_above_nine_are_named(tmp_path, write_cifar, label):
    """Ten classes, 0 to 9."""
    write_cifar("data_batch_1.bin", [9, label, 0])
    with pytest.raises(InvalidArgumentError, match=rf"labels 0 to 9; got .*data_batch_1\.bin: label {label}"):
        cifar10(tmp_path)


def test_missing_folders_are_named(tmp_path):
    """The folder that is not there stands in the message."""
    with pytest.raises(InvalidArgumentError, match=r"`folder` must be an existing folder .*nowhere"):
        cifar10(tmp_path / "nowhere")


def test_folders_without_the_files_of_a_split_are_named(tmp_path, write_cifar):
    """A folder that holds the other split only."""
    write_cifar("test_batch.bin", [1])
    with pytest.raises(InvalidArgumentError, match=rf"a folder that holds data_batch_\*\.bin; got '{tmp_path}'"):
        cifar10(tmp_path)


def test_unknown_splits_are_refused(tmp_path):
    """train or test."""
    with pytest.raises(InvalidArgumentError, match="`split` must be one of 'train', 'test'; got 'valid'"):
        cifar10(tmp_path, split="valid")


def test_real_images_are_read(cifar_folder):
    """The subset beside the repository: 5,000 training and 1,000 test images, nearly equally many of each class.

    Neighbouring pixels of a photograph agree: their correlation is near 1, and near 0 if planes or rows were misread.
    """
    for split, count in (("train", 5000), ("test", 1000)):
        found = cifar10(cifar_folder, split=split)
        assert found.inputs.shape == (count, 3, 32, 32)
        name = "data_batch_1.bin" if split == "train" else "test_batch.bin"
        np.testing.assert_allclose(found.inputs.numpy(), by_bytes(cifar_folder, name), rtol=1e-9, atol=1e-12)
        shares = torch.bincount(found.targets, minlength=10) / count
        assert shares.shape == (10,)
        assert (shares - 0.1).abs().max() < 0.03
        x = found.inputs
        for a, b in ((x[..., 1:], x[..., :-1]), (x[..., 1:, :], x[..., :-1, :]), (x[:, :1], x[:, 1:2])):
            assert float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]) > 0.85
