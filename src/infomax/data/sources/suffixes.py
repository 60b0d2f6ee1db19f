"""Tells image files from others by their names: suffixes of formats that are read, and litter of systems."""

from PIL import Image, features

from infomax.data.decoding.image_files import FORMATS

# Formats that a build of Pillow may lack, by the names of its features.
OPTIONAL_FORMATS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp", "JPEG": "jpg", "PNG": "zlib"}
LITTER_FILES = {".ds_store", "thumbs.db", "ehthumbs.db", "desktop.ini"}
LITTER_FOLDERS = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "system volume information", "lost+found"}


def readable_suffixes() -> frozenset[str]:
    """Returns the suffixes, in small letters, of the formats that are read and that this build of Pillow has."""
    Image.preinit()  # first, so that the common formats stay the first ones that Image.open tries
    Image.init()
    readable = {*FORMATS} - {name for name, feature in OPTIONAL_FORMATS.items() if not features.check(feature)}
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in readable)


PILLOW_SUFFIXES = readable_suffixes()
IMAGE_SUFFIXES = PILLOW_SUFFIXES | {".dcm", ".dicom"}


def suffix_of(name: str) -> str:
    """Returns the part of a file's name from its last dot on, in small letters; ``no suffix`` without a dot."""
    return name[name.rfind(".") :].lower() if "." in name else "no suffix"


def is_litter(name: str) -> bool:
    """Returns whether a file or folder of this name is written by a system beside a user's files, never by the user.

    Files that macOS keeps beside others, as ``._1.jpg``, have the suffix of an image, and are none.
    """
    return name.startswith("._") or name.lower() in LITTER_FILES or name.lower() in LITTER_FOLDERS
