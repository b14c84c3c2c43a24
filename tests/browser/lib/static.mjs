// Serves one folder to the browsers.

import fs from 'node:fs/promises';
import http from 'node:http';
import path from 'node:path';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.json': 'application/json' };

/** Starts a server for `folder`; `handle(request, response)` may take requests first. */
export async function serve(folder, handle = async () => false) {
  const server = http.createServer(async (request, response) => {
    try {
      if (await handle(request, response)) return;
      const name = path.normalize(decodeURIComponent(new URL(request.url, 'http://x').pathname));
      const file = path.join(folder, name);
      const body = await fs.readFile(file);
      response.writeHead(200, { 'content-type': TYPES[path.extname(file)] ?? 'application/octet-stream' });
      response.end(body);
    } catch (e) {
      response.writeHead(e.code === 'ENOENT' ? 404 : 500, { 'content-type': 'text/plain' });
      response.end(String(e));
    }
  });
  await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
  return { url: `http://127.0.0.1:${server.address().port}`, close: () => server.closeAllConnections() || server.close() };
}
