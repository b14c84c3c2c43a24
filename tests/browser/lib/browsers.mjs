// Chromium by playwright-core and Firefox by puppeteer-core behind one small face.

import { chromium as playwright } from 'playwright-core';
import puppeteer from 'puppeteer-core';

import { soundcard } from './soundcard.mjs';
import { first, within } from './wait.mjs';

const CHROMIUM = first(process.env.CHROMIUM, '/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome');
const FIREFOX = first(process.env.FIREFOX, '/usr/bin/firefox-esr', '/usr/bin/firefox');

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
  // A granted camera makes Chromium offer host candidates instead of mDNS names.
  '--use-fake-ui-for-media-stream',
  '--use-fake-device-for-media-stream=fps=30',
  '--allow-loopback-in-peer-connection',
];

const FIREFOX_PREFS = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.peerconnection.ice.loopback': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  // Tabs behind others keep painting and keep their timers.
  'dom.min_background_timeout_value': 4,
  'dom.timeout.enable_budget_timer_throttling': false,
  'widget.windows.window_occlusion_tracking.enabled': false,
};

/** The browsers of a run; each starts on first use and is started again after it died. */
export class Browsers {
  #running = {};

  async open(kind, url) {
    const browser = await (this.#running[kind] ??= START[kind]().then((b) => {
      b.onGone(() => delete this.#running[kind]);
      return b;
    }));
    return within(30000, `opening ${url} in ${kind}`, browser.open(url));
  }

  async version(kind) {
    return (await (this.#running[kind] ??= START[kind]())).version;
  }

  async close() {
    for (const browser of Object.values(this.#running)) {
      await within(10000, 'closing a browser', browser.then((b) => b.close())).catch(() => {});
    }
    this.#running = {};
  }
}

const START = { chromium: startChromium, firefox: startFirefox };

async function startChromium() {
  if (!CHROMIUM) throw new Error('Chromium is not installed (apt: chromium)');
  const browser = await playwright.launch({ executablePath: CHROMIUM, headless: true, args: CHROMIUM_FLAGS });
  return {
    version: `Chromium ${browser.version()}`,
    onGone: (gone) => browser.on('disconnected', gone),
    close: () => browser.close(),
    async open(url) {
      const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
      await context.grantPermissions(['clipboard-read', 'clipboard-write']).catch(() => {});
      const page = await context.newPage();
      const tab = new Tab('chromium', page, () => context.close());
      page.on('console', (m) => tab.note(m.type(), m.text()));
      page.on('pageerror', (e) => tab.note('uncaught', e.message));
      tab.sibling = async (other) => {
        const second = await context.newPage();
        const sibling = new Tab('chromium', second, () => second.close());
        second.on('console', (m) => sibling.note(m.type(), m.text()));
        second.on('pageerror', (e) => sibling.note('uncaught', e.message));
        await second.goto(other);
        return sibling;
      };
      await page.goto(url);
      return tab;
    },
  };
}

async function startFirefox() {
  if (!FIREFOX) throw new Error('Firefox is not installed (apt: firefox-esr)');
  const card = await soundcard();
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: FIREFOX,
    headless: true,
    extraPrefsFirefox: FIREFOX_PREFS,
    env: { ...process.env, ...card.env },
  });
  return {
    version: (await browser.version()).replace('/', ' '),
    onGone: (gone) => browser.on('disconnected', gone),
    close: () => browser.close().finally(card.stop),
    async open(url) {
      // A window of its own: Firefox stops painting the tabs of a window that are not in front.
      const page = await browser.newPage({ type: 'window' });
      const tab = new Tab('firefox', page, () => page.close());
      page.on('console', (m) => tab.note(m.type(), m.text()));
      page.on('pageerror', (e) => tab.note('uncaught', e.message));
      await page.goto(url);
      return tab;
    },
  };
}

/** One page. */
export class Tab {
  constructor(kind, page, close) {
    Object.assign(this, { kind, page, shut: close, console: [], name: kind });
  }

  note(type, text) {
    this.console.push(`${type}: ${text}`.slice(0, 500));
    if (this.console.length > 200) this.console.shift();
  }

  /** Runs `fn(arg)` in the page. */
  async run(fn, arg, ms = 45000) {
    return within(ms, `${this.name}: ${String(fn).slice(0, 80)}`, this.page.evaluate(fn, arg)).catch((e) => {
      // Both drivers put their own words and the page's stack into the message.
      const text = e.message.replace(/^(page\.evaluate: )?(Error: )?/, '').split(/\n\s+at |\n.*@http/)[0];
      throw Object.assign(new Error(`${this.name}: ${text}`), { cause: e });
    });
  }

  /** Waits until `fn(arg)` is true in the page. Elements do not travel: answer plain values. */
  async until(fn, arg, ms = 15000) {
    const end = Date.now() + ms;
    for (;;) {
      const answer = await this.run(fn, arg);
      if (answer) return answer;
      if (Date.now() > end) throw new Error(`${this.name}: not in ${ms} ms: ${String(fn).slice(0, 160)}`);
      await new Promise((r) => setTimeout(r, 100));
    }
  }

  screenshot(file) {
    return within(15000, 'screenshot', this.page.screenshot({ path: file, fullPage: true }));
  }

  close() {
    return within(5000, 'closing a page', this.shut()).catch(() => {});
  }
}
