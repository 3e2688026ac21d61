"""Pictures: panels, titles, all-zero maps, selections, and the forms that images and maps may have."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from networks import ConvNet, images
from PIL import Image

from captum_sgcampp import GuidedGradCamPlusPlus, LayerGradCamPlusPlus, box_to_neurons
from captum_sgcampp.vision.images import as_rgb
from captum_sgcampp.visualization import (
    compare_maps,
    draw_color_bar,
    draw_map,
    show_feature_maps,
    show_neurons,
    show_product,
    upsampled,
)


def photo(height: int = 20, width: int = 30) -> Image.Image:
    values = np.linspace(0, 255, height * width * 3).reshape(height, width, 3)
    return Image.fromarray(values.astype(np.uint8))


def drawn(figure: Figure) -> np.ndarray[Any, Any]:
    """The figure's pixels."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba()).copy()


def test_panels_stand_side_by_side_with_their_titles() -> None:
    figure = compare_maps(photo(), {"one": torch.rand(4, 6), "two": torch.rand(1, 1, 4, 6)}, titles="cat: 0.9")
    assert [axis.get_title() for axis in figure.axes] == ["cat: 0.9", "one", "two"]
    assert drawn(figure).std() > 0


def test_several_rows_may_have_different_lengths() -> None:
    figure = compare_maps([photo(), photo()], [{"a": torch.rand(4, 4)}, {"a": torch.rand(4, 4), "b": torch.rand(2, 2)}])
    assert [axis.get_title() for axis in figure.axes] == ["", "a", "", "", "a", "b"]


@pytest.mark.parametrize("values", [torch.zeros(4, 4), -torch.rand(4, 4)])
def test_a_map_without_positive_values_is_said_to_be_so(values: torch.Tensor) -> None:
    figure = compare_maps(photo(), {"map": values})
    assert [text.get_text() for text in figure.axes[1].texts] == ["all zero"]
    drawn(figure)


def test_the_negative_part_is_drawn_on_request() -> None:
    figure = compare_maps(photo(), {"map": -torch.rand(4, 4)}, sign="negative", cmap="Reds")
    assert not figure.axes[1].texts and len(figure.axes[1].images) == 2


