"""The bundled finder of faces, beside what facenet-pytorch finds with the same weights in float32."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fooocus_core.errors import UnsupportedModel
from fooocus_core.masks.models import FACE_FINDER_FILE
from fooocus_core.models.checkpoint import open_checkpoint
from fooocus_core.models.mtcnn import Mtcnn, load_mtcnn
from tests.fooocus_core.masks.photographs import astronaut, coffee

RECORDED = np.array((181.05, 62.16, 267.75, 172.05))
"""facenet-pytorch 2.6.0, ``MTCNN(keep_all=True).detect``: the box around the astronaut's face."""


@pytest.fixture(scope="module")
def finder() -> Mtcnn:
    file = open_checkpoint(FACE_FINDER_FILE)
    return load_mtcnn(file.tensors, file.name)


def test_a_face_is_found_where_the_reference_finds_it(finder: Mtcnn) -> None:
    [face] = finder.detect(astronaut()[0])
    assert face.score > 0.99
    assert np.abs(face.box - RECORDED).max() < 4


def test_two_faces_and_a_picture_of_another_size(finder: Mtcnn) -> None:
    picture = np.ascontiguousarray(np.concatenate([astronaut()[0], astronaut()[0][:, ::-1]], 1)[:256, :, :])
    faces = finder.detect(picture)
    assert len(faces) == 2
    assert sorted(round(float(face.box[[0, 2]].mean()) / 100) for face in faces) == [2, 8]


def test_nothing_is_found_where_there_is_no_face(finder: Mtcnn) -> None:
    assert finder.detect(coffee()[0]) == []
    for shape in ((1, 1, 3), (3, 4000, 3), (40, 40, 3)):
        assert finder.detect(np.zeros(shape, np.uint8)) == []


def test_another_file_is_refused() -> None:
    with pytest.raises(UnsupportedModel, match=r"other\.safetensors"):
        load_mtcnn({"proposing.features.0.weight": torch.zeros(1)}, "other.safetensors")
