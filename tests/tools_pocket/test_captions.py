"""Captions say what the scene shows, and the tokenizer gives both encoders what they expect."""

import random

import numpy as np

from tools.pocket.captions import COLOURS, caption, compose, draw_scene, empty_caption, plain_scene
from tools.pocket.render_pictures import Picture, PictureSet, icon_slug
from tools.pocket.tokenizer import TOKENS, Encoder, Vocabulary
from tools.pocket.train_denoiser import canvas_sizes, held_out

APPLE = Picture("flat", ("red apple", "apple"), ("fruit",))


def disc_set(side: int = 32) -> PictureSet:
    """One red disc on transparency."""
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    pixels = np.zeros((1, side, side, 4), np.uint8)
    pixels[0, rows**2 + columns**2 < (side / 2) ** 2] = (220, 30, 30, 255)
    return PictureSet(pixels, (APPLE,))


def test_caption_names_thing_style_and_background() -> None:
    rng = random.Random(5)
    for _ in range(50):
        scene = draw_scene(0, rng)
        text = caption(scene, APPLE, rng)
        assert "apple" in text
        assert "flat" in text
        assert scene.colour is None or f"{scene.colour} background" in text
        assert scene.place is None or scene.place in text


def test_only_the_default_style_may_go_unnamed() -> None:
    rng = random.Random(6)
    glossy = Picture("3d", ("fox",), ())
    texts = {caption(plain_scene(0), glossy, rng) for _ in range(60)}
    assert any("3d" not in text for text in texts)
    assert any("3d" in text for text in texts)


def test_empty_captions_are_empty_or_generic() -> None:
    rng = random.Random(7)
    texts = [empty_caption(rng) for _ in range(40)]
    assert "" in texts
    assert any(texts)


def test_scene_is_drawn_where_and_on_what_it_says() -> None:
    canvas = compose(plain_scene(0), disc_set(), 40, 56, random.Random(0))
    assert canvas.shape == (3, 40, 56)
    assert canvas[:, 0, 0].tolist() == [1.0, 1.0, 1.0]
    assert canvas[0, 20, 28] > 0.5 > canvas[1, 20, 28]
    coloured = plain_scene(0).__class__(0, "blue", "on the left", small=False)
    drawn = compose(coloured, disc_set(), 40, 56, random.Random(0))
    assert np.allclose((drawn[:, 0, 55].numpy() + 1) * 127.5, COLOURS["blue"], atol=1)


def test_sizes_are_multiples_of_eight_of_one_area() -> None:
    for height, width, _ in canvas_sizes(96):
        assert height % 8 == width % 8 == 0
        assert 0.8 < height * width / 9216 < 1.2
    assert canvas_sizes(96)[1][:2] == (88, 112)


def test_held_out_pictures_keep_other_styles_of_their_name() -> None:
    pictures = tuple(Picture(style, (f"thing {i}",), ()) for i in range(30) for style in ("3d", "flat", "cartoon"))
    hidden = held_out(pictures)
    assert len(hidden) == 20
    assert len({pictures[index].name for index in hidden}) == 20
    assert held_out(pictures) == hidden


def test_tokenizer_pads_each_encoder_its_own_way() -> None:
    vocabulary = Vocabulary.learn(["red apple", "green apple"] * 9, 560)
    assert max(vocabulary.vocab.values()) == vocabulary.size - 1
    first, second = Encoder(vocabulary)(["Red  APPLE", "猫 é", "a " * 100])
    assert first.shape == second.shape == (3, TOKENS)
    begin, end = vocabulary.size - 2, vocabulary.size - 1
    assert first[0, 0] == second[0, 0] == begin
    assert first[0, 3] == second[0, 3] == end
    assert first[0, 4:].eq(end).all()
    assert second[0, 4:].eq(0).all()
    assert first[2, -1] == end


def test_icon_slug() -> None:
    assert icon_slug("rescue worker\u2019s helmet") == "rescue-workers-helmet"
    assert icon_slug("T-Rex") == "t-rex"
