"""A script that decodes JPEGs in a process of its own: see jpeg.py.

Reads a pickled list of JPEG files from standard input; writes their pixels as colours, one after the other, to
standard output. On failure it ends with exit code 3 and the file's number and a reason on standard error.
"""

import io
import pickle
import sys

from PIL import Image


def pixels(data: bytes, side: int) -> bytes:
    """The pixels (side, side, 3) of a JPEG file; grey ones have three equal channels."""
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if image.size != (side, side):  # before anything of that size is made
            raise ValueError(f"it has {image.width} x {image.height}")
        return image.convert("RGB").tobytes()


def main() -> int:
    side = int(sys.argv[1])
    for number, data in enumerate(pickle.load(sys.stdin.buffer)):
        try:
            sys.stdout.buffer.write(pixels(data, side))
        except Exception as error:  # a damaged file can raise anything
            print(number, error, file=sys.stderr)
            return 3
    return 0


if __name__ == "__main__":
    sys.exit(main())
