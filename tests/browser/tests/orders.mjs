// Pushing (A), pulling with the server's offer (D) and pulling with our own (E) in every order on
// one RTCPeerConnection: mids must not collide and no m-line may change its meaning.

import { test } from '../lib/suite.mjs';

const ORDERS = ['ADE', 'AED', 'DAE', 'DEA', 'EAD', 'EDA'];

for (const kind of ['chromium', 'firefox']) {
  test(`${kind} pushes and pulls in every order on one connection`, { browsers: [kind], seconds: 150 }, async (t) => {
    const source = await t.stage(kind, 'publishers');
    const [d, e] = await source.run(async (api) => {
      const size = { width: 320, height: 180 };
      return [
        await stage.publish({ api, as: 'd', id: 11, codec: 'VP8', size }),
        await stage.publish({ api, as: 'e', id: 12, codec: 'VP8', size }),
      ];
    }, t.api);
    const tab = await t.stage(kind, 'both ways');
    for (const order of ORDERS) {
      await oneOrder(tab, t.api, order, d, e).catch((error) => {
        throw new Error(`order ${order}: ${error.message}`);
      });
    }
    t.note(ORDERS.join(' '));
  });
}

async function oneOrder(tab, api, order, d, e) {
  const got = await tab.run(
    async ({ api, order, d, e }) => {
      const got = {};
      for (const step of order) {
        if (step === 'A') got.A = await stage.publish({ api, as: order, id: 13, codec: 'VP8', size: { width: 320, height: 180 } });
        if (step === 'D') got.D = await stage.watch({ api, as: order, tracks: d });
        if (step === 'E') got.E = await stage.watch({ api, as: order, tracks: e, offering: true });
      }
      const twice = [...got.D, ...got.E, ...got.A.map(({ mid }) => mid)].sort();
      if (new Set(twice).size !== 6) throw new Error(`mids are used twice: ${twice}`);
      return got;
    },
    { api, order, d, e },
  );
  await tab.run(
    async ({ api, order, got }) => {
      const [da, dv, ea, ev] = [...got.D, ...got.E];
      await Promise.all([
        stage.hears({ as: order, mid: da, id: 11 }),
        stage.sees({ as: order, mid: dv, id: 11 }),
        stage.hears({ as: order, mid: ea, id: 12 }),
        stage.sees({ as: order, mid: ev, id: 12 }),
        stage.enjoy({ api, as: `${order} mirror`, tracks: got.A, id: 13 }),
      ]);
      for (const as of [order, `${order} mirror`]) {
        Object.values(stage.screens[as]).forEach((screen) => screen.stop());
        await stage.sessions[as].end();
      }
    },
    { api, order, got },
  );
}