def test_tiny_maps_are_drawn_as_large_ones_without_a_warning() -> None:
    values = torch.rand(4, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        small, large = (drawn(compare_maps(photo(), {"map": factor * values})) for factor in (1e-20, 1.0))
    assert np.array_equal(small, large)


@pytest.mark.parametrize(
    "image",
    [
        photo(),
        photo().convert("L"),
        np.asarray(photo()),
        np.asarray(photo()) / 255.0,
        np.asarray(photo().convert("L")),
        torch.from_numpy(np.asarray(photo()).copy()).permute(2, 0, 1),
        torch.rand(3, 20, 30),
        torch.rand(1, 20, 30),
        torch.rand(20, 30),
        torch.rand(3, 20, 30).half(),
    ],
)
def test_forms_of_images(image: Any) -> None:
    figure = compare_maps(image, {"map": torch.rand(3, 3)})
    shown = figure.axes[0].images[0].get_array()
    assert shown is not None and shown.shape == (20, 30, 3)


def test_values_outside_the_usual_range_are_stretched() -> None:
    """As those of a normalized tensor or of an X-ray of 12 bits, which would be cut off, garish."""
    unit = torch.rand(3, 20, 30)
    unit.flatten()[0], unit.flatten()[1] = 0, 1
    gray = np.arange(600).reshape(20, 30) * 6
    for image, expected in (((unit - 0.45) / 0.22, unit.permute(1, 2, 0)), (255 * unit, unit.permute(1, 2, 0)),
                            (gray, gray[..., None].repeat(3, 2) / 3594)):  # fmt: skip
        shown = compare_maps(image, {"map": torch.rand(3, 3)}).axes[0].images[0].get_array()
        np.testing.assert_allclose(shown, expected, atol=1e-6)


def test_pictures_of_16_bits_are_drawn_as_the_model_sees_them() -> None:
    """Pillow's own conversion makes white of all above 255."""
    ray = Image.fromarray((np.arange(600, dtype=np.uint16) * 6).reshape(20, 30))
    values = torch.rand(3, 3)
    for figure in (compare_maps(ray, {"map": values}), show_neurons(ray, values, torch.ones(3, 3, dtype=torch.bool))):
        shown = next(axis.images[0].get_array() for axis in figure.axes if axis.images)
        assert np.array_equal(shown, as_rgb(ray)) and len(np.unique(shown)) > 200


def test_a_picture_without_finite_values_names_the_argument() -> None:
    nothing = Image.fromarray(np.full((4, 4), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"^image: expected some finite values"):
        compare_maps(nothing, {"map": torch.rand(3, 3)})


def test_values_inside_the_usual_range_stay_as_they_are() -> None:
    for image in (0.3 + 0.2 * torch.rand(3, 20, 30), 1.0005 * torch.ones(3, 20, 30), np.full((20, 30, 3), 200)):
        shown = compare_maps(image, {"map": torch.rand(3, 3)}).axes[0].images[0].get_array()
        values = image.permute(1, 2, 0).clamp(0, 1) if isinstance(image, torch.Tensor) else image
        assert np.array_equal(shown, values)


def test_a_signal_is_not_drawn_as_a_picture() -> None:
    signal, values = torch.rand(12, 1000), torch.rand(1, 1, 250)
    for call in (
        lambda: compare_maps(signal, {"map": values}),
        lambda: compare_maps(signal.numpy(), {"map": values[0]}),
        lambda: draw_map(Figure().subplots(), signal, values),
    ):
        with pytest.raises(ValueError, match=r"^image: expected a picture, found .*show_signal"):
            call()
    compare_maps(signal[None], {"map": values})  # said to be a picture


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^image: expected finite"):
        compare_maps(torch.full((3, 4, 4), float("nan")), {"map": torch.rand(3, 3)})
    with pytest.raises(ValueError, match=r"^image: expected .*found"):
        compare_maps(torch.rand(4, 20, 30), {"map": torch.rand(3, 3)})
    with pytest.raises(ValueError, match=r"^maps: expected .*found"):
        compare_maps(photo(), {"map": torch.rand(2, 3, 3)})
    with pytest.raises(TypeError, match=r"^image: expected a picture or .*found the path 'x\.png'; .*read_image"):
        compare_maps("x.png", {"map": torch.rand(3, 3)})
    with pytest.raises(ValueError, match=r"^image, maps, titles: expected .*found"):
        compare_maps([photo(), photo()], [{"map": torch.rand(3, 3)}])


def test_maps_are_upsampled_bilinearly() -> None:
    values = torch.arange(12.0).reshape(1, 1, 3, 4)
    expected = torch.nn.functional.interpolate(values, (20, 30), mode="bilinear")[0, 0]
    assert np.array_equal(upsampled(values[0], (20, 30)), expected.numpy())


def test_feature_maps_show_their_numbers_and_weights() -> None:
    model, x = ConvNet(), images(1)
    method = LayerGradCamPlusPlus(model, model.relu1)
    weights, indices = method.top_feature_maps(x, 1, k=2)
    maps = method.attribute(x, 1, attr_dim_summation=False)
    figure = show_feature_maps(photo(), maps[0], weights[0], indices[0])
    titles = [axis.get_title() for axis in figure.axes[1:]]
    assert titles == [
        f"feature map {k}, w = {w:.3g}" for k, w in zip(indices[0].tolist(), weights[0].tolist(), strict=True)
    ]


def test_selected_neurons_are_outlined_on_the_image() -> None:
    neurons = torch.zeros(4, 6, dtype=torch.bool)
    neurons[1:3, 2:4] = True
    figure = show_neurons(photo(), torch.rand(4, 6) * neurons, neurons, "map")
    segments = figure.axes[0].collections[0].get_segments()
    assert len(segments) == 8  # the border of a block of 2 x 2 tiles
    x, y = np.concatenate(segments).T
    assert (min(x), max(x), min(y), max(y)) == (9.5, 19.5, 4.5, 14.5)
    assert figure.axes[0].get_title() == "4 selected neurons"


@pytest.mark.parametrize(
    "neurons", [np.s_[1:3, 2:4], box_to_neurons((10, 5, 20, 15), (20, 30), (4, 6)), [(1, 2), (1, 3), (2, 2), (2, 3)]]
)
def test_neurons_are_shown_in_the_forms_that_attribute_takes(neurons: Any) -> None:
    figure = show_neurons(photo(), torch.rand(1, 4, 6), neurons, "map")
    x, y = np.concatenate(figure.axes[0].collections[0].get_segments()).T
    assert (min(x), max(x), min(y), max(y)) == (9.5, 19.5, 4.5, 14.5)
    assert figure.axes[0].get_title() == "4 selected neurons"


def test_neurons_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^neurons: expected .*found"):
        show_neurons(photo(), torch.rand(4, 6), np.s_[1:3])
    with pytest.raises(ValueError, match=r"^values: expected one map .*found"):
        show_neurons(photo(), torch.rand(2, 4, 6), np.s_[1:3, 2:4])
    with pytest.raises(TypeError, match=r"^neurons: expected .*found None"):
        show_neurons(photo(), torch.rand(4, 6), None)


def test_products_are_drawn_in_their_own_colors_around_gray() -> None:
    product = torch.zeros(3, 20, 30)
    product[0, :, :15], product[2, :, 15:] = 2.0, -2.0
    figure = show_product(photo(), product, "Guided")
    colors = figure.axes[1].images[0].get_array()
    assert colors is not None and [axis.get_title() for axis in figure.axes] == ["", "Guided", "sum of the channels"]
    assert colors[0, 0].tolist() == [1, 0.5, 0.5] and colors[0, -1].tolist() == [0.5, 0.5, 0]
    drawn(figure)


def test_a_guided_product_and_one_of_zeros_are_drawn() -> None:
    model, x = ConvNet(channels=3), images(1, channels=3)
    product = GuidedGradCamPlusPlus(model, model.relu1).attribute(x, 1)
    drawn(show_product(x[0], product))
    figure = show_product(x[0], torch.zeros(3, 8, 8))
    assert [text.get_text() for text in figure.axes[2].texts] == ["all zero"]


@pytest.mark.parametrize("shape", [(3, 20, 29), (2, 20, 30), (2, 3, 20, 30)])
def test_products_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^product: expected .*found"):
        show_product(photo(), torch.rand(shape))


@pytest.mark.parametrize("size", [(30,), (20, 30), (4, 20, 30)])
def test_products_in_the_size_of_the_inputs_are_summed_over_their_channels(size: tuple[int, ...]) -> None:
    product = torch.randn(1, 3, *size)
    for values in (product, product[0]):
        np.testing.assert_allclose(upsampled(values, size), product.sum(1)[0], atol=1e-6)
    np.testing.assert_allclose(upsampled(product[:, :2], size), product[:, :2].sum(1)[0], atol=1e-6)
    for batch in (torch.rand(2, 1, *size), torch.rand(2, *size), torch.rand(3, 3, *size)):
        with pytest.raises(ValueError, match=r"^maps: expected one map"):
            upsampled(batch, size)


@pytest.mark.parametrize("title", [r"$\frac{1}$", "cost $5 and $6", "\x1b[31m", "\udcff"])
def test_titles_are_shown_as_they_are(title: str) -> None:
    figure = compare_maps(photo(), {title: torch.rand(4, 4)}, titles=title)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(figure)
    assert all("\x1b" not in axis.get_title() for axis in figure.axes)


def test_selected_neurons_are_seen_on_white_and_on_black() -> None:
    neurons = torch.zeros(4, 6, dtype=torch.bool)
    neurons[1:3, 2:4] = True
    for level in (0, 255):
        plain, outlined = (
            drawn(show_neurons(Image.new("RGB", (30, 20), (level,) * 3), torch.zeros(4, 6), mask))
            for mask in (torch.zeros_like(neurons), neurons)
        )
        panel = np.abs(plain[80:].astype(int) - outlined[80:])[:, : plain.shape[1] // 2, :3]
        assert panel.max() > 200


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 2), (5, 1)])
def test_titles_and_the_color_bar_have_room(rows: int, columns: int) -> None:
    maps = {f"method {number}\nlayer": torch.rand(4, 4) for number in range(columns)}
    figure = compare_maps([photo(30, 30)] * rows, [maps] * rows, ["name\nlabel"] * rows)
    draw_color_bar(figure, "viridis")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    *panels, bar = figure.axes
    extents = [axis.get_window_extent() for axis in panels]
    for above, below in zip(extents, panels[columns + 1 :], strict=False):
        assert below.title.get_window_extent().y1 < above.y0
    assert bar.get_tightbbox().y1 < min(extent.y0 for extent in extents)
    assert bar.get_tightbbox().height < 0.8 * figure.dpi


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize(("size", "columns"), [((30, 30), 1), ((60, 20), 3), ((20, 60), 5)])
def test_no_title_runs_into_another_or_a_color_bar(mode: str, size: tuple[int, int], columns: int) -> None:
    maps = {f"LayerSmoothGradCamPlusPlus, two_sided, {number}": torch.rand(4, 4) - 0.5 for number in range(columns)}
    pictures = [Image.new(mode, size, 90)] * 2 if mode == "L" else [Image.new(mode, size, (90, 9, 9))] * 2
    names = ["great white shark, white shark, man-eater, man-eating shark"] * 2
    figure = compare_maps(pictures, [maps] * 2, names, sign="all", cmap="bwr", show_colorbar=True)
    FigureCanvasAgg(figure).draw()
    *panels, bar = figure.axes
    assert len(panels) == 2 * (columns + 1)  # one bar for all
    boxes = [axis.title.get_window_extent() for axis in panels] + [bar.get_tightbbox()]
    assert not [(i, j) for i in range(len(boxes)) for j in range(i) if boxes[i].overlaps(boxes[j])]
    for axis in panels:
        assert not any(box.overlaps(axis.get_window_extent()) for box in boxes)
        title = axis.title.get_window_extent()
        assert figure.bbox.x0 <= title.x0 and title.y1 <= figure.bbox.y1


