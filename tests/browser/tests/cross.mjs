// Browsers of different makers through one server.

import { test } from '../lib/suite.mjs';

const PAIRS = [
  ['chromium', 'firefox'],
  ['firefox', 'chromium'],
  ['firefox', 'firefox'],
];

for (const [from, to] of PAIRS) {
  for (const offering of [false, true]) {
    const who = offering ? 'the viewer offers' : 'the server offers';
    test(`${from} to ${to}, ${who}`, { browsers: [...new Set([from, to])] }, async (t) => {
      const publisher = await t.stage(from, `publisher (${from})`);
      const tracks = await publisher.run((api) => stage.publish({ api, id: 10, codec: 'VP8' }), t.api);
      const viewer = await t.stage(to, `viewer (${to})`);
      const how = { api: t.api, tracks, id: 10, frames: 20, offering };
      const reports = await viewer.run((how) => stage.enjoy(how), how);
      const video = reports.find((r) => r.width);
      t.note(`${video.width}x${video.height}, ${video.took} ms to 20 frames`);
    });
  }
}
