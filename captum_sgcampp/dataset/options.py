"""What a run computes: all that changes its maps except the model and the images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from captum_sgcampp.attr.options import NoiseArguments
from captum_sgcampp.checks import check_count, check_flag, check_nonnegative, check_several
from captum_sgcampp.vision.methods import METHODS, Noise, is_smooth
from captum_sgcampp.wide_gray import check_white


@dataclass(frozen=True, kw_only=True)
class Options:
    """All that changes the maps of an image.

    Attributes:
        methods: some of `vision.methods.METHODS`.
        nt_samples, noise_level, tolerance, max_nt_samples: see `LayerSmoothGradCamPlusPlus.attribute`.
        seed: of the noise. The noise of a sample depends on it, on the sample's number and on the shape of the input
            alone, so it is the same for every image, in every batch, process and order.
        relu: whether maps go through the papers' ReLU.
        batch_size: images in one explanation. With 1 the maps are the same bits in any company. More are faster,
            mostly without noise and on GPUs. A smaller rest is then filled up, since the last bits of a convolution
            depend on the number of rows. With several threads those of a matrix product also depend on the place in
            the batch. Maps differ by about 1e-5 of their maximum. With `nt_samples="auto"` it is always 1.
        white: the value that becomes 255 in gray pictures of 16 and 32 bits, see `vision.images.read_image`. None: each
            picture gets its own.
    """

    methods: tuple[str, ...] = ("smooth-grad-cam++",)
    nt_samples: int | Literal["auto"] = 25
    noise_level: float = 0.15
    tolerance: float = 0.03
    max_nt_samples: int = 64
    seed: int = 0
    relu: bool = True
    batch_size: int = 1
    white: float | None = None

    def __post_init__(self) -> None:
        check_several("methods", self.methods)
        if not self.methods:
            raise ValueError("methods: expected at least one, found none")
        for method in self.methods:
            if method not in METHODS:
                raise ValueError(f"methods: expected some of {', '.join(METHODS)}, found {method!r}")
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods: expected each once, found {list(self.methods)}")
        NoiseArguments(nt_samples=self.nt_samples, tolerance=self.tolerance, max_nt_samples=self.max_nt_samples)
        check_nonnegative("noise_level", self.noise_level)
        if check_count("seed", self.seed, least=0) >= 2**63:
            raise ValueError(f"seed: expected at most 2**63 - 1, found {self.seed}")
        check_count("batch_size", self.batch_size)
        check_flag("relu", self.relu)
        check_white(self.white)

    @property
    def images_at_once(self) -> int:
        """Images in one explanation."""
        # When an image stops getting samples, the number of rows changes for the others.
        return 1 if self.nt_samples == "auto" and any(map(is_smooth, self.methods)) else self.batch_size

    @property
    def noise(self) -> Noise:
        """Of the smooth methods."""
        return Noise(
            self.nt_samples,
            self.noise_level,
            self.seed,
            tolerance=self.tolerance,
            max_nt_samples=self.max_nt_samples,
        )
