// The server under test: the release binary, or one that runs already.

import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';

import { pause } from './wait.mjs';

export const SHARDS = 4;
const APP = 'b10c0de5'.repeat(4);
const SECRET = '5ec2e7'.padEnd(64, '0');

/** Starts `binary` with an application of our own; its log goes to `log`. */
export async function startServer(binary, log, extra = [], shards = SHARDS) {
  const http = `127.0.0.1:${await freePort()}`;
  const app = `${APP}:${SECRET}`;
  const args = ['--http', http, '--shards', String(shards), '--app', app, '--log', 'debug', ...extra];
  fs.mkdirSync(path.dirname(log), { recursive: true });
  const out = fs.openSync(log, 'w');
  const env = { RUST_BACKTRACE: '1', ...process.env };
  const child = spawn(binary, args, { stdio: ['ignore', out, out], env });
  let ended;
  child.on('exit', (code, signal) => (ended = `the server ended by itself (${signal ?? `exit code ${code}`})`));
  child.on('error', (e) => (ended = `the server did not start: ${e.message}`));
  process.once('exit', () => child.kill('SIGKILL'));
  const server = {
    command: [path.relative(process.cwd(), binary), ...args].join(' ').replace(app, 'ID:SECRET'),
    origin: `http://${http}`,
    api: { base: `http://${http}/v1`, app: APP, secret: SECRET },
    get fate() {
      return ended;
    },
    /** As when the machine fails. */
    kill: () => child.kill('SIGKILL'),
    logSize: () => fs.statSync(log).size,
    logFrom: (offset) => fs.readFileSync(log).subarray(offset).toString(),
    async stop() {
      child.kill('SIGTERM');
      for (let i = 0; i < 50 && !ended; i++) await pause(100);
      if (!ended) child.kill('SIGKILL');
    },
  };
  await answering(server);
  return server;
}

/** A server that somebody else started. */
export async function foundServer(origin, credentials) {
  const [app, secret] = credentials.split(':');
  const api = { base: `${origin}/v1`, app, secret };
  const server = { command: `(running) ${origin}`, origin, api, stop: async () => {} };
  Object.assign(server, { logSize: () => 0, logFrom: () => '' });
  await answering(server);
  return server;
}

async function answering(server) {
  for (let waited = 0; ; waited += 100) {
    if (server.fate) throw new Error(`${server.fate}\n${server.logFrom(0).slice(-3000)}`);
    const url = `${server.api.base}/apps/${server.api.app}/sessions/${'0'.repeat(32)}`;
    const headers = { authorization: `Bearer ${server.api.secret}` };
    const status = await fetch(url, { headers, signal: AbortSignal.timeout(2000) }).then((r) => r.status, () => 0);
    if (status === 401) throw new Error('the server does not know our application');
    if (status) return;
    if (waited > 15000) throw new Error(`the server does not answer at ${url}\n${server.logFrom(0).slice(-3000)}`);
    await pause(100);
  }
}

/** A port of 127.0.0.1 that is free now. */
export function freePort() {
  return new Promise((found, failed) => {
    const probe = net.createServer();
    probe.on('error', failed);
    probe.listen(0, '127.0.0.1', () => {
      const { port } = probe.address();
      probe.close(() => found(port));
    });
  });
}
