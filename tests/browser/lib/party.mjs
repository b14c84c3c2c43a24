// partytracks as its users run it: the client bundled into a page, its own proxy on our Node server.

import path from 'node:path';

import { build } from 'esbuild';
import { routePartyTracksRequest } from 'partytracks/server';

import { serve } from './static.mjs';

const PAGES = path.join(import.meta.dirname, '../pages');

// The proxy is written for Workers; Node's fetch wants to be told that a streamed body is half duplex.
const { fetch: nodeFetch, Request: NodeRequest } = globalThis;
const half = (init) => (init?.body ? { ...init, duplex: 'half' } : init);
class HalfDuplexRequest extends NodeRequest {
  constructor(input, init) {
    super(input, half(init));
  }
}

/** Serves the pages, the bundle and `/partytracks/*`; `calls` records what the proxy asked of the API. */
export async function partyServer({ base, app, secret }) {
  const bundled = await build({
    entryPoints: [path.join(PAGES, 'party.js')],
    bundle: true,
    format: 'esm',
    write: false,
    logLevel: 'silent',
    external: ['./stage.js'],
  });
  const bundle = bundled.outputFiles[0].contents;
  const calls = [];
  globalThis.Request = HalfDuplexRequest;
  globalThis.fetch = async (input, init) => {
    const url = String(input?.url ?? input);
    const response = await nodeFetch(input, half(init));
    if (url.startsWith(base)) {
      const method = init?.method ?? input?.method ?? 'GET';
      const body = await response.clone().json().catch(() => 'no JSON');
      if (process.env.DUMP) console.log('<<<', response.status, body);
      calls.push({ method, path: url.slice(base.length).split('?')[0], status: response.status, body });
    }
    return response;
  };
  const server = await serve(PAGES, async (request, response) => {
    if (request.url.startsWith('/party.bundle.js')) {
      response.writeHead(200, { 'content-type': 'text/javascript' });
      response.end(bundle);
      return true;
    }
    if (!request.url.startsWith('/partytracks/')) return false;
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    const body = ['GET', 'HEAD'].includes(request.method) ? undefined : Buffer.concat(chunks);
    if (process.env.DUMP) console.log('>>>', request.method, request.url, body?.length ? JSON.parse(body) : '');
    const answer = await routePartyTracksRequest({
      appId: app,
      token: secret,
      prefix: '/partytracks',
      realtimeApiBaseUrl: base,
      request: new Request(`http://${request.headers.host}${request.url}`, {
        method: request.method,
        headers: request.headers,
        body,
      }),
    });
    const headers = Object.fromEntries(answer.headers);
    response.writeHead(answer.status, headers);
    response.end(Buffer.from(await answer.arrayBuffer()));
    return true;
  });
  const close = () => {
    server.close();
    Object.assign(globalThis, { fetch: nodeFetch, Request: NodeRequest });
  };
  return { url: server.url, calls, close };
}
