"""What the reconstruction branch sees and what it paints into the hidden cells."""

from collections.abc import Sequence
from dataclasses import dataclass

from cmid.report.markup import Markup, tag
from cmid.report.page import Section
from cmid.report.pictures import RGB, picture

SIDE = 192


@dataclass(frozen=True)
class Reconstruction:
    """One view of one image.

    Attributes:
        name: of the image.
        view: which view of it ("weak view").
        image: `(H, W, 3)` uint8, the view.
        masked: `(H, W, 3)` uint8, what the student was given.
        prediction: `(H, W, 3)` uint8, what it made of that.
    """

    name: str
    view: str
    image: RGB
    masked: RGB
    prediction: RGB


def reconstruction_section(examples: Sequence[Reconstruction]) -> Section:
    """Image, masked image and prediction of each example; views of one image stand in one card."""
    by_name: dict[str, list[Reconstruction]] = {}
    for example in examples:
        by_name.setdefault(example.name, []).append(example)
    return Section(
        "reconstructions",
        "Reconstructions",
        "The middle is all the student saw. The right begins as flat colour, then gets the shades of fields and water, "
        "and after some thousand steps continues roads and roofs through the hidden cells; fine texture never comes. "
        "Only hidden cells count in the loss, so visible ones may look odd.",
        tag("div", *(_card(name, views) for name, views in by_name.items()), class_="cards wide"),
    )


def _card(name: str, views: Sequence[Reconstruction]) -> Markup:
    heads = (tag("span", text) for text in ("image", "masked", "prediction"))
    rows = (
        tag(
            "div",
            picture(v.image, f"{v.view} of {name}", SIDE),
            picture(v.masked, f"{v.view}, masked", SIDE),
            picture(v.prediction, f"{v.view}, predicted", SIDE),
            class_="three",
            title=v.view,
        )
        for v in views
    )
    caption = tag("figcaption", name, tag("span", ", then ".join(v.view for v in views), class_="aside"))
    return tag("figure", tag("div", *heads, class_="three heads"), *rows, caption)
