"""Image processing in pure Python: a box blur over grey pixels."""
import pair

SIDE = 96


def blurred(pixels):
    out = bytearray(pixels)
    for y in range(1, SIDE - 1):
        for x in range(1, SIDE - 1):
            at = y * SIDE + x
            out[at] = (pixels[at - SIDE] + pixels[at - 1] + pixels[at] + pixels[at + 1] + pixels[at + SIDE]) // 5
    return out


def unit(pixels):
    pixels[:] = blurred(pixels)


pair.run(unit, lambda index: bytearray((x * 7 + index) & 255 for x in range(SIDE * SIDE)))
