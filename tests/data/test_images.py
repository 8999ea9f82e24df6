"""One image of any mode and size: the pixels that come out."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from ganfast.data import open_dataset
from ganfast.data.images import Frame, check_proportions, half_width, halves, is_grey, narrow, to_frame, upright
from ganfast.errors import InputError


def decode(file, size, channels):
    return to_frame(upright(file), Frame(size, size, channels))


def through_file(image, size=16, channels=3, format="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return decode(BytesIO(buffer.getvalue()), size, channels)


def test_rgb_and_grey_of_the_right_size_are_untouched(picture):
    for mode, channels in (("RGB", 3), ("L", 1)):
        expected = np.asarray(picture(1, mode=mode)).reshape(16, 16, channels)
        np.testing.assert_array_equal(through_file(picture(1, mode=mode), channels=channels), expected)


@pytest.mark.parametrize(
    "format, mode", [("PNG", np.uint16), ("TIFF", np.uint16), ("TIFF", np.int32), ("PPM", np.int32)]
)
def test_16_bit_ramp_is_scaled_not_clipped(format, mode):
    ramp = np.arange(256, dtype=mode).reshape(16, 16) * 257  # 0 … 65535
    pixels = through_file(Image.fromarray(ramp), channels=1, format=format)
    np.testing.assert_array_equal(pixels[..., 0].ravel(), np.arange(256))


def test_16_bits_round_to_the_nearest():
    np.testing.assert_array_equal(narrow(np.array([0, 128, 129, 257, 385, 386, 65535])), [0, 0, 1, 1, 1, 2, 255])


def test_32_bit_integers_beyond_16_bits_are_refused():
    image = Image.fromarray(np.full((16, 16), 70000, np.int32))
    with pytest.raises(InputError, match="70000"):
        through_file(image, format="TIFF")


def test_float_image_is_refused_with_advice():
    with pytest.raises(InputError, match=r"32-bit floats.*\.npy"):
        through_file(Image.new("F", (16, 16)), format="TIFF")


def test_palette_gives_its_colours():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    assert (through_file(image) == [200, 100, 50]).all()


def test_transparent_palette_entry_is_white():
    image = Image.new("P", (16, 16), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.paste(0, (0, 0, 8, 16))
    pixels = through_file(image, transparency=0)
    assert (pixels[:, :8] == 255).all() and (pixels[:, 8:] == [200, 100, 50]).all()


def test_alpha_lies_on_white():
    image = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    image.paste((255, 0, 0, 255), (0, 0, 16, 4))
    image.paste((100, 0, 200, 51), (0, 4, 16, 8))  # one fifth of the colour, four fifths of white
    pixels = through_file(image)
    assert (pixels[:4] == [255, 0, 0]).all()
    assert (pixels[4:8] == [224, 204, 244]).all()
    assert (pixels[8:] == 255).all()


def test_grey_with_alpha_lies_on_white():
    pixels = through_file(Image.new("LA", (16, 16), (0, 51)), channels=1)
    assert (pixels == 204).all()


def test_one_bit_is_black_and_white():
    image = Image.new("1", (16, 16), 1)
    image.paste(0, (0, 0, 16, 8))
    pixels = through_file(image, channels=1)
    assert (pixels[:8] == 0).all() and (pixels[8:] == 255).all()


def test_cmyk_jpeg_becomes_rgb():
    pixels = through_file(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), format="JPEG", quality=100)
    assert pixels[..., 0].min() > 240 and pixels[..., 1:].max() < 15


def test_exif_orientation_is_applied():
    image = Image.new("RGB", (16, 16), "white")
    image.paste("black", (0, 0, 16, 8))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter clockwise: the upper half goes right
    pixels = through_file(image, exif=exif)
    assert (pixels[:, 8:] == 0).all() and (pixels[:, :8] == 255).all()


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (16, 16), c) for c in ("red", "blue")]
    pixels = through_file(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize("turned", [False, True])
def test_the_middle_square_is_kept(turned):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 255
    image = Image.fromarray(wide.transpose(1, 0, 2) if turned else wide)
    assert (through_file(image) == 255).all()


def test_resizing_is_pillows_lanczos(picture):
    expected = np.asarray(picture(2, 40).resize((32, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(through_file(picture(2, 40), size=32), expected)


@pytest.mark.parametrize("width, half", [(32, 16), (33, 16), (16, 8)])
def test_halves_are_of_one_size(width, half):
    ramp = np.arange(width, dtype=np.uint8)[None].repeat(10, 0)
    left, right = halves(Image.fromarray(ramp))
    assert left.size == right.size == (half, 10)
    np.testing.assert_array_equal(np.asarray(left)[0], ramp[0, :half])
    np.testing.assert_array_equal(np.asarray(right)[0], ramp[0, -half:])


def test_a_picture_too_narrow_for_two_sides():
    with pytest.raises(InputError, match="15 pixels wide"):
        half_width(15)


@pytest.mark.parametrize(
    "one, other, alike",
    [
        ((64, 48), (64, 48), True),
        ((64, 48), (128, 96), True),
        ((375, 500), (256, 341), True),  # rounded
        ((64, 64), (64, 48), False),
        ((64, 48), (48, 64), False),
        ((512, 256), (256, 140), False),
    ],
)
def test_sides_of_a_pair_have_the_same_proportions(one, other, alike):
    for pair in ((one, other), (other, one)):
        if alike:
            check_proportions(*pair)
        else:
            with pytest.raises(InputError, match=f"{pair[0][0]}×{pair[0][1]} and {pair[1][0]}×{pair[1][1]} pixels"):
                check_proportions(*pair)


@pytest.mark.parametrize(
    "mode, grey", [("1", True), ("L", True), ("LA", True), ("I;16", True), ("RGB", False), ("P", False)]
)
def test_which_modes_are_grey(mode, grey):
    assert is_grey(Image.new(mode, (16, 16))) is grey


def test_postscript_is_not_run(monkeypatch):
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *args: pytest.fail("run"))
    program = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(InputError, match="Ghostscript"):
        decode(BytesIO(program), 16, 3)


@pytest.mark.parametrize("side", [16_000, 100_000])  # above the limit, and where Pillow itself raises
def test_bomb_is_refused_from_its_header(tmp_path, monkeypatch, side, recwarn):
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    (tmp_path / "bomb.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match=r"bomb\.png: .*pixels.*--skip-bad"):
        open_dataset(str(tmp_path))
    assert not [w for w in recwarn if issubclass(w.category, Image.DecompressionBombWarning)]


def png_header(width, height):
    """A PNG that claims a size and holds one empty chunk of pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# -- EXIF, large photographs, proportions ------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG"])
