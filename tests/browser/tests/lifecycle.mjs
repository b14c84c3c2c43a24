// Closing, publishing again, re-pointing, joining late, restarting ICE, leaving.

import { check, equal, refuses, test } from '../lib/suite.mjs';

test('a forced close stops the picture and the mid can be published again under a new name', {}, async (t) => {
  const tab = await t.stage('chromium');
  const [video] = await tab.run((api) => stage.publish({ api, id: 14, kinds: ['video'] }), t.api);
  const [{ mid }] = await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'first', tracks: [video], id: 14 });
  await tab.run((mid) => stage.sessions.pub.closeByForce([mid]), video.mid);
  await still(tab, 'first', mid);
  await refuses(/close_track_error/, () => tab.run((mid) => stage.sessions.pub.closeByForce([mid]), video.mid));
  await tab.run((mid) => stage.sessions.pub.republish(mid, 'again'), video.mid);
  const again = { ...video, trackName: 'again' };
  await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'second', tracks: [again], id: 14 });
});

test('a viewer closes one of two tracks, by offer and by force, and keeps the other', {}, async (t) => {
  const tab = await t.stage('chromium');
  const tracks = await tab.run((api) => stage.publish({ api, id: 15 }), t.api);
  for (const force of [false, true]) {
    const as = force ? 'forced' : 'offered';
    const [audio, video] = await tab.run((how) => stage.enjoy(how), { api: t.api, as, tracks, id: 15 });
    const how = { as, mid: video.mid, force };
    await tab.run(({ as, mid, force }) => stage.sessions[as][force ? 'closeByForce' : 'close']([mid]), how);
    await still(tab, as, video.mid);
    await tab.run((how) => stage.hears(how), { as, mid: audio.mid, id: 15 });
    // The m-line of a closed track, stopped or not, is no obstacle to the next pull.
    await tab.run((how) => stage.enjoy(how), { api: t.api, as, tracks: [tracks[1]], id: 15 });
  }
});

for (const kind of ['chromium', 'firefox']) {
  test(`${kind} pulls and closes a track ten times over beside another that stays`, { browsers: [kind], seconds: 120 }, async (t) => {
    const tab = await t.stage(kind);
    const [audio, video] = await tab.run((api) => stage.publish({ api, id: 25, codec: 'VP8' }), t.api);
    const [kept] = await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'view', tracks: [audio], id: 25 });
    for (let round = 1; round <= 10; round++) {
      const how = { api: t.api, as: 'view', tracks: [video], id: 25, frames: 3 };
      const [{ mid }] = await tab.run((how) => stage.enjoy(how), how).catch((e) => {
        throw new Error(`round ${round}: ${e.message}`);
      });
      await tab.run((mid) => stage.sessions.view.close([mid]), mid);
    }
    await tab.run((how) => stage.hears(how), { mid: kept.mid, id: 25 });
  });

  // A browser drops its transport when the first m-line of the bundle is rejected, and begins
  // another under the same session: new ICE credentials and a new DTLS handshake.
  test(`${kind} closes its first track by offer and the others go on`, { browsers: [kind] }, async (t) => {
    const tab = await t.stage(kind);
    const tracks = await tab.run((api) => stage.publish({ api, id: 26, codec: 'VP8' }), t.api);
    const [audio, video] = await tab.run((how) => stage.enjoy(how), { api: t.api, tracks, id: 26 });
    await tab.run((mid) => stage.sessions.view.close([mid]), audio.mid);
    await tab.run((how) => pause(2000).then(() => stage.sees(how)), { mid: video.mid, id: 26 });
    await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'view', tracks: [tracks[0]], id: 26 });
  });
}

test('a publisher closes by offer and publishes anew on the same connection', {}, async (t) => {
  const tab = await t.stage('chromium');
  const [audio, video] = await tab.run((api) => stage.publish({ api, id: 16 }), t.api);
  await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'view', tracks: [audio, video], id: 16 });
  await tab.run((mid) => stage.sessions.pub.close([mid]), video.mid);
  const [next] = await tab.run((api) => stage.publish({ api, id: 17, kinds: ['video'] }), t.api);
  await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'view', tracks: [next], id: 17 });
  await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'late', tracks: [audio], id: 16 });
});

