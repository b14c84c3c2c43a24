// Three nodes as one: whoever publishes on one is seen and heard on the others.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';

import { freePort, startServer } from '../lib/server.mjs';
import { check, equal, refuses, test } from '../lib/suite.mjs';
import { pause } from '../lib/wait.mjs';

const NODES = 3;

/** Starts nodes that know each other. */
async function cluster(t) {
  const key = path.join(t.out, 'cluster.key');
  fs.rmSync(key, { force: true });
  equal(spawnSync(t.binary, ['keygen', '--out', key]).status, 0, 'exit code of keygen');
  const ports = [];
  for (let n = 0; n < NODES; n++) ports.push(await freePort());
  const seeds = ports.flatMap((port) => ['--seed', `127.0.0.1:${port}`]);
  const start = async (n) => {
    const media = ['--udp', String(await freePort())];
    const part = ['--cluster-key', key, '--cluster', `127.0.0.1:${ports[n]}`, ...seeds];
    const node = await startServer(t.binary, path.join(t.out, `node${n}.log`), [...media, ...part], 2);
    t.later(() => node.stop());
    node.again = () => start(n);
    return node;
  };
  const nodes = [];
  for (let n = 0; n < NODES; n++) nodes.push(await start(n));
  await knowEachOther(nodes);
  return nodes;
}

async function knowEachOther(nodes) {
  for (const node of nodes) {
    for (let waited = 0; (await others(node)) < NODES - 1; waited += 100) {
      check(waited < 20_000, `${node.origin} does not know the other nodes`);
      await pause(100);
    }
  }
}

async function others({ origin }) {
  const metrics = await fetch(`${origin}/metrics`).then((r) => r.text());
  return Number(/^shardcast_cluster_nodes\S* (\d+)/m.exec(metrics)?.[1] ?? 0);
}

test('a publisher on one node is seen and heard on two others', { server: false, seconds: 120 }, async (t) => {
  const nodes = await cluster(t);
  const publisher = await t.stage('chromium', 'publisher');
  const tracks = await publisher.run((api) => stage.publish({ api, id: 20 }), nodes[0].api);
  await publisher.run(() => stage.connected({ as: 'pub' }));
  for (const n of [1, 2, 0]) {
    const viewer = await t.stage('chromium', `viewer on node ${n}`);
    const how = { api: nodes[n].api, tracks, id: 20, frames: 20 };
    const reports = await viewer.run((how) => stage.enjoy(how), how);
    const video = reports.find((r) => r.width);
    t.note(`node ${n}: ${video.took} ms to 20 frames`);
  }
});

test('a node that is killed takes its own sessions with it and no others, and comes back', { server: false, seconds: 180 }, async (t) => {
  const nodes = await cluster(t);
  const pages = [];
  for (const [n, id] of [[0, 21], [1, 22]]) {
    const page = await t.stage('chromium', `publisher on node ${n}`);
    pages.push(await page.run(({ api, id }) => stage.publish({ api, id }), { api: nodes[n].api, id }));
    await page.run(() => stage.connected({ as: 'pub' }));
  }
  const viewer = await t.stage('chromium', 'viewer on node 2');
  for (const [n, id] of [[0, 21], [1, 22]]) {
    const how = { api: nodes[2].api, as: `of node ${n}`, tracks: pages[n], id, frames: 20 };
    await viewer.run((how) => stage.enjoy(how), how);
  }
  const gone = { ...nodes[2].api, sessionId: pages[0][0].sessionId };
  nodes[0].kill();
  const killed = Date.now();
  for (;;) {
    const status = await viewer.run(async (api) => {
      const url = `${api.base}/apps/${api.app}/sessions/${api.sessionId}`;
      return (await fetch(url, { headers: { authorization: `Bearer ${api.secret}` } })).status;
    }, gone);
    if (status === 410) break;
    equal(status, 503, 'status for a session of the node that was killed');
    check(Date.now() - killed < 20_000, 'the node that was killed is not noticed');
    await pause(200);
  }
  t.note(`noticed after ${((Date.now() - killed) / 1000).toFixed(1)} s`);
  const late = await t.stage('chromium', 'late viewer on node 2');
  const how = { api: nodes[2].api, tracks: pages[1], id: 22, frames: 20 };
  await late.run((how) => stage.enjoy(how), how);
  await refuses(/410 session_error/, () => late.run(async ({ api, tracks }) => {
    const session = await new Api(api).newSession();
    return new Api(api).newTracks(session.sessionId, { tracks: tracks.map((t) => ({ ...t, location: 'remote' })) });
  }, { api: nodes[2].api, tracks: pages[0] }));
  // It comes back at the same address, as another node.
  const back = await nodes[0].again();
  await knowEachOther([back, nodes[1], nodes[2]]);
  const there = await t.stage('chromium', 'viewer on the node that came back');
  await there.run((how) => stage.enjoy(how), { ...how, api: back.api });
});