def test_the_color_bar_on_request_has_the_colors_and_sign_of_the_maps() -> None:
    neurons = np.s_[1:3, 2:4]
    options = {"sign": "all", "cmap": "bwr", "show_colorbar": True}
    for figure in (
        compare_maps(photo(), {"map": torch.rand(4, 6)}, **options),
        show_neurons(photo(), torch.rand(4, 6), neurons, **options),
        show_product(photo(), torch.rand(3, 20, 30), **options),
    ):
        assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["-largest", "0", "largest"]
    assert len(compare_maps(photo(), {"map": torch.rand(4, 6)}, method="masked_image", show_colorbar=True).axes) == 2


def test_a_common_scale_makes_maps_comparable_on_request() -> None:
    maps = {"small": torch.full((2, 3), 1.0), "large": torch.full((2, 3), 4.0)}
    levels = {
        common: [
            float(np.asarray(axis.images[-1].get_array()).max())
            for axis in compare_maps(photo(), maps, outlier_perc=0, common_scale=common).axes[1:]
        ]
        for common in (False, True)
    }
    assert levels == {False: [1.0, 1.0], True: [0.25, 1.0]}


def test_a_common_scale_holds_for_all_rows() -> None:
    rows = [{"map": torch.full((2, 3), value)} for value in (2.0, 4.0, 1.0)]
    figure = compare_maps([photo()] * 3, rows, common_scale=True, outlier_perc=0, method="heat_map")
    levels = [float(np.asarray(axis.images[-1].get_array()).min()) for axis in figure.axes[1::2]]
    assert levels == pytest.approx([0.5, 1.0, 0.25])


def test_a_common_scale_of_zeros_is_said_to_be_so() -> None:
    figure = compare_maps(photo(), {"a": torch.zeros(2, 3), "b": torch.zeros(2, 3)}, common_scale=True)
    assert [text.get_text() for axis in figure.axes for text in axis.texts] == ["all zero"] * 2


def test_a_common_scale_needs_colors() -> None:
    with pytest.raises(ValueError, match=r"^common_scale: expected .*found 'masked_image'"):
        compare_maps(photo(), {"map": torch.rand(2, 3)}, common_scale=True, method="masked_image")


def test_maps_of_nan_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^maps: expected finite values, found NaN"):
        compare_maps(photo(), {"map": torch.full((2, 3), float("nan"))})
