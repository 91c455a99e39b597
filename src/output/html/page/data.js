// Unpacks the numbers that src/output/html/pack.rs packs: five bits a character, lowest bits first.

const DIGITS = new Uint8Array(128).fill(255);
[...'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'].forEach((c, n) => (DIGITS[c.charCodeAt(0)] = n));

// All numbers of a text, which are at most as many as its characters. The sum uses powers instead of
// shifts, because a number may have more than 31 bits.
function unpack(text) {
  const out = new Float64Array(text.length);
  let [count, n, weight] = [0, 0, 1];
  for (let i = 0; i < text.length; i++) {
    const digit = DIGITS[text.charCodeAt(i) & 127];
    n += (digit & 31) * weight;
    weight *= 32;
    if (digit < 32) {
      out[count++] = n;
      [n, weight] = [0, 1];
    }
  }
  return out.subarray(0, count);
}
