// The demonstration page, driven as a newcomer would.

import path from 'node:path';

import { check, test } from '../lib/suite.mjs';
import { pause } from '../lib/wait.mjs';

test('the demo page publishes a pattern, another tab watches it, a share link too', { seconds: 90 }, async (t) => {
  const first = t.keep(await t.browsers.open('chromium', `${t.server.origin}/`), 'publisher');
  await enter(first, t.api);
  check(await first.run(() => !document.getElementById('live-empty').hidden), 'nothing should be live at first');
  await first.run(() => document.getElementById('pattern').click());
  await first.until(() => !!document.querySelector('.tile[data-role=publish] .dot.on'));
  await first.until(() => /^\d/.test(statistics('publish').Bitrate) && /shard \d/.test(document.querySelector('.path').textContent));

  const second = t.keep(await first.sibling(`${t.server.origin}/`), 'second tab');
  await enter(second, t.api);
  await second.until(() => !!document.querySelector('#live .watch'));
  await second.run(() => document.querySelector('#live .watch').click());
  await second.run(() => document.querySelector('#live .watch').click());
  await playing(second, 1); // the second click leads to the tile that is there
  const stats = await second.until(() => {
    const s = statistics('watch');
    return /^\d/.test(s.Resolution) && /[1-9]/.test(s.Frames) && /[1-9].*bit/.test(s.Bitrate) && s['Round trip'] !== '–' && s;
  });
  await second.until(() => [...document.querySelectorAll('.path')].every((p) => /shard \d.*(shard \d|same shard)/.test(p.textContent)));
  t.note(`watched ${Object.values(stats).join(', ')}`);
  await second.until(() => document.querySelector('video').videoWidth === 1280, undefined, 5000).catch(() => {});
  await second.screenshot(path.join(t.out, 'demo.png'));
  await second.page.emulateMedia({ colorScheme: 'dark' });
  await second.screenshot(path.join(t.out, 'demo-dark.png'));

  await first.run(() => document.querySelector('#live .share').click());
  const link = await first.run(() => navigator.clipboard.readText());
  check(link.startsWith(`${t.server.origin}/#watch=`), `the share link is ${link}`);
  const stranger = t.keep(await t.browsers.open('chromium', link), 'stranger');
  await enter(stranger, t.api);
  await playing(stranger, 1);

  await first.run(() => document.querySelector('.tile .stop').click());
  await stranger.until(() => /publisher (stopped|left)/.test(document.querySelector('.veil').textContent));
  await second.until(() => !document.querySelector('#live li'));
});

test('the demo page takes its session along when it is closed', {}, async (t) => {
  const page = t.keep(await t.browsers.open('chromium', `${t.server.origin}/`), 'publisher');
  await enter(page, t.api);
  await page.run(() => document.getElementById('pattern').click());
  await page.until(() => !!(document.querySelector('.tile .dot.on') && document.querySelector('#live .share')));
  await page.run(() => document.querySelector('#live .share').click());
  const link = await page.run(() => navigator.clipboard.readText());
  const sessionId = /#watch=([^/]+)/.exec(link)[1];
  await page.page.goto('about:blank');
  const { base, app, secret } = t.api;
  for (let waited = 0; ; waited += 200) {
    const headers = { authorization: `Bearer ${secret}` };
    const { status } = await fetch(`${base}/apps/${app}/sessions/${sessionId}`, { headers });
    if (status === 410 || status === 404) break;
    check(waited < 8000, `8 s after the page left its session still answers ${status}`);
    await pause(200);
  }
});

test('the demo page publishes every codec that it offers', { seconds: 90 }, async (t) => {
  const page = t.keep(await t.browsers.open('chromium', `${t.server.origin}/`), 'page');
  await enter(page, t.api);
  const codecs = await page.run(() => [...document.getElementById('codec').options].map((o) => o.value).filter(Boolean));
  for (const codec of codecs) {
    await page.run((codec) => {
      document.getElementById('codec').value = codec;
      document.getElementById('pattern').click();
    }, codec);
    await page.until((codec) => statistics('publish').Codec === codec, codec, 20000);
    await page.run(() => document.querySelector('.tile .stop').click());
  }
  t.note(codecs.join(', '));
});

test('the demo page works in firefox', { browsers: ['firefox'] }, async (t) => {
  const page = t.keep(await t.browsers.open('firefox', `${t.server.origin}/`), 'firefox');
  await enter(page, t.api);
  await page.run(() => document.getElementById('pattern').click());
  await page.until(() => !!(document.querySelector('.tile .dot.on') && document.querySelector('#live .watch')));
  await page.run(() => document.querySelector('#live .watch').click());
  await playing(page, 1);
  await page.until(() => /[1-9].*bit/.test(statistics('watch').Bitrate));
});

// Gives the credentials if the page asks, and helps to read its tiles.
async function enter(tab, { app, secret }) {
  await tab.until(() => ['main', 'credentials'].some((id) => !document.getElementById(id).hidden));
  await tab.run(
    ({ app, secret }) => {
      const form = document.getElementById('credentials');
      if (form.hidden) return;
      document.getElementById('app').value = app;
      document.getElementById('secret').value = secret;
      form.requestSubmit();
    },
    { app, secret },
  );
  await tab.until(() => !document.getElementById('main').hidden);
  await tab.run(() => {
    window.statistics = (role) => {
      const list = document.querySelector(`.tile[data-role=${role}] dl`);
      return Object.fromEntries([...(list?.children ?? [])].map((c) => [...c.children].map((part) => part.textContent)));
    };
  });
}

function playing(tab, count) {
  return tab.until((count) => {
    const videos = [...document.querySelectorAll('.tile[data-role=watch] video')];
    return videos.length === count && videos.every((v) => v.videoWidth > 0 && v.currentTime > 1);
  }, count);
}
