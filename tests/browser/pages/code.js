// Frames and tones that say who made them.
//
// A publisher with id n paints every frame with n, a running number and a checksum as large black
// and white cells over a band of the publisher's own colour, and hums its own note. A viewer that
// reads both back knows that it got this publisher's video and audio, decoded, and that it moves.
//
// The cells are 40x45 pixels at 320x180: a key frame at 50 kbit/s still shows them.

export const COLUMNS = 8;
export const ROWS = 4; // three of bits, the last is colour
const BITS = COLUMNS * (ROWS - 1); // 6 id, 12 number, 6 checksum
const NUMBERS = 1 << 12;
const COLOURS = [
  [220, 40, 40],
  [40, 190, 40],
  [50, 80, 230],
  [210, 200, 40],
  [200, 50, 200],
  [40, 200, 200],
];

/** The note of publisher `id` in hertz: at least 150 apart, an FFT bin is 12 wide. */
export const note = (id) => 400 + 150 * (id % 16);

/** Paints frame `number` of publisher `id` on the whole canvas. */
export function paint(canvas, id, number) {
  const g = canvas.getContext('2d', { alpha: false });
  const { width, height } = canvas;
  const n = number % NUMBERS;
  const word = (BigInt(id) << 18n) | (BigInt(n) << 6n) | BigInt(checksum(id, n));
  const xs = edges(width, COLUMNS);
  const ys = edges(height, ROWS);
  for (let bit = 0; bit < BITS; bit++) {
    const column = bit % COLUMNS;
    const row = Math.floor(bit / COLUMNS);
    g.fillStyle = (word >> BigInt(BITS - 1 - bit)) & 1n ? '#fff' : '#000';
    g.fillRect(xs[column], ys[row], xs[column + 1] - xs[column], ys[row + 1] - ys[row]);
  }
  g.fillStyle = `rgb(${COLOURS[id % COLOURS.length]})`;
  g.fillRect(0, ys[ROWS - 1], width, height - ys[ROWS - 1]);
  // Something that moves smoothly, so that encoders have ordinary work.
  g.fillStyle = '#888';
  const at = ((n * 4) % (width + 20)) - 20;
  g.fillRect(at, ys[ROWS - 1] + (height - ys[ROWS - 1]) * 0.75, 20, (height - ys[ROWS - 1]) / 4);
}

/** Reads a drawable back: `{id, number}`, or `{why}` when it carries no code. */
export function read(source, sourceWidth, sourceHeight, scratch) {
  if (!sourceWidth || !sourceHeight) return { why: 'no picture yet' };
  const width = 320;
  const height = 180;
  if (scratch.width !== width || scratch.height !== height) {
    scratch.width = width;
    scratch.height = height;
  }
  const g = scratch.getContext('2d', { alpha: false, willReadFrequently: true });
  g.drawImage(source, 0, 0, width, height);
  const { data } = g.getImageData(0, 0, width, height);
  let word = 0n;
  for (let bit = 0; bit < BITS; bit++) {
    const [r, gr, b] = middle(data, width, bit % COLUMNS, Math.floor(bit / COLUMNS), 40, 45);
    const luma = 0.3 * r + 0.59 * gr + 0.11 * b;
    if (luma > 88 && luma < 168) return { why: `cell ${bit} is neither black nor white (${luma | 0})` };
    word = (word << 1n) | (luma >= 128 ? 1n : 0n);
  }
  const id = Number(word >> 18n);
  const number = Number((word >> 6n) & 0xfffn);
  if (Number(word & 63n) !== checksum(id, number)) return { why: 'checksum does not match' };
  const seen = middle(data, width, 3, ROWS - 1, 40, 45);
  const colour = nearest(seen);
  if (colour !== id % COLOURS.length) return { why: `colour ${seen.map(Math.round)} is not that of ${id}` };
  return { id, number };
}

/** Frames from number `a` to number `b`, which may have wrapped. */
export const ahead = (a, b) => (b - a + NUMBERS) % NUMBERS;

/** The loudest note of an AnalyserNode's spectrum: `{hertz, clear}`; clear in dB over the rest. */
export function loudest(analyser, sampleRate) {
  const bins = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(bins);
  const width = sampleRate / analyser.fftSize;
  let best = 0;
  for (let i = Math.ceil(200 / width); i < 4000 / width; i++) if (bins[i] > bins[best] || !best) best = i;
  const near = Math.ceil(60 / width);
  let rest = -Infinity;
  for (let i = Math.ceil(200 / width); i < 4000 / width; i++) {
    if (Math.abs(i - best) > near && bins[i] > rest) rest = bins[i];
  }
  return { hertz: best * width, level: bins[best], clear: bins[best] - rest };
}

function checksum(id, number) {
  let c = 0x2a;
  for (const part of [id, number & 63, number >> 6]) {
    c ^= part;
    for (let i = 0; i < 6; i++) c = c & 32 ? ((c << 1) ^ 0x03) & 63 : c << 1;
  }
  return c;
}

function edges(size, parts) {
  return Array.from({ length: parts + 1 }, (_, i) => Math.round((size * i) / parts));
}

// The mean colour of the middle quarter of a cell.
function middle(data, width, column, row, cellWidth, cellHeight) {
  const sum = [0, 0, 0];
  let count = 0;
  const x0 = column * cellWidth + cellWidth / 4;
  const y0 = row * cellHeight + Math.floor(cellHeight / 4);
  for (let y = y0; y < y0 + cellHeight / 2; y += 3) {
    for (let x = x0; x < x0 + cellWidth / 2; x += 3) {
      const at = (Math.floor(y) * width + Math.floor(x)) * 4;
      for (let k = 0; k < 3; k++) sum[k] += data[at + k];
      count++;
    }
  }
  return sum.map((s) => s / count);
}

function nearest(colour) {
  let best = 0;
  let least = Infinity;
  COLOURS.forEach((c, i) => {
    const distance = c.reduce((d, v, k) => d + (v - colour[k]) ** 2, 0);
    if (distance < least) [best, least] = [i, distance];
  });
  return best;
}
