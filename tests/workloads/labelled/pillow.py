"""Image processing with Pillow, whose filters and resizing release the GIL."""
from PIL import Image, ImageFilter

import pair


def unit(image):
    image.filter(ImageFilter.GaussianBlur(4)).resize((300, 300), Image.LANCZOS)


pair.run(unit, lambda index: Image.effect_noise((900, 900), 40 + index).convert("RGB"))
