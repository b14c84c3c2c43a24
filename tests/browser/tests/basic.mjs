// One publisher, viewers on the other shards.

import { SHARDS } from '../lib/server.mjs';
import { check, equal, refuses, test } from '../lib/suite.mjs';

test('one publisher reaches viewers on other shards, picture and sound', { seconds: 90 }, async (t) => {
  const publisher = await t.stage('chromium', 'publisher');
  const tracks = await publisher.run((api) => stage.publish({ api, id: 1 }), t.api);
  await publisher.run(() => stage.connected({ as: 'pub' }));
  const home = (await publisher.run(() => stage.get({ as: 'pub' }))).shardcast;
  check(home?.connected === true, `GET session does not say that the publisher is connected: ${JSON.stringify(home)}`);

  const viewers = await t.stage('chromium', 'viewers');
  const elsewhere = new Set();
  // Placement is by load with some chance: a few more viewers than needed are allowed to come.
  for (let n = 0; n < 12 && elsewhere.size < 3; n++) {
    const as = `viewer ${n}`;
    await viewers.run(({ api, tracks, as }) => stage.enjoy({ api, as, tracks, id: 1 }), { api: t.api, tracks, as });
    const { shard, connected } = (await viewers.run((as) => stage.get({ as }), as)).shardcast;
    check(connected, `${as} is not told to be connected`);
    if (shard !== home.shard) elsewhere.add(shard);
  }
  t.note(`publisher on shard ${home.shard}, viewers on ${[...elsewhere].join(', ')}`);
  equal(elsewhere.size, Math.min(3, SHARDS - 1), 'number of other shards with viewers');
});

test('two publishers in one page are not mixed up', {}, async (t) => {
  const [left, right] = [await t.stage('chromium', 'publishers'), await t.stage('chromium', 'viewer')];
  const [one, two] = await left.run(
    (api) => Promise.all([stage.publish({ api, as: 'a', id: 2 }), stage.publish({ api, as: 'b', id: 3 })]),
    t.api,
  );
  // Both in one pull: results keep the order of the request.
  const tracks = [one[1], two[0], two[1], one[0]];
  const mids = await right.run(({ api, tracks }) => stage.watch({ api, tracks }), { api: t.api, tracks });
  await right.run(
    ([a, b, c, d]) =>
      Promise.all([
        stage.sees({ mid: a, id: 2 }),
        stage.hears({ mid: b, id: 3 }),
        stage.sees({ mid: c, id: 3 }),
        stage.hears({ mid: d, id: 2 }),
      ]),
    mids,
  );
});

test('several tracks of each kind travel on one connection', {}, async (t) => {
  const publisher = await t.stage('chromium', 'publisher');
  const tracks = await publisher.run(async (api) => {
    const all = [];
    for (const id of [4, 5, 6]) all.push(await stage.publish({ api, id, size: { width: 320, height: 180 } }));
    return all;
  }, t.api);
  const viewer = await t.stage('chromium', 'viewer');
  for (const [i, id] of [4, 5, 6].entries()) {
    await viewer.run((how) => stage.enjoy(how), { api: t.api, tracks: tracks[i], id });
  }
});

test('a wrong secret, an unknown session and an unknown track are refused in words', {}, async (t) => {
  const tab = await t.stage('chromium');
  await refuses(/401 unauthorized/, () => tab.run((api) => new Api({ ...api, secret: 'x' }).newSession(), t.api));
  await refuses(/404 not_found/, () => tab.run((api) => new Api({ ...api, app: 'f'.repeat(32) }).newSession(), t.api));
  await refuses(/410 session_error/, () => tab.run((api) => new Api(api).get('0'.repeat(32)), t.api));
  const items = await tab.run(async (api) => {
    const publisher = await stage.publish({ api, id: 7, kinds: ['audio'] });
    await stage.connected({ as: 'pub' });
    const viewer = await new Api(api).newSession();
    const { sessionId } = publisher[0];
    const tracks = [{ location: 'remote', sessionId, trackName: 'nobody' }];
    return new Api(api).newTracks(viewer.sessionId, { tracks });
  }, t.api);
  equal(items.requiresImmediateRenegotiation, false, 'requiresImmediateRenegotiation');
  equal(items.sessionDescription, undefined, 'sessionDescription');
  equal(items.tracks[0].errorCode, 'not_found_track_error', 'errorCode');
  equal(items.tracks[0].mid, '', 'mid');
});
