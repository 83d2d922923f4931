"""What every picture of the lessons has to be."""

import html
import re
from collections.abc import Callable
from xml.etree import ElementTree

from workshop.pictures import Picture


def words(picture: Picture) -> list[str]:
    """What is written in the picture: text is drawn as paths, and stands beside them as comments."""
    return [html.unescape(word).strip() for word in re.findall("<!--(.*?)-->", picture.svg)]


def assert_stands_alone(draw: Callable[[], Picture]) -> None:
    """It is the same to the byte each time, asks nobody for anything, says what it shows, and is small."""
    picture = draw()
    assert draw() == picture
    root = ElementTree.fromstring(picture.svg)  # noqa: S314  # ours
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("aria-label") == picture.alt
    assert "http://" not in picture.svg.replace("http://www.w3.org/", "")
    assert len(picture.alt) > 20
    assert len(picture.svg.encode()) < 150_000
