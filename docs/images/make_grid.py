"""Draw the distilled images of a run as one picture with a column per class.

Command: python docs/images/make_grid.py STORE RUN OUT.png [--rows 4]

STORE is a local folder. The script needs only pyarrow and Pillow. It reads the manifest of the
recover stage, the markers of its shards, and their Parquet files.
"""

from __future__ import annotations

import argparse
import io
import json
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image, ImageDraw, ImageFont

CLASSES = 10  # columns at most
SIDE, GAP, LABEL = 80, 6, 26  # pixels: side of an image, space between images, height of labels
BACKGROUND, TEXT, FONT_SIZE = "white", "#333333", 15
COLOURS = 256  # of the palette, which keeps the file small

Images = dict[str, list[Image.Image]]


def read_images(store: Path, run: str) -> Images:
    """Return the images of each class of a complete recover stage, in the order of their index."""
    manifest = json.loads((store / "runs" / run / "recover.manifest.json").read_bytes())
    found: dict[str, dict[int, Image.Image]] = defaultdict(dict)
    for entry in manifest["entries"]:
        marker = json.loads((store / "recover" / "_done" / f"{entry['key']}.json").read_bytes())
        path = next(file["path"] for file in marker["files"] if file["suffix"] == "parquet")
        for row in pq.read_table(store / path).to_pylist():
            picture = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
            found[row["wnid"]][row["ipc_index"]] = picture
    return {name: [images[index] for index in sorted(images)] for name, images in found.items()}


def draw_grid(images: Images, rows: int) -> Image.Image:
    """Return one picture with a labelled column per class and `rows` images in each."""
    names = list(images)[:CLASSES]
    step = SIDE + GAP
    picture = Image.new("RGB", (len(names) * step - GAP, LABEL + rows * step - GAP), BACKGROUND)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT_SIZE)
    for column, name in enumerate(names):
        label = name.removeprefix("digit_")
        pen.text((column * step + SIDE // 2, LABEL // 2), label, TEXT, font, anchor="mm")
        for row, image in enumerate(images[name][:rows]):
            shown = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            picture.paste(shown, (column * step, LABEL + row * step))
    return picture


def main() -> None:
    """Read a run and write the picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("run")
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=int, default=4)
    args = parser.parse_args()
    picture = draw_grid(read_images(args.store, args.run), args.rows)
    picture.quantize(COLOURS).save(args.out, optimize=True)


if __name__ == "__main__":
    main()
