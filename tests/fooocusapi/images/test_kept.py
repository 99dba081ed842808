"""Pictures that came with requests: found again, shared, let go, and cleared away after a restart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fooocus_core.errors import MissingPicture
from fooocus_core.plan import Guide, Guides, Repaint, StartPicture
from fooocusapi.images.kept import KeptPictures, pictures_of
from tests.fooocusapi.fakes import a_plan


def noise(channels: int = 3, seed: int = 1) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (9, 11, channels), np.uint8)


@pytest.mark.parametrize("channels", [3, 4])
def test_every_pixel_comes_back(tmp_path: Path, channels: int) -> None:
    kept = KeptPictures(tmp_path / "inputs")
    assert np.array_equal(kept.read(kept.keep(noise(channels))), noise(channels))


def test_a_picture_goes_with_the_last_that_keeps_it(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path)
    name = kept.keep(noise())
    assert kept.keep(noise()) == name != kept.keep(noise(seed=2))
    assert len(list(tmp_path.iterdir())) == 2
    kept.let_go([name])
    assert np.array_equal(kept.read(name), noise())
    kept.let_go([name])
    with pytest.raises(MissingPicture):
        kept.read(name)
    assert len(list(tmp_path.iterdir())) == 1


def test_what_no_job_has_taken_over_goes(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path)
    with kept.held() as held:
        taken, spare = held.keep(noise()), held.keep(noise(seed=2))
        assert held.keep(noise()) == taken
        held.hand_over([taken])
    with pytest.raises(MissingPicture):
        kept.read(spare)
    assert np.array_equal(kept.read(taken), noise())
    kept.let_go([taken])
    assert not list(tmp_path.iterdir())


def test_nothing_stays_after_a_failure(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path)

    def fail() -> None:
        with kept.held() as held:
            held.keep(noise())
            raise ValueError("no room")

    with pytest.raises(ValueError, match="no room"):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_job_may_end_before_it_was_told_of(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path)
    with kept.held() as held:
        name = held.keep(noise())
        kept.let_go([name])
        held.hand_over([name])
    assert not list(tmp_path.iterdir())
    assert kept.keep(noise()) == name
    kept.let_go([name])
    assert not list(tmp_path.iterdir())


def test_after_a_restart_only_what_jobs_wait_for_is_there(tmp_path: Path) -> None:
    before = KeptPictures(tmp_path)
    wanted, other = before.keep(noise()), before.keep(noise(seed=2))
    kept = KeptPictures(tmp_path)
    kept.keep_only([wanted, wanted])
    assert [path.stem for path in tmp_path.iterdir()] == [wanted]
    kept.let_go([wanted])
    assert np.array_equal(kept.read(wanted), noise())
    kept.let_go([wanted])
    assert not list(tmp_path.iterdir())
    with pytest.raises(MissingPicture):
        kept.read(other)


@pytest.mark.parametrize("name", ["", "../secret", "/etc/passwd", "a" * 63, "A" * 64, "0" * 64 + "\n"])
def test_other_names_are_never_looked_up(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.png").write_bytes(b"")
    with pytest.raises(MissingPicture):
        KeptPictures(tmp_path / "inputs").read(name)


def test_a_damaged_file_is_a_missing_picture(tmp_path: Path) -> None:
    kept = KeptPictures(tmp_path)
    name = kept.keep(noise())
    path = next(tmp_path.iterdir())
    for data in (b"", path.read_bytes()[:60]):
        path.write_bytes(data)
        with pytest.raises(MissingPicture):
            kept.read(name)


def test_the_pictures_of_a_plan() -> None:
    plan = a_plan()
    start = StartPicture("abc", "Vary (Subtle)", 0.5)
    repaint, guide = Repaint("def", mask="fed"), Guide("abc", "CPDS", 0.5, 1.0)
    assert pictures_of(None) == pictures_of(plan) == ()
    assert pictures_of(replace(plan, stages=(replace(plan.stages[0], start=start),))) == ("abc",)
    stage = replace(plan.stages[0], start=start, repaint=repaint, guides=Guides((guide, guide)))
    assert pictures_of(replace(plan, stages=(stage,))) == ("abc", "def", "fed", "abc", "abc")