test('an update re-points a pulled transceiver to another publisher and back', {}, async (t) => {
  const tab = await t.stage('chromium');
  const [one, two] = await tab.run(
    (api) =>
      Promise.all([
        stage.publish({ api, as: 'a', id: 18, codec: 'VP8' }),
        stage.publish({ api, as: 'b', id: 19, codec: 'VP8' }),
      ]),
    t.api,
  );
  const mids = (await tab.run((how) => stage.enjoy(how), { api: t.api, tracks: one, id: 18 })).map((r) => r.mid);
  for (const [tracks, id] of [[two, 19], [one, 18], [two, 19]]) {
    for (const [i, mid] of mids.entries()) {
      await tab.run(([mid, track]) => stage.sessions.view.update(mid, track), [mid, tracks[i]]);
    }
    const started = Date.now();
    await tab.run(([a, v, id]) => Promise.all([stage.hears({ mid: a, id }), stage.sees({ mid: v, id, frames: 3 })]), [...mids, id]);
    t.note(`to ${id} in ${Date.now() - started} ms`);
  }
});

test('a late joiner sees a picture soon', {}, async (t) => {
  const tab = await t.stage('chromium');
  const tracks = await tab.run((api) => stage.publish({ api, id: 20 }), t.api);
  await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'early', tracks, id: 20 });
  await tab.run(() => pause(4000));
  const started = Date.now();
  await tab.run((how) => stage.enjoy(how), { api: t.api, as: 'late', tracks, id: 20, frames: 2 });
  const took = Date.now() - started;
  t.note(`${took} ms from the pull to the second frame and the note`);
  check(took < 5000, `it took ${took} ms`);
});

for (const kind of ['chromium', 'firefox']) {
  test(`${kind} restarts ICE on both ends and media goes on`, { browsers: [kind] }, async (t) => {
    const tab = await t.stage(kind);
    const tracks = await tab.run((api) => stage.publish({ api, id: 21, codec: 'VP8' }), t.api);
    const [audio, video] = await tab.run((how) => stage.enjoy(how), { api: t.api, tracks, id: 21 });
    for (const as of ['pub', 'view']) {
      const ice = await tab.run((as) => stage.sessions[as].restartIce(), as);
      check(ice.before !== ice.after, 'the browser did not restart ICE');
      check(ice.server[0] !== ice.server[1], 'the server kept its ICE credentials');
      await tab.run(() => pause(1500));
      await tab.run((as) => stage.connected({ as }), as);
    }
    const both = { a: audio.mid, v: video.mid };
    await tab.run(({ a, v }) => Promise.all([stage.hears({ mid: a, id: 21 }), stage.sees({ mid: v, id: 21, frames: 20 })]), both);
  });
}

test('a deleted session is gone, and its tracks with it', {}, async (t) => {
  const tab = await t.stage('chromium');
  const [video] = await tab.run((api) => stage.publish({ api, id: 22, kinds: ['video'] }), t.api);
  const [{ mid }] = await tab.run((how) => stage.enjoy(how), { api: t.api, tracks: [video], id: 22 });
  const listed = await tab.run(() => stage.get({ as: 'pub' }));
  equal(
    listed.tracks.map(({ location, trackName, status }) => ({ location, trackName, status })),
    [{ location: 'local', trackName: video.trackName, status: 'active' }],
    'the tracks listed',
  );
  await tab.run(() => stage.sessions.pub.api.delete(stage.sessions.pub.id));
  await refuses(/410|404/, () => tab.run(() => stage.get({ as: 'pub' })));
  await still(tab, 'view', mid);
});

async function still(tab, as, mid) {
  await tab.run(() => pause(500));
  const moved = await tab.run((how) => stage.motion(how), { as, mid, ms: 1200 });
  check(moved === 0, `the picture should stand still, but ${moved} new frames came`);
}
