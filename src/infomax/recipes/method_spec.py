"""Describes a method for the rest of the library: its settings, its recipes and its defaults.

A method is two files and one line: its module in :mod:`infomax.methods`; its settings and recipes in
:mod:`infomax.recipes`, which end with ``METHOD = MethodSpec(...)``; and its line in :mod:`infomax.recipes.registry`.
A method of another package has an entry point of the group ``infomax.methods`` instead of that line.
"""

from dataclasses import dataclass, field, fields

from infomax.papers.published import Conditions
from infomax.recipes.experiment import Experiments
from infomax.recipes.schema import MethodSettings

SMALL_IMAGES = 64  # pixels: images with sides of up to 64 pixels get the recipe for CIFAR


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """A frozen dataclass that describes one method; every list of methods in the library is made of these.

    Raises:
        ValueError: if the recipes belong to another method, the default is not one of them, or ``conditions`` names a
            setting or a condition that there is not.
    """

    settings: type[MethodSettings]
    """The class of the method's settings; its ``name`` is the method's name."""
    recipes: Experiments
    """The method's recipes by their names."""
    default_for_large_images: str
    """Name of the recipe for large images on a GPU, and wherever the method has no recipe of the usual name."""
    paper: str = ""
    """The method's name in the tables of its paper, as ``MIRA``; empty if :mod:`infomax.papers` has none of it."""
    conditions: dict[str, str] = field(default_factory=dict)
    """The settings by which a published table may tell its columns or rows apart, each with the name that
    :class:`infomax.papers.published.Conditions` has for it. A setting that is None without a moving average has the
    name ``moving_average``."""

    def __post_init__(self) -> None:
        if self.recipes.method != self.name:
            raise ValueError(f"the method {self.name} has recipes of the method {self.recipes.method}")
        if self.default_for_large_images not in self.recipes:
            raise ValueError(f"the method {self.name} has no recipe {self.default_for_large_images!r}, its default")
        for kind, names in ((self.settings, self.conditions.keys()), (Conditions, self.conditions.values())):
            if unknown := {*names} - {known.name for known in fields(kind)}:
                raise ValueError(f"the method {self.name}: {kind.__name__} has no {', '.join(sorted(unknown))}")

    @property
    def name(self) -> str:
        """Returns the method's name, as ``--method`` takes it."""
        return self.settings.name

    def default_recipe(self, *, data: str, side: int, gpu: bool) -> str:
        """Returns the name of the recipe that suits a data set and a machine.

        Args:
            data: Name of the data set.
            side: Shorter side of a typical image, in pixels.
            gpu: Whether the run is for a GPU.
        """
        if data == "digits":
            usual = "digits"
        elif not gpu:
            usual = "small"
        elif side <= SMALL_IMAGES:
            usual = "cifar10"
        else:
            usual = self.default_for_large_images
        return usual if usual in self.recipes else self.default_for_large_images
