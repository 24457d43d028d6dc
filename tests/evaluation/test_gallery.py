"""Which images a gallery shows, and what its file holds."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from dcae_bench.evaluation.gallery import choose_images, write_gallery


def test_the_worst_come_first_and_the_median_lie_in_the_middle():
    chosen = choose_images(np.array([0.1, 0.9, 0.5, 0.3, 0.7]), 1)
    assert (chosen.worst, chosen.median) == ((1,), (2,))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.integers(0, 40))
def test_the_choice_is_of_the_right_size_and_order(distances, count):
    chosen = choose_images(np.array(distances), count)
    assert len(chosen.worst) == len(chosen.median) == min(count, len(distances))
    shown = [distances[index] for index in chosen.worst]
    assert shown == sorted(distances, reverse=True)[: len(shown)]
    below = sum(distance < min(distances[i] for i in chosen.median) for distance in distances) if chosen.median else 0
    above = sum(distance > max(distances[i] for i in chosen.median) for distance in distances) if chosen.median else 0
    assert max(below, above) <= (len(distances) - len(chosen.median) + 1) // 2


def test_the_file_holds_pairs_with_their_values(evaluator, crops, images, tmp_path):
    def darker(real, indices):
        # The higher the index, the stronger the change.
        return torch.stack(
            [(image * (1 - index / 40)).to(torch.uint8) for image, index in zip(real, indices, strict=True)]
        )

    measured = evaluator.measure(darker, crops, tmp_path / "state")
    path = tmp_path / "gallery.npz"
    write_gallery(path, measured, darker, crops, torch.device("cpu"), 3)
    with np.load(path, allow_pickle=False) as content:
        assert content["images"].shape == (6, 2, 64, 64, 3)
        assert list(content["group"]) == ["worst"] * 3 + ["median"] * 3
        first = int(content["key"][0].removeprefix("image-"))
        np.testing.assert_array_equal(content["images"][0, 0], images[first].permute(1, 2, 0))
        np.testing.assert_array_equal(content["images"][0, 1], darker(images[first][None], [first])[0].permute(1, 2, 0))
        assert content["lpips_alex_u8"][0] == measured.column("lpips_alex_u8").max()
        assert content["psnr"][0] == measured.column("psnr")[first]
