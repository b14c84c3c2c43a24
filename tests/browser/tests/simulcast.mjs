// Three layers published; a viewer gets one, and another when it asks.

import { check, equal, test } from '../lib/suite.mjs';

const ENCODINGS = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', scaleResolutionDownBy: 1, maxBitrate: 1_500_000 },
];

for (const kind of ['chromium', 'firefox']) {
  test(`${kind} publishes three layers; each is seen when preferred`, { browsers: [kind], seconds: 200 }, async (t) => {
    const publisher = await t.stage(kind, 'publisher');
    const how = { api: t.api, encodings: ENCODINGS };
    const [video] = await publisher.run(
      ({ api, encodings }) =>
        stage.publish({ api, id: 23, kinds: ['video'], codec: 'VP8', encodings, size: { width: 1280, height: 720 } }),
      how,
    );
    const viewer = await t.stage(kind, 'viewer');
    const [{ mid, width }] = await viewer.run((how) => stage.enjoy(how), { api: t.api, tracks: [video], id: 23 });
    t.note(`without preference ${width} wide`);
    // A browser on a slow machine takes its time to trust the path with the largest layer: 25 s were seen.
    await publisher.run(
      () => stage.until({ as: 'pub', within: 80000 }, (rows) => rows.filter((r) => r.rid && r.frames > 10).length === 3),
      undefined,
      90000,
    );
    for (const [rid, wide] of [['q', 320], ['f', 1280], ['h', 640], ['q', 320]]) {
      const track = { ...video, simulcast: { preferredRid: rid } };
      await viewer.run(([mid, track]) => stage.sessions.view.update(mid, track), [mid, track]);
      const started = Date.now();
      await becomes(viewer, mid, wide, rid);
      await viewer.run((how) => stage.sees(how), { mid, id: 23, frames: 5 });
      t.note(`${rid} in ${Date.now() - started} ms`);
    }
    const [pulled] = await viewer.run(
      (how) => stage.enjoy(how),
      { api: t.api, as: 'h from the start', tracks: [{ ...video, simulcast: { preferredRid: 'h' } }], id: 23 },
    );
    await becomes(viewer, pulled.mid, 640, 'h', 'h from the start');
  });
}

test('a preference on a track without layers does no harm', {}, async (t) => {
  const tab = await t.stage('chromium');
  const [video] = await tab.run((api) => stage.publish({ api, id: 24, kinds: ['video'] }), t.api);
  const [{ mid }] = await tab.run((how) => stage.enjoy(how), { api: t.api, tracks: [video], id: 24 });
  const reply = await tab.run(
    ([mid, { sessionId, trackName }]) => {
      const { api, id } = stage.sessions.view;
      return api.update(id, [{ location: 'remote', sessionId, trackName, mid, simulcast: { preferredRid: '' } }]);
    },
    [mid, video],
  );
  check([undefined, 'update_track_error'].includes(reply.tracks[0].errorCode), JSON.stringify(reply));
  equal(reply.tracks.length, 1, 'number of results');
  await tab.run((how) => stage.sees(how), { mid, id: 24 });
});

// Firefox scales the capture itself, so the width is a bound rather than a number.
async function becomes(tab, mid, wide, rid, as = 'view') {
  await tab.until(
    ([as, mid, wide]) => Math.abs(stage.screens[as][mid].element.videoWidth - wide) <= wide / 8,
    [as, mid, wide],
    12000,
  ).catch(async () => {
    const width = await tab.run(([as, mid]) => stage.screens[as][mid].element.videoWidth, [as, mid]);
    throw new Error(`layer ${rid} should be ${wide} wide, the picture is ${width} wide`);
  });
}
