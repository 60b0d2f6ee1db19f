"""Section with the groups that an encoder makes of the images: a method's own prototypes, or else clusters."""

import numpy as np

from infomax.data.splits import counted
from infomax.reporting.pages.blocks import Paragraph
from infomax.reporting.pages.gallery import Gallery
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.pages.titled_gallery import TitledGallery
from infomax.reporting.run_page.content import Content, ShownEncoder, headed
from infomax.reporting.run_page.grouping import Groups

SHOWN, MEMBERS = 6, 6
"""Fullest and emptiest groups that are shown, and images of each."""
ENOUGH = 10
"""Images for each prototype; of fewer, many prototypes are unused by chance."""


def section(content: Content) -> Section | None:
    """Returns the section; None if there are no images."""
    blocks = [block for encoder in content.encoders for block in _blocks_of(encoder, content)]
    text = (
        "Each group with the images nearest to its middle: does it show one kind of thing? An unused prototype is one "
        "that no image prefers."
    )
    return Section("Groups of images", text, tuple(blocks)) if blocks else None


def _blocks_of(encoder: ShownEncoder, content: Content) -> list[Block]:
    """Returns the fullest and the emptiest groups of one run."""
    prefix = content.prefix(encoder.shown)
    if len(encoder.images) < 2:
        return [Paragraph(headed(prefix, "a single image makes no groups."))]
    groups = encoder.prototypes or encoder.clusters
    sizes = groups.sizes
    used = np.flatnonzero(sizes)
    order = used[np.argsort(-sizes[used], kind="stable")].tolist()
    blocks: list[Block] = [Paragraph(f"{prefix}{groups.words} {describe_use(groups)}")]
    fullest, emptiest = order[:SHOWN], order[max(SHOWN, len(order) - SHOWN) :]
    for place, group in enumerate([*fullest, *emptiest]):
        name = "the fullest" if place == 0 else "the emptiest" if group == order[-1] else ""
        blocks.append(_gallery(encoder, groups, group, name, prefix))
    if between := len(order) - len(fullest) - len(emptiest):
        blocks.append(Paragraph(f"{prefix}{counted(between, groups.kind)} of sizes between these are left out."))
    return blocks


def _gallery(encoder: ShownEncoder, groups: Groups, group: int, name: str, prefix: str) -> TitledGallery:
    """Returns the images in the middle of a group, with its size and its most frequent class."""
    members, total = groups.members(group), len(encoder.images)
    heading = f"{groups.kind} {group + 1}{f', {name}' if name else ''}"
    words = f"{counted(len(members), 'image')}, {100 * len(members) / total:.1f} %"
    if encoder.images.labels is not None:
        labels = [encoder.images.label(i) for i in members]
        most = max(sorted(set(labels)), key=labels.count)
        words += f"; {100 * labels.count(most) / len(labels):.0f} % of them are {most}"
    thumbnails = tuple(encoder.images.thumbnail(i, side=encoder.side) for i in members[:MEMBERS])
    return TitledGallery(headed(prefix, heading), words, Gallery(thumbnails))


def describe_use(groups: Groups) -> str:
    """Returns sentences on how many groups have images."""
    unused = int((groups.sizes == 0).sum())
    words = f"{groups.count - unused:,} of {groups.count:,} {groups.kind}s have images, {unused:,} are unused."
    if unused and groups.kind == "prototype" and len(groups.assigned) < ENOUGH * groups.count:
        words += (
            f" With {len(groups.assigned):,} images for {groups.count:,} {groups.kind}s, some are unused by chance."
        )
    return words
