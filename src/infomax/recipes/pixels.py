"""Adapts a recipe to images that are not 8-bit RGB. Torch is not imported here."""

from dataclasses import replace

from infomax.data.pixel_format import MeasuredPixels
from infomax.recipes.schema import Recipe


def with_pixels(recipe: Recipe, measured: MeasuredPixels | None) -> Recipe:
    """Returns the recipe for images of a pixel format: the encoder's channels, and the normalisation.

    Args:
        recipe: The recipe, of images that are 8-bit RGB.
        measured: The format and the normalisation; None leaves the recipe as it is.
    """
    if measured is None:
        return recipe
    normalisation = {"mean": measured.mean, "std": measured.std}
    return replace(
        recipe,
        encoder=replace(recipe.encoder, channels=measured.pixel_format.channels),
        views=replace(recipe.views, **normalisation),
        preprocessing=replace(recipe.preprocessing, pixel_format=measured.pixel_format, **normalisation),
    )


def pixels_of(recipe: Recipe) -> MeasuredPixels | None:
    """Returns the pixel format and the normalisation of a recipe; None if its images are 8-bit RGB."""
    preprocessing = recipe.preprocessing
    if preprocessing.pixel_format.is_rgb:
        return None
    return MeasuredPixels(preprocessing.pixel_format, preprocessing.mean, preprocessing.std)
