// Tests are registered here by the files of ../tests.

export const registered = [];
let file = '';

export const enter = (name) => (file = name);

/**
 * Registers a test: a sentence that states the fact, the browsers it needs, and the proof.
 * `server: false` for what needs none; `seconds` bounds it.
 */
export function test(name, { browsers = ['chromium'], server = true, seconds = 60 }, proof) {
  registered.push({ file, name, browsers, server, seconds, proof });
}

export function check(condition, words) {
  if (!condition) throw new Error(words);
}

export function equal(got, want, what) {
  const [g, w] = [JSON.stringify(got), JSON.stringify(want)];
  if (g !== w) throw new Error(`${what} is ${g}, expected ${w}`);
}

/** `attempt` must fail with an error that matches `pattern`. */
export async function refuses(pattern, attempt) {
  const error = await attempt().then(
    () => undefined,
    (e) => e,
  );
  check(error, `expected a failure like ${pattern}`);
  check(pattern.test(error.message), `expected a failure like ${pattern}, got: ${error.message}`);
}
