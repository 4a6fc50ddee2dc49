"""Landmarks of a face with onnxruntime, numpy and Pillow alone: python use_onnx.py photo.jpg LEFT TOP RIGHT BOTTOM

The box is that of the face's 68 points, from any detector. Prints a line a landmark: id, name, x, y, z in pixels of the
photograph, centres at integers from 0, x right, y down, z towards the viewer.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

if len(sys.argv) != 6:
    sys.exit(__doc__.splitlines()[0])
photo = ImageOps.exif_transpose(Image.open(sys.argv[1]))
if photo.mode.startswith("I"):  # 16 bits of grey, of which convert() keeps the lower ones
    photo = Image.fromarray((np.asarray(photo) >> 8).astype(np.uint8))
photo = photo.convert("RGB")
left, top, right, bottom = map(float, sys.argv[2:6])

session = onnxruntime.InferenceSession(str(Path(__file__).with_name("model.onnx")))
about = json.loads(session.get_modelmeta().custom_metadata_map["densetrain"])
size = about["crop_size"]

# A square around the box; its corners map to the centres of pixels 0 and size - 1.
side = about["margin"] * ((right - left) + (bottom - top)) / 2
x0, y0, scale = (left + right - side) / 2, (top + bottom - side) / 2, side / (size - 1)

# A large face is shrunk by the mean of several samples for each pixel, a very large one by means of its pixels first:
# interpolation alone would look at two pixels of ten.
step = max(int(scale / 8), 1)
taps = math.ceil(scale / step) if scale > 1.5 else 1
zoom, dx, dy = scale / step / taps, (x0 + 0.5 - scale / 2) / step, (y0 + 0.5 - scale / 2) / step
sampled = photo.reduce(step).transform(
    (size * taps, size * taps), Image.Transform.AFFINE, (zoom, 0, dx, 0, zoom, dy), Image.Resampling.BILINEAR
)
crop = sampled.reduce(taps)

images = np.asarray(crop, np.float32).transpose(2, 0, 1)[None]
landmarks = session.run(["landmarks"], {"images": images})[0][0] * scale + [x0, y0, 0]
for landmark, (x, y, z) in zip(about["landmarks"], landmarks, strict=True):
    print(landmark["id"], landmark["name"], f"{x:.3f} {y:.3f} {z:.3f}")
