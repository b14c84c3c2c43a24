// Runs the browser tests: node run.mjs [--only TEXT]… [--no-firefox] [--no-chromium] [--list]
//   [--server ORIGIN --app ID:SECRET | --binary PATH] [--repeat N]

import fs from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';

import { Browsers } from './lib/browsers.mjs';
import { serve } from './lib/static.mjs';
import { foundServer, startServer } from './lib/server.mjs';
import { enter, registered } from './lib/suite.mjs';
import { within } from './lib/wait.mjs';

const HERE = import.meta.dirname;
const OUT = path.join(HERE, '../out');
const BINARY = path.join(process.env.CARGO_TARGET_DIR ?? path.join(HERE, '../../target'), 'release/shardcast');
const tty = process.stdout.isTTY;
const paint = (code) => (text) => (tty ? `\x1b[${code}m${text}\x1b[0m` : text);
const [green, red, dim, bold, yellow] = [32, 31, 2, 1, 33].map(paint);

const { values: flags } = parseArgs({
  options: {
    only: { type: 'string', multiple: true, default: [] },
    'no-firefox': { type: 'boolean', default: false },
    'no-chromium': { type: 'boolean', default: false },
    server: { type: 'string' },
    app: { type: 'string' },
    binary: { type: 'string', default: BINARY },
    repeat: { type: 'string', default: '1' },
    list: { type: 'boolean', default: false },
  },
});

for (const name of fs.readdirSync(path.join(HERE, 'tests')).filter((n) => n.endsWith('.mjs')).sort()) {
  enter(name.replace(/\.mjs$/, ''));
  await import(path.join(HERE, 'tests', name));
}
const barred = ['firefox', 'chromium'].filter((kind) => flags[`no-${kind}`]);
const wanted = (t) => !flags.only.length || flags.only.some((text) => `${t.file}: ${t.name}`.includes(text));
const chosen = registered.filter(wanted);
const left = chosen.filter((t) => t.browsers.some((kind) => barred.includes(kind)));
const plan = chosen.filter((t) => !left.includes(t));
if (flags.list) {
  plan.forEach((t) => console.log(`${t.file}: ${t.name}  [${t.browsers.join(', ')}]`));
  process.exit(0);
}
if (!chosen.length) {
  console.error(red(`no test matches --only ${flags.only.join(', ')}`));
  process.exit(2);
}

const began = Date.now();
const browsers = new Browsers();
const pages = await serve(path.join(HERE, 'pages'));
let server;
let passed = 0;
let failed = 0;
fs.mkdirSync(OUT, { recursive: true });
try {
  for (let round = 0; round < Number(flags.repeat); round++) {
    let heading;
    for (const t of plan) {
      if (heading !== t.file) console.log(`\n${bold((heading = t.file))}`);
      await one(t);
    }
  }
} finally {
  await browsers.close();
  await server?.stop();
  pages.close();
}
for (const t of left) console.log(yellow(`left out by --no-${barred.find((b) => t.browsers.includes(b))}: ${t.file}: ${t.name}`));
const took = ((Date.now() - began) / 1000).toFixed(0);
const closing = `${passed} passed, ${failed} failed${left.length ? `, ${left.length} left out by a flag` : ''}`;
console.log(`\n${(failed ? red : green)(closing)} ${dim(`(browser tests, ${took} s)`)}`);
process.exit(failed ? 1 : 0);

async function one(t) {
  const start = Date.now();
  const tabs = [];
  const notes = [];
  const later = [];
  let from = 0;
  try {
    if (t.server) from = (await ready()).logSize();
    const context = {
      server,
      api: server?.api,
      browsers,
      binary: flags.binary,
      out: OUT,
      note: (text) => notes.push(text),
      later: (f) => later.push(f),
      keep: (tab, name) => tabs.push(Object.assign(tab, { name: name ?? tab.kind })) && tab,
      /** Opens the stage page, ready, in a browser. */
      async stage(kind, name) {
        const tab = context.keep(await browsers.open(kind, `${pages.url}/stage.html`), name);
        await tab.until(() => document.title === 'ready');
        return tab;
      },
    };
    await within(t.seconds * 1000, 'the whole test', t.proof(context));
    if (server?.fate) throw new Error(server.fate);
    passed++;
    const said = notes.length ? dim(` · ${notes.join(' · ')}`) : '';
    console.log(`  ${green('✓')} ${t.name} ${dim(seconds(start))}${said}`);
  } catch (e) {
    failed++;
    console.log(`  ${red('✗')} ${t.name} ${dim(seconds(start))}\n${indent(red(e.message))}`);
    if (process.env.STACK) console.log(indent(e.stack));
    notes.forEach((note) => console.log(indent(dim(note))));
    for (const tab of tabs) {
      if (tab.console.length) console.log(indent(`${bold(`console of ${tab.name}`)}\n${tab.console.slice(-30).join('\n')}`));
    }
    const log = server?.logFrom(from).trimEnd().split('\n').slice(-40).join('\n');
    if (log) console.log(indent(`${bold('server log')}\n${log}`));
    if (server?.fate) {
      console.log(indent(red(`${server.fate}; it is started again for the next test`)));
      server = undefined;
    }
  } finally {
    for (const f of later) await within(5000, 'cleaning up', Promise.resolve(f())).catch(() => {});
    for (const tab of tabs) {
      await tab.run(() => window.stage?.endAll(), undefined, 5000).catch(() => {});
      await tab.close();
    }
  }
}

async function ready() {
  if (server) return server;
  if (flags.server) server = await foundServer(flags.server, flags.app ?? '');
  else if (fs.existsSync(flags.binary)) server = await startServer(flags.binary, path.join(OUT, 'server.log'));
  else throw new Error(`there is no ${flags.binary}: cargo build --release`);
  console.log(dim(`  server: ${server.command}`));
  return server;
}

function seconds(start) {
  return `(${((Date.now() - start) / 1000).toFixed(1)} s)`;
}

function indent(text) {
  return text.replace(/^/gm, '      ');
}
