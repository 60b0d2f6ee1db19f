"""Section on how the page was made: which images, which seed, and each decision that was taken."""

from infomax.reporting.pages.blocks import Facts, Paragraph
from infomax.reporting.pages.page import Block, Section
from infomax.reporting.run_page.content import Content, public


def section(content: Content) -> Section:
    """Returns the section."""
    options = content.options
    images = dict.fromkeys(encoder.images.words for encoder in content.encoders)
    facts = {
        "images": "; ".join(images) or "none were shown",
        "seed": f"{options.seed}, of the images that are drawn and of k-means",
        "features": f"in {options.feature_precision} bits, of the encoder in evaluation mode",
        "runs": ", ".join(shown.name for shown in content.runs) or "none",
    }
    blocks: list[Block] = [Facts(tuple(facts.items()))]
    blocks += [Paragraph(public(line)) for line in content.decisions.lines]
    return Section("How this page was made", "", tuple(blocks))