@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b""])
def test_exif_that_cannot_be_read_is_ignored(picture, format, exif):
    quality = {"lossless": True} if format == "WEBP" else {}
    plain = through_file(picture(1), format=format, **quality)
    np.testing.assert_array_equal(through_file(picture(1), format=format, exif=exif, **quality), plain)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_their_exif_says(picture, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = BytesIO()
    picture(1, 32).crop((0, 0, 32, 16)).save(buffer, "PNG", exif=exif)
    with Image.open(BytesIO(buffer.getvalue())) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(np.asarray(upright(BytesIO(buffer.getvalue()))), expected)


def test_a_photograph_of_108_megapixels(tmp_path):
    shade = Image.linear_gradient("L").resize((12_000, 9_000))
    shade.save(tmp_path / "a.jpg")
    limit = Image.MAX_IMAGE_PIXELS
    data = open_dataset(str(tmp_path), size=64)
    expected = np.asarray(Image.linear_gradient("L").resize((64, 64)), int)
    assert abs(data.samples[0, ..., 0].numpy().astype(int) - expected).max() <= 4
    assert limit == Image.MAX_IMAGE_PIXELS


def test_a_large_png_is_reduced_before_it_is_resized(tmp_path):
    pixels = np.asarray(Image.linear_gradient("L").resize((4800, 4000)))
    Image.fromarray(np.dstack([pixels, np.full_like(pixels, 128)]), "LA").save(tmp_path / "a.png", compress_level=1)
    data = open_dataset(str(tmp_path), size=32)
    expected = np.asarray(Image.linear_gradient("L").resize((32, 32)), int) / 2 + 127.5
    assert abs(data.samples[0, ..., 0].numpy() - expected).max() <= 3


@pytest.mark.parametrize(
    "fit, size, box",
    [("crop", (16, 16), (8, 0, 24, 16)), ("crop", (16, 24), (4, 0, 28, 16)), ("stretch", (16, 16), None)],
)
def test_fit(picture, fit, size, box):
    image = picture(1, 32).crop((0, 0, 32, 16))
    height, width = size
    expected = image.crop(box) if box else image
    expected = np.asarray(expected.resize((width, height), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(to_frame(image, Frame(height, width, 3, fit)), expected)


def test_padding_is_white_and_loses_nothing(picture):
    image = picture(1, 32).crop((0, 0, 32, 16))
    found = to_frame(image, Frame(16, 16, 3, "pad"))
    assert (found[:4] == 255).all() and (found[12:] == 255).all()
    np.testing.assert_array_equal(found[4:12], np.asarray(image.resize((16, 8), Image.Resampling.LANCZOS)))


@given(st.integers(8, 300), st.integers(8, 300), st.sampled_from([(16, 16), (32, 16), (16, 56)]),
       st.sampled_from(["crop", "pad", "stretch"]), st.sampled_from([1, 3]))  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_proportions_fit(width, height, size, fit, channels):
    image = Image.new("RGB", (width, height), "red")
    assert to_frame(image, Frame(*size, channels, fit)).shape == (*size, channels)
