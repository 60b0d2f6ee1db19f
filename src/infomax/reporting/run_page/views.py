"""Section with some images and the augmented views that a training makes of them: real ones, with its own seed."""

from infomax.data.preview import DrawnImage, describe_views, draw_images, draws_per_line
from infomax.data.shown_pixels import describe_composite
from infomax.data.splits import counted
from infomax.reporting.pages.blocks import Notice, Paragraph
from infomax.reporting.pages.gallery import Gallery, Thumbnail
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, public
from infomax.reporting.run_page.images import THUMBNAIL_SIDE, encode, images_to_train_on, public_image_name
from infomax.reporting.run_page.shown_runs import ShownRun

ROWS = 4
"""Images whose views are shown."""
MOST_SETS = 3
"""Different sets of views that are shown."""


def section(content: Content) -> Section | None:
    """Returns the section; None if there is no run folder."""
    if not content.runs:
        return None
    alike: dict[tuple, list[ShownRun]] = {}
    for shown in content.runs:
        if shown.name in content.sources:
            key = (id(content.sources[shown.name]), shown.recipe.views, shown.recipe.seed)
            alike.setdefault(key, []).append(shown)
    blocks: list[Block] = [block for runs in [*alike.values()][:MOST_SETS] for block in _blocks_of(runs, content)]
    if len(alike) > MOST_SETS:
        blocks.append(Paragraph(f"{len(alike) - MOST_SETS} further sets of views are left out."))
    blocks += [
        Notice("info", f"The images of {name} are not there", public(reason))
        for name, reason in content.missing.items()
        if name not in content.sources
    ]
    text = (
        "The training sees these crops and never the images themselves. Can you still tell what they show? If not, the "
        "crops are too small or the colours too much changed for these images."
    )
    return Section("What the training sees", text, tuple(blocks)) if blocks else None


def _blocks_of(runs: list[ShownRun], content: Content) -> list[Block]:
    """Returns the views of runs that have the same images, views and seed."""
    shown, names = runs[0], ", ".join(shown.name for shown in runs)
    views, images = shown.recipe.views, images_to_train_on(content.sources[shown.name])
    epochs, pixel_format = min(draws_per_line(views), shown.recipe.epochs), shown.recipe.preprocessing.pixel_format
    try:
        drawn, unreadable = draw_images(
            images, views, seed=shown.recipe.seed, rows=ROWS, epochs=epochs, pixel_format=pixel_format
        )
    except ValueError as error:
        return [Notice("warning", f"The views of {names} cannot be drawn", public(str(error)))]
    words = f"{counted(len(drawn), 'image')} of {len(images):,}, and what the epochs 1 to {epochs} make of each"
    words += f", with its seed {shown.recipe.seed}; % is the share of the image's area that a crop shows."
    lines = [f"{names}: {words}" if len(content.runs) > 1 else words]
    lines += describe_views(views)
    if not pixel_format.is_rgb:
        lines.append(describe_composite(pixel_format))
    lines += [f"Cannot be read, so another one is shown: {public(error)}" for error in unreadable]
    if other := content.other_images.get(shown.name):
        lines.append(f"These are not the views of the training itself: {other}.")
    return [*map(Paragraph, lines), *map(_gallery, drawn)]


def _gallery(drawn: DrawnImage) -> Gallery:
    """Returns an image and its views as thumbnails."""
    width, height = drawn.image.size
    name = public_image_name(drawn.name)
    original = Thumbnail(encode(drawn.image, THUMBNAIL_SIDE), name, (f"{width} x {height} pixels",), "as it is")
    crops = [
        Thumbnail(encode(view.image, THUMBNAIL_SIDE), f"epoch {epoch}, view {number}", (f"{view.share:.0%}",))
        for epoch, views in enumerate(drawn.by_epoch, start=1)
        for number, view in enumerate(views, start=1)
    ]
    return Gallery((original, *crops))
