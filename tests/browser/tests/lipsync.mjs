// Sound and picture of one publisher reach the viewer together.

import { check, test } from '../lib/suite.mjs';

const ALLOWED = 150;
const ROUNDS = 5;

for (const [from, to] of [
  ['chromium', 'chromium'],
  ['chromium', 'firefox'],
  ['firefox', 'chromium'],
]) {
  test(`lips move with the voice, ${from} to ${to}`, { browsers: [...new Set([from, to])], seconds: 120 }, async (t) => {
    const publisher = await t.stage(from, `publisher (${from})`);
    const tracks = await publisher.run(async (api) => {
      const metronome = new Metronome();
      const session = (stage.sessions.pub = await Session.open(new Api(api)));
      return session.push([
        { track: metronome.audio, trackName: 'beeps' },
        { track: metronome.video, trackName: 'flashes', codec: 'VP8' },
      ]);
    }, t.api);
    const viewer = await t.stage(to, `viewer (${to})`);
    await viewer.run(
      async ({ api, tracks }) => {
        const session = (stage.sessions.view = await Session.open(new Api(api)));
        const got = await session.pull(tracks);
        window.received = new MediaStream(got.map(({ track }) => track));
      },
      { api: t.api, tracks },
    );
    // A browser takes some seconds to move its audio and video buffers together, longer when the
    // machine is busy: what counts is that they get there.
    const medians = [];
    let skew;
    for (let round = 0; round < ROUNDS; round++) {
      skew = await viewer.run(() => measure(received, { beats: 4 }));
      medians.push(skew.median);
      if (Math.abs(skew.median) < ALLOWED) break;
    }
    t.note(`sound ${medians.join(', then ')} ms after the picture (${skew.least} to ${skew.most})`);
    check(Math.abs(skew.median) < ALLOWED, `sound and picture stay ${skew.median} ms apart`);
  });
}
