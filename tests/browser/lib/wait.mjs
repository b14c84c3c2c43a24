// Waits with ends.

import fs from 'node:fs';

/** `promise`, or an error naming `what` after `ms`. */
export function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done in ${ms} ms: ${what}`)), ms);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** The first of the paths that exists. */
export const first = (...paths) => paths.find((path) => path && fs.existsSync(path));
