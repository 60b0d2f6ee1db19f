"""Tells what of a damaged image file is still good: the pixels of a PNG, and the scans of a JPEG that ends early."""

import struct
import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
END = b"IEND"
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9  # markers of a JPEG
RESTARTS = range(0xD0, 0xD8)
METADATA = {0xFE, *range(0xE0, 0xF0)}  # segments that the picture does not need
ORIENTATIONS, COLOURS = 0xE1, 0xEE  # but for those of EXIF, and of Adobe, which says how colours are coded
COLOURS_LENGTH = 12  # bytes
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # these three are tables
COEFFICIENTS = 64  # of a block


def keep_pixel_chunks(content: bytes) -> bytes:
    """Returns a PNG file with the chunks that decide its pixels, and its EXIF data if their checksum is right.

    Text, colour profiles, times and animations are left out, whatever is wrong with them. A missing end is added.

    Args:
        content: The file.
    """
    kept, place = [SIGNATURE], len(SIGNATURE)
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        chunk = content[place : place + 12 + length]
        place += 12 + length
        is_critical = not kind[0] & 32  # a capital letter: without this chunk, the image cannot be decoded
        checksum = struct.pack(">I", zlib.crc32(chunk[4:-4]))
        if kind == END:
            break
        if is_critical or kind == b"tRNS" or (kind == b"eXIf" and chunk[-4:] == checksum):
            kept.append(chunk)
    kept.append(struct.pack(">I", 0) + END + struct.pack(">I", zlib.crc32(END)))
    return b"".join(kept)


def keep_pixel_segments(content: bytes) -> bytes:
    """Returns a JPEG file without the segments that are not needed to decode it and turn it.

    Args:
        content: The file.
    """
    kept, place = [content[:2]], 2
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != START_OF_SCAN:
        kind = content[place + 1]
        if kind == 0xFF:  # padding
            place += 1
            continue
        end = place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")
        is_needed = kind not in METADATA or kind == ORIENTATIONS
        if is_needed or (kind == COLOURS and end - place - 4 >= COLOURS_LENGTH):
            kept.append(content[place:end])
        place = end
    return b"".join(kept) + content[place:]


def has_begun_all_scans(content: bytes) -> bool:
    """Returns whether the last scan of a JPEG file has begun: each coefficient has been given to its last bit.

    A progressive file gives the coefficients of each component in several scans, from coarse to fine. If it ends before
    the last one begins, the whole image is coarse.

    Args:
        content: The file, which may end anywhere.
    """
    wanted: set[tuple[int, int]] = set()
    seen: set[tuple[int, int]] = set()
    place = 2
    while (place := content.find(b"\xff", place)) >= 0 and place + 4 <= len(content):
        kind = content[place + 1]
        if kind in (0, 1, *RESTARTS):  # an escaped byte of a scan, or a mark in it
            place += 2
            continue
        if kind == 0xFF:  # padding
            place += 1
            continue
        if kind == END_OF_IMAGE:
            break
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        body = content[place + 4 : place + 2 + length]
        if kind in FRAMES and len(body) >= 6:
            wanted = {(component, k) for component in body[6::3] for k in range(COEFFICIENTS)}
        elif kind == START_OF_SCAN and body and len(body) >= 2 * body[0] + 4:
            components = body[1 : 1 + 2 * body[0] : 2]
            first, last, bits = body[1 + 2 * body[0] :][:3]
            if bits & 15 == 0:
                seen |= {(component, k) for component in components for k in range(first, last + 1)}
        place += 2 + length
    return bool(wanted) and wanted <= seen
