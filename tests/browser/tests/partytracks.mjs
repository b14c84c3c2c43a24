// Cloudflare's client library, through its own proxy, with nothing changed but the base URL.

import { partyServer } from '../lib/party.mjs';
import { check, equal, test } from '../lib/suite.mjs';
import { pause } from '../lib/wait.mjs';

for (const kind of ['chromium', 'firefox']) {
  test(`partytracks pushes, pulls, re-points and closes in ${kind}`, { browsers: [kind], seconds: 120 }, async (t) => {
    const server = await partyServer(t.api);
    t.later(server.close);
    const open = async (name) => {
      const tab = t.keep(await t.browsers.open(kind, `${server.url}/party.html`), name);
      await tab.until(() => document.title === 'ready' && !!window.party);
      return tab;
    };
    const [ann, ben, viewer] = [await open('ann'), await open('ben'), await open('viewer')];
    const [annAudio, annVideo] = await pushBoth(ann, 36);
    const [, benVideo] = await pushBoth(ben, 37);
    for (const { location, sessionId, trackName } of [annAudio, annVideo, benVideo]) {
      check(location === 'remote' && sessionId && trackName, 'partytracks announced a track without its address');
    }

    await viewer.run(([a, v]) => Promise.all([party.pull('audio', a), party.pull('video', v)]), [annAudio, annVideo]);
    await viewer.run(async () => {
      await stage.hears({ as: 'party', mid: 'audio', id: 36 });
      await stage.sees({ as: 'party', mid: 'video', id: 36 });
    });

    await viewer.run((metadata) => party.running.video.wanted.next(metadata), benVideo);
    await viewer.until(() => party.running.video.tracks === 2);
    await viewer.run(() => stage.sees({ as: 'party', mid: 'video', id: 37 }));

    await viewer.run(() => party.running.video.preferredRid$.next('h'));
    await called(server, 'PUT', '/tracks/update');
    await viewer.run(() => stage.sees({ as: 'party', mid: 'video', id: 37 }));

    const states = await viewer.run(() => party.states);
    check(!states.includes('failed') && states.at(-1) === 'connected', `the viewer's connection went ${states.join(', ')}`);

    const before = server.calls.filter((c) => c.path.endsWith('/tracks/close')).length;
    await viewer.run(() => ['audio', 'video'].forEach(party.stop));
    await ann.run(() => ['audio', 'video'].forEach(party.stop));
    await called(server, 'PUT', '/tracks/close', before + 2);
    await pause(500);

    const bad = server.calls.filter((c) => c.status >= 300 || c.body === 'no JSON' || c.body.errorCode);
    equal(bad, [], 'the refused calls');
    t.note(`${server.calls.length} API calls, none refused`);
  });
}

test('partytracks pushes three layers and chooses among them', { seconds: 90 }, async (t) => {
  const server = await partyServer(t.api);
  t.later(server.close);
  const tab = t.keep(await t.browsers.open('chromium', `${server.url}/party.html`), 'both');
  await tab.until(() => document.title === 'ready' && !!window.party);
  const metadata = await tab.run(() => {
    const studio = (stage.studios[38] = new Studio(38, { width: 1280, height: 720 }));
    return party.push('video', studio.video, [
      { rid: 'a', maxBitrate: 1_300_000 },
      { rid: 'b', maxBitrate: 300_000, scaleResolutionDownBy: 2 },
    ]);
  });
  await tab.run((metadata) => party.pull('layers', metadata, 'b'), metadata);
  for (const [rid, wide] of [['b', 640], ['a', 1280], ['b', 640]]) {
    await tab.run((rid) => party.running.layers.preferredRid$.next(rid), rid);
    await tab.until((wide) => stage.screens.party.layers.element.videoWidth === wide, wide, 15000);
    await tab.run(() => stage.sees({ as: 'party', mid: 'layers', id: 38 }));
  }
});

function pushBoth(tab, id) {
  return tab.run((id) => {
    const studio = (stage.studios[id] = new Studio(id));
    return Promise.all([party.push('audio', studio.audio), party.push('video', studio.video)]);
  }, id);
}

async function called(server, method, suffix, times = 1) {
  const hits = () => server.calls.filter((c) => c.method === method && c.path.endsWith(suffix)).length;
  for (let waited = 0; hits() < times; waited += 100) {
    check(waited < 10000, `${method} …${suffix} was called ${hits()} times in 10 s, expected ${times}`);
    await pause(100);
  }
}
